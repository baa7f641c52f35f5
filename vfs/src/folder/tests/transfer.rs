//! Who owns an unfinished file: one transfer, from its first byte until it is in its place or gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::Role;
use wormhole_store::FetchJob;

use super::device::{Device, sync};
use super::run::{Beside, Running};
use crate::source::{FetchFailure, Source};

/// Brings everything at once, and says so only when it is let.
struct Slow {
    beside: Beside,
    calls: AtomicUsize,
    may_return: Semaphore,
}

impl Source for Slow {
    fn fetch(
        &self,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Vec<Result<(), FetchFailure>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let fetched = self.beside.fetch(jobs, cancel);
        Box::pin(async move {
            let fetched = fetched.await;
            if let Ok(permit) = self.may_return.acquire().await {
                permit.forget();
            }
            fetched
        })
    }
}

/// A file is renamed, and becomes executable, while it is fetched: another transfer of the same bytes begins before the
/// first one has come to its end.
async fn renamed_while_it_is_fetched(text: &str) {
    let mut one = Device::found();
    let other = one.join(1, Role::Writer);
    one.write("d/F", text);
    one.settle(&[]);
    sync(&one, &other);
    let source = Arc::new(Slow {
        beside: Beside::new(&other.store, &one.store),
        calls: AtomicUsize::new(0),
        may_return: Semaphore::new(0),
    });
    let running = Running::start_with(other, 1, Arc::clone(&source) as Arc<dyn Source>);
    running
        .until("it is fetched", |_| {
            source.calls.load(Ordering::Relaxed) > 0
        })
        .await;
    std::fs::rename(one.path("d/F"), one.path("d/F2")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(one.path("d/F2"), mode).unwrap();
    one.settle(&[]);
    sync(&one, &running.device);
    running
        .until("it is wanted under its new name", |status| {
            status.pending.iter().any(|one| &*one.path == "d/F2")
        })
        .await;
    // The first transfer ends, then the second.
    source.may_return.add_permits(1);
    for _ in 0..20 {
        running.folder.explain("d/F2").await;
    }
    source.may_return.add_permits(100);
    running
        .until("everything is here", |status| status.settled)
        .await;
    let there = running.stop().await;
    assert_eq!(there.tree(), one.tree());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_that_is_renamed_while_it_is_fetched_arrives_whole() {
    renamed_while_it_is_fetched(&"three ".repeat(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_many_chunks_that_is_renamed_while_it_is_fetched_arrives_whole() {
    renamed_while_it_is_fetched(&"many chunks ".repeat(75_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_nobody_wants_any_more_goes_at_once() {
    let mut one = Device::found();
    let other = one.join(1, Role::Writer);
    let text: String = (0..600_000).map(|number| format!("{number} ")).collect();
    one.write("large", &text);
    one.settle(&[]);
    sync(&one, &other);
    let mut source = Beside::new(&other.store, &one.store);
    source.hangs_after = 2;
    let tmp = other.path(".wormhole/tmp");
    let running = Running::start_with(other, 1, Arc::new(source));
    let parts = || std::fs::read_dir(&tmp).unwrap().count();
    while parts() == 0 {
        tokio::task::yield_now().await;
    }
    std::fs::remove_file(one.path("large")).unwrap();
    one.settle(&[]);
    sync(&one, &running.device);
    while parts() > 0 {
        tokio::task::yield_now().await;
    }
    running.until("at rest", |status| status.settled).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_directory_that_is_removed_is_made_again() {
    let mut one = Device::found();
    let other = one.join(1, Role::Writer);
    let running = Running::start(other, 1, &one.store);
    assert!(running.folder.settled().await);
    std::fs::remove_dir(running.device.path(".wormhole/tmp")).unwrap();
    one.write("file", "x");
    one.settle(&[]);
    sync(&one, &running.device);
    running
        .until("it arrives", |status| {
            status.settled && status.counts.files == 1
        })
        .await;
    let there = running.stop().await;
    assert_eq!(there.read("file"), "x");
}
