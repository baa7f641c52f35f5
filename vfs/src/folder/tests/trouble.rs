//! The whole folder when something fails around it: transfers cut off, hints lost, watches or space running out.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wormhole_store::Store;

use super::attack::Disk;
use super::device::{Device, sync};
use super::kind::pair;
use super::run::{Beside, Running};
use crate::folder::status::{Explanation, FolderStatus, Phase, Reason, StopReason};

/// A running folder, of which nobody else has anything.
fn alone() -> Running {
    let one = Device::found();
    let store = one.store.clone();
    Running::start(one, 0, &store)
}

fn has_problem(status: &FolderStatus, wanted: fn(&Reason) -> bool) -> bool {
    status.problems.iter().any(|one| wanted(&one.reason))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_cut_off_half_way_is_resumed_where_it_stopped() {
    let [mut one, other] = pair();
    let mut bytes = vec![0; 8 << 20];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    std::fs::write(one.path("big"), &bytes).unwrap();
    one.settle(&[]);
    sync(&one, &other);
    let beside = |other: &Device, hangs_after| {
        Arc::new(Beside {
            hangs_after,
            ..Beside::new(&other.store, &one.store)
        })
    };
    let cut_off = beside(&other, 10);
    let running = Running::start_with(other, 1, cut_off.clone());
    let hangs = async {
        while cut_off.puts.load(Ordering::Relaxed) < 10 {
            tokio::task::yield_now().await;
        }
    };
    hangs.await;
    let other = running.stop().await;
    assert!(!other.path("big").exists());
    let whole = beside(&other, usize::MAX);
    let running = Running::start_with(other, 1, whole.clone());
    assert!(running.folder.settled().await);
    assert_eq!(std::fs::read(running.device.path("big")).unwrap(), bytes);
    let file = one.replica.lookup(wormhole_crdt::EntryId::ROOT, "big");
    let content = file.unwrap().unwrap().file.unwrap().content;
    let slots = one.store.slots(&content).unwrap().count();
    assert_eq!(whole.puts.load(Ordering::Relaxed), slots - 10);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_hints_lead_to_a_scan() {
    let running = alone();
    running.device.write("file", "before");
    running.folder.rescan().await;
    running
        .until("it is recorded", |now| now.settled && now.counts.files == 1)
        .await;
    // Written under a name outside of the folder: no watch of its directories hears of that.
    let outside = running.device.home.path().join("second name");
    std::fs::hard_link(running.device.path("file"), &outside).unwrap();
    let file = std::fs::File::options().write(true).open(&outside).unwrap();
    file.write_all_at(b"after, and longer", 0).unwrap();
    running.trouble.lose();
    running
        .until("it is noticed", |now| now.counts.bytes == 17)
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_that_are_lost_all_the_time_keep_no_scan_from_its_end() {
    let mut one = Device::found();
    // More names than one step compares.
    for number in 0..5_000 {
        one.write(&format!("{}/{number}", number % 10), "");
    }
    one.settle(&[]);
    let store = one.store.clone();
    let running = Running::start(one, 0, &store);
    assert!(running.folder.settled().await);
    std::fs::remove_file(running.device.path("0/0")).unwrap();
    let lose = async {
        loop {
            running.trouble.lose();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = lose => {}
        () = running.until("the deletion is judged", |now| now.counts.files == 4_999) => {}
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_watches_are_told_until_there_are_enough() {
    let running = alone();
    assert!(running.folder.settled().await);
    running.trouble.limit();
    running
        .until("it is told", |now| {
            has_problem(now, |reason| *reason == Reason::WatchLimit)
        })
        .await;
    let action = Reason::WatchLimit.action();
    assert!(action.contains("fs.inotify.max_user_watches"), "{action}");
    // Somebody raised it.
    running.folder.rescan().await;
    running
        .until("it is over", |now| {
            !has_problem(now, |reason| *reason == Reason::WatchLimit)
        })
        .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_until_there_is_room() {
    let [mut one, mut other] = pair();
    let store: Store = one.store.clone();
    one.write("large", &"much too long ".repeat(200_000));
    one.settle(&[]);
    sync(&one, &other);
    other.engine = None;
    let folder = other.path("");
    let disk = Disk::mount(&folder, "size=1m");
    std::fs::remove_file(other.home.path().join("folder.redb")).unwrap();
    let running = Running::start(other, 1, &store);
    let full: fn(&Reason) -> bool = |reason| matches!(reason, Reason::NoSpace { .. });
    running
        .until("it is told", |now| has_problem(now, full))
        .await;
    disk.remount("remount,size=16m");
    running.folder.poke().await;
    running
        .until("it is over", |now| now.settled && !has_problem(now, full))
        .await;
    assert_eq!(running.device.read("large").len(), 14 * 200_000);
    let stopped = running.stop().await;
    drop(disk);
    drop(stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_hidden_by_a_mount_is_noticed_when_somebody_asks() {
    let running = alone();
    running.device.write("file", "x");
    assert!(running.folder.settled().await);
    let folder = running.device.path("");
    // No watch hears of that.
    let disk = Disk::mount(&folder, "size=1m");
    let gone = StopReason::DirectoryGone;
    let status = running.folder.checked_status().await;
    assert_eq!(status.phase, Phase::Stopped(gone.clone()));
    assert!(!status.settled);
    let explanation = running.folder.explain("file").await;
    assert_eq!(explanation, Explanation::Stopped(gone));
    drop(disk);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_is_told_until_it_can_be_written() {
    let [mut one, mut other] = pair();
    let store: Store = one.store.clone();
    one.write("file", "text");
    one.settle(&[]);
    other.engine = None;
    let folder = other.path("");
    let disk = Disk::mount(&folder, "size=1m");
    std::fs::remove_file(other.home.path().join("folder.redb")).unwrap();
    let running = Running::start(other, 1, &store);
    assert!(running.folder.settled().await);
    disk.remount("remount,ro");
    sync(&one, &running.device);
    let read_only: fn(&Reason) -> bool = |reason| *reason == Reason::ReadOnlyDisk;
    running
        .until("it is told", |now| has_problem(now, read_only))
        .await;
    let explanation = running.folder.explain("file").await;
    assert!(
        explanation.to_string().contains("read-only"),
        "{explanation}"
    );
    disk.remount("remount,rw");
    running.folder.poke().await;
    running
        .until("it is over", |now| {
            now.settled && !has_problem(now, read_only)
        })
        .await;
    assert_eq!(running.device.read("file"), "text");
    let stopped = running.stop().await;
    drop(disk);
    drop(stopped);
}
