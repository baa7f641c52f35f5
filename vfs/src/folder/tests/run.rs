//! The whole folder with its task and the kernel's watches: two folders in one process, a source that copies from the
//! other's store, and a wire that carries the metadata.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{Replica, Role};
use wormhole_store::{FetchJob, RootId, Store};

use super::device::{Device, sync};
use crate::folder::Folder;
use crate::folder::config::FolderConfig;
use crate::folder::status::{Explanation, FolderStatus, Phase, StopReason, WaitingFor};
use crate::folder::watch::Trouble;
use crate::source::{FetchFailure, Source};

/// Copies from another store.
pub(super) struct Beside {
    pub(super) own: Store,
    pub(super) other: Store,
    /// Chunks that were put.
    pub(super) puts: AtomicUsize,
    /// After so many it hangs until it is cancelled.
    pub(super) hangs_after: usize,
}

impl Source for Beside {
    fn fetch(
        &self,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Vec<Result<(), FetchFailure>>> {
        let results: Vec<_> = jobs.iter().map(|job| self.bring(job)).collect();
        let hangs = self.puts.load(Ordering::Relaxed) >= self.hangs_after;
        Box::pin(async move {
            if hangs {
                cancel.cancelled().await;
            }
            results
        })
    }
}

impl Beside {
    pub(super) fn new(own: &Store, other: &Store) -> Self {
        Self {
            own: own.clone(),
            other: other.clone(),
            puts: AtomicUsize::new(0),
            hangs_after: usize::MAX,
        }
    }

    fn bring(&self, job: &FetchJob) -> Result<(), FetchFailure> {
        let Self { own, other, .. } = self;
        loop {
            let missing = own.missing_manifest(&job.content).unwrap();
            if missing.is_empty() {
                break;
            }
            for id in missing {
                let bytes = other.read(&id).map_err(|_| FetchFailure::NoHolder)?;
                own.put_verified(id, &bytes).map_err(FetchFailure::Sink)?;
            }
        }
        let lack = job
            .sink
            .prepare(&job.content, 0)
            .map_err(FetchFailure::Sink)?;
        assert_eq!(lack.next, None, "small enough for one part");
        for slot in lack.slots {
            let bytes = other
                .read(&slot.chunk.id)
                .map_err(|_| FetchFailure::NoHolder)?;
            if self.puts.load(Ordering::Relaxed) >= self.hangs_after {
                return Err(FetchFailure::Cancelled);
            }
            self.puts.fetch_add(1, Ordering::Relaxed);
            job.sink.put(slot, &bytes).map_err(FetchFailure::Sink)?;
        }
        Ok(())
    }
}

pub(super) struct Running {
    pub(super) device: Device,
    pub(super) folder: Folder,
    /// Where the watcher says what it could not tell.
    pub(super) trouble: Arc<Trouble>,
    tasks: JoinSet<()>,
}

impl Running {
    pub(super) fn start(device: Device, number: u8, other: &Store) -> Self {
        let source = Arc::new(Beside::new(&device.store, other));
        Self::start_with(device, number, source)
    }

    pub(super) fn start_with(mut device: Device, number: u8, source: Arc<dyn Source>) -> Self {
        device.engine = None;
        let dir = device.path("");
        let mut config = FolderConfig::new(RootId::from_bytes([number; 16]), dir, state(&device));
        config.deletion_guard.emptied_entries = u64::MAX;
        let (replica, store): (Replica, Store) = (device.replica.clone(), device.store.clone());
        let trouble = Arc::new(Trouble::default());
        let cancel = CancellationToken::new();
        let told = Arc::clone(&trouble);
        let (folder, task) =
            Folder::start_with(config, replica, store, source, cancel, told).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        Self {
            device,
            folder,
            trouble,
            tasks,
        }
    }

    pub(super) async fn until(&self, what: &str, reached: impl FnMut(&FolderStatus) -> bool) {
        let mut status = self.folder.watch();
        let waited = tokio::time::timeout(Duration::from_secs(20), status.wait_for(reached)).await;
        assert!(
            waited.is_ok(),
            "never: {what}; now {:?}",
            self.folder.status()
        );
    }

    /// Gives the device back, at rest.
    pub(super) async fn stop(mut self) -> Device {
        self.folder.stop().await;
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.device
    }
}

fn state(device: &Device) -> PathBuf {
    device.home.path().join("folder.redb")
}

fn running_pair() -> [Running; 2] {
    let one = Device::found();
    let other = one.join(1, Role::Writer);
    let stores = [one.store.clone(), other.store.clone()];
    [
        Running::start(one, 0, &stores[1]),
        Running::start(other, 1, &stores[0]),
    ]
}

/// Carries metadata both ways until the check holds.
async fn eventually(pair: &[Running; 2], what: &str, check: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if check() {
            return;
        }
        sync(&pair[0].device, &pair[1].device);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "never: {what}; {:?} {:?}",
        pair[0].folder.status(),
        pair[1].folder.status()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_is_noticed_by_the_watch_and_arrives() {
    let pair = running_pair();
    for one in &pair {
        assert!(one.folder.settled().await);
    }
    pair[0].device.write("dir/deep/file", "one");
    let there = pair[1].device.path("dir/deep/file");
    let read = || std::fs::read_to_string(&there).unwrap_or_default();
    eventually(&pair, "the file arrives", || read() == "one").await;
    pair[0].device.write("dir/deep/file", "two");
    eventually(&pair, "the change arrives", || read() == "two").await;
    std::fs::rename(pair[0].device.path("dir"), pair[0].device.path("moved")).unwrap();
    let moved = pair[1].device.path("moved/deep/file");
    eventually(&pair, "the rename arrives", || {
        moved.exists() && !there.exists()
    })
    .await;
    pair[0].device.write("moved/deep/file", "three");
    eventually(&pair, "a renamed directory is still watched", || {
        std::fs::read_to_string(&moved).unwrap_or_default() == "three"
    })
    .await;
    // Whoever deletes must have had the last version in hand, or it comes back.
    assert!(pair[1].folder.settled().await);
    std::fs::remove_dir_all(pair[1].device.path("moved")).unwrap();
    let first = pair[0].device.path("moved");
    eventually(&pair, "the deletion comes back", || !first.exists()).await;
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

/// As builds do: `rm -rf dist; mkdir dist`. The watch of the old directory must not be taken for one of the new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_removed_and_made_again_is_heard() {
    let pair = running_pair();
    for one in &pair {
        assert!(one.folder.settled().await);
    }
    let here = |path: &str| pair[0].device.path(path);
    for round in 0..12 {
        for _ in 0..3 {
            std::fs::create_dir_all(here("one/dist")).unwrap();
            std::fs::remove_dir_all(here("one/dist")).unwrap();
        }
        let text = format!("round {round}");
        pair[0].device.write("one/dist/file", &text);
        let there = pair[1].device.path("one/dist/file");
        let arrived = || std::fs::read_to_string(&there).unwrap_or_default() == text;
        eventually(&pair, "the file arrives", arrived).await;
        // Nothing but a hint tells of this one.
        let text = format!("round {round}, changed");
        pair[0].device.write("one/dist/file", &text);
        let arrived = || std::fs::read_to_string(&there).unwrap_or_default() == text;
        eventually(&pair, "the change arrives", arrived).await;
    }
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_files_that_nobody_waits_for_are_removed() {
    let device = Device::found();
    let store = device.store.clone();
    let left = device.path(".wormhole/tmp").join("0123-4567");
    std::fs::write(&left, "half of something").unwrap();
    let running = Running::start(device, 0, &store);
    assert!(running.folder.settled().await);
    assert!(!left.exists());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_this_device_hold_as_soon_as_they_are_written() {
    let pair = running_pair();
    for one in &pair {
        assert!(one.folder.settled().await);
    }
    pair[1].device.write(".wormhole/ignore", "*.log\n");
    let folder = &pair[1].folder;
    for _ in 0..1_000 {
        let found = folder.explain("noise.log").await;
        if matches!(found, Explanation::Ignored { .. }) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pair[0].device.write("noise.log", "x");
    pair[0].device.write("kept", "x");
    let path = |name| pair[1].device.path(name);
    eventually(&pair, "the other file arrives", || path("kept").exists()).await;
    assert!(!path("noise.log").exists());
    std::fs::remove_file(path(".wormhole/ignore")).unwrap();
    eventually(&pair, "it arrives after all", || path("noise.log").exists()).await;
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_of_a_new_tree_is_found() {
    let pair = running_pair();
    assert!(pair[0].folder.settled().await);
    for number in 0..1_000 {
        pair[0]
            .device
            .write(&format!("a/b{}/c/{number}", number % 10), "x");
    }
    let there = pair[1].device.path("");
    eventually(&pair, "1000 files arrive", || sum(&there) == 1_000).await;
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_sudden_mass_deletion_is_passed_on() {
    let pair = running_pair();
    assert!(pair[0].folder.settled().await);
    for number in 0..210 {
        let device = &pair[0].device;
        device.write(&format!("dir {}/{number}", number % 10), "x");
    }
    let there = pair[1].device.path("");
    eventually(&pair, "210 files arrive", || sum(&there) == 210).await;
    assert!(pair[0].folder.settled().await);
    for number in 0..10 {
        std::fs::remove_dir_all(pair[0].device.path(&format!("dir {number}"))).unwrap();
    }
    let mut status = pair[0].folder.watch();
    let held = status.wait_for(|status| status.held.entries == 220);
    tokio::time::timeout(Duration::from_secs(20), held)
        .await
        .expect("all of them are held")
        .expect("the folder runs");
    assert!(!pair[0].folder.status().settled);
    sync(&pair[0].device, &pair[1].device);
    assert!(pair[1].folder.settled().await);
    assert_eq!(sum(&there), 210);
    let list = pair[0].folder.status().held.list;
    assert_eq!(pair[0].folder.confirm_deletions(list + 1).await, None);
    assert_eq!(pair[0].folder.confirm_deletions(list).await, Some(220));
    eventually(&pair, "a person confirms", || sum(&there) == 0).await;
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

fn sum(dir: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name() != ".wormhole")
        .map(|entry| {
            if entry.path().is_dir() {
                sum(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_nobody_has_waits_and_says_so() {
    let one = Device::found();
    let other = one.join(1, Role::Writer);
    let nobody = Device::found();
    one.write("lonely", "bytes");
    let mut one = one;
    one.settle(&[]);
    sync(&one, &other);
    let running = Running::start(other, 1, &nobody.store);
    running
        .until("it waits for a holder", |status| {
            status
                .pending
                .iter()
                .any(|one| one.reason == WaitingFor::Holder)
        })
        .await;
    let explanation = running.folder.explain("lonely").await;
    assert_eq!(explanation, Explanation::Waiting(WaitingFor::Holder));
    assert!(!running.folder.status().settled);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_loses_its_marker_stops_and_says_why() {
    let pair = running_pair();
    pair[0].device.write("file", "x");
    assert!(pair[0].folder.settled().await);
    std::fs::remove_dir_all(pair[0].device.path(".wormhole")).unwrap();
    pair[0].folder.rescan().await;
    let stopped = Phase::Stopped(StopReason::MarkerGone);
    pair[0]
        .until("it stops", |status| status.phase == stopped)
        .await;
    let explanation = pair[0].folder.explain("file").await;
    assert_eq!(explanation, Explanation::Stopped(StopReason::MarkerGone));
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_moved_away_is_noticed_at_once_and_nothing_is_deleted() {
    let pair = running_pair();
    pair[0].device.write("file", "x");
    let there = pair[1].device.path("file");
    eventually(&pair, "the file arrives", || there.exists()).await;
    assert!(pair[0].folder.settled().await);
    let away = pair[0].device.home.path().join("away");
    std::fs::rename(pair[0].device.path(""), &away).unwrap();
    let stopped = Phase::Stopped(StopReason::DirectoryGone);
    pair[0]
        .until("it stops", |status| status.phase == stopped)
        .await;
    sync(&pair[0].device, &pair[1].device);
    assert!(pair[1].folder.settled().await);
    assert!(there.exists());
    std::fs::rename(&away, pair[0].device.path("")).unwrap();
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_that_is_removed_is_noticed_without_asking() {
    let pair = running_pair();
    assert!(pair[0].folder.settled().await);
    std::fs::remove_file(pair[0].device.path(".wormhole/folder")).unwrap();
    let stopped = Phase::Stopped(StopReason::MarkerGone);
    pair[0]
        .until("it stops", |status| status.phase == stopped)
        .await;
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_has_an_explanation() {
    let pair = running_pair();
    pair[0].device.write(".wormholeignore", "*.log\n");
    pair[0].device.write("noise.log", "x");
    pair[0].device.write("synced", "x");
    pair[0].folder.rescan().await;
    pair[0]
        .until("all is recorded", |status| {
            status.settled && status.counts.files == 2
        })
        .await;
    let folder = &pair[0].folder;
    assert_eq!(folder.explain("synced").await, Explanation::Synced);
    assert_eq!(folder.explain("not there").await, Explanation::Unknown);
    let ignored = Explanation::Ignored {
        rule: "*.log".into(),
        file: ".wormholeignore".into(),
    };
    assert_eq!(folder.explain("noise.log").await, ignored);
    let [one, other] = pair;
    one.stop().await;
    other.stop().await;
}
