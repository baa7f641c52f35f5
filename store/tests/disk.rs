//! A disk that is full or read-only: a clear message, and nothing acknowledged is lost.
//!
//! Each test starts itself again in a mount namespace of its own, on a small tmpfs. Where the
//! system allows no such namespace it fails and says so.

#![allow(clippy::unwrap_used)] // helpers of tests, which may fail loudly
#![cfg(target_os = "linux")]

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{Rng, SeedableRng};
use wormhole_store::{ChunkId, ContentKey, OpenError, RootId, Store, StoreOptions, WriteError};

const DISK: &str = "WORMHOLE_STORE_DISK";

/// Runs `test` of this binary again with a tmpfs of 24 MiB and gives `None`; in that second run, gives the tmpfs.
fn on_small_disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = env::var_os(DISK) {
        return Some(disk.into());
    }
    let disk = tempfile::tempdir().unwrap();
    // Root needs no user namespace, and some systems refuse them to everybody else.
    let root = rustix::process::geteuid().is_root();
    let namespace: &[&str] = if root {
        &["--mount"]
    } else {
        &["--user", "--map-root-user", "--mount"]
    };
    let script =
        "mount -t tmpfs -o size=24m tmpfs \"$0\" && exec \"$1\" --exact \"$2\" --nocapture";
    let status = Command::new("unshare")
        .args(namespace)
        .args(["sh", "-c", script])
        .arg(disk.path())
        .arg(env::current_exe().unwrap())
        .arg(test)
        .env(DISK, disk.path())
        .status();
    assert!(
        status.unwrap().success(),
        "the run on the small disk failed; it needs mount namespaces: be root, or let users make them"
    );
    None
}

fn open(disk: &Path) -> Result<Store, OpenError> {
    Store::open(
        &disk.join("store"),
        ContentKey::from_bytes([1; 32]),
        StoreOptions::default(),
    )
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 200_000];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Puts and commits until something refuses; returns what was acknowledged, and the refusal.
fn fill(store: &Store, first: u64) -> (Vec<ChunkId>, WriteError) {
    let mut acknowledged = Vec::new();
    for seed in first.. {
        let put = store.put(&noise(seed));
        match put.and_then(|id| store.commit().map(|()| id)) {
            Ok(id) => acknowledged.push(id),
            Err(error) => return (acknowledged, error),
        }
    }
    unreachable!("the disk is small")
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let Some(disk) = on_small_disk("a_full_disk_is_named_and_loses_nothing") else {
        return;
    };
    let filler = disk.join("filler");
    File::create(&filler)
        .unwrap()
        .write_all(&vec![1; 8 << 20])
        .unwrap();
    let store = open(&disk).unwrap();
    let (acknowledged, refusal) = fill(&store, 0);
    assert!(matches!(refusal, WriteError::NoSpace { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("free some space"), "{refusal}");
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    for id in &acknowledged {
        assert!(store.read(id).is_ok(), "readable while full");
    }
    drop(store);
    let full = open(&disk);
    assert!(
        full.is_ok() || matches!(full, Err(OpenError::NoSpace { .. })),
        "{full:?}"
    );
    drop(full);

    fs::remove_file(filler).unwrap();
    let store = open(&disk).unwrap();
    for id in &acknowledged {
        assert!(store.read(id).is_ok(), "readable after making room");
    }
    let (more, _) = fill(&store, 1000);
    assert!(more.len() > 10, "writing goes on: {}", more.len());
}

#[test]
fn a_full_disk_does_not_stop_a_store_that_gets_room_again() {
    let test = "a_full_disk_does_not_stop_a_store_that_gets_room_again";
    let Some(disk) = on_small_disk(test) else {
        return;
    };
    let store = open(&disk).unwrap();
    store.commit().unwrap();
    let filler = disk.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let refused = store.put(&noise(1));
    assert!(
        matches!(refused, Err(WriteError::NoSpace { .. })),
        "{refused:?}"
    );
    fs::remove_file(filler).unwrap();
    let id = store.put(&noise(1)).unwrap();
    store.commit().unwrap();
    drop(store);
    assert_eq!(open(&disk).unwrap().read(&id).unwrap(), noise(1));
}

#[test]
fn packs_leave_room_for_what_must_be_written() {
    let Some(disk) = on_small_disk("packs_leave_room_for_what_must_be_written") else {
        return;
    };
    let store = open(&disk).unwrap();
    let (acknowledged, refusal) = fill(&store, 0);
    assert!(matches!(refusal, WriteError::NoSpace { .. }), "{refusal:?}");
    let left = rustix::fs::statvfs(&disk).unwrap();
    assert!(left.f_bavail * left.f_frsize >= 2 << 20);
    assert!(!store.has_failed());
    let root = RootId::from_bytes([1; 16]);
    store.add_root(&root, &disk).unwrap();
    store.commit().unwrap();
    assert!(acknowledged.len() > 80, "{}", acknowledged.len());
}

#[test]
fn a_store_that_could_not_commit_says_so() {
    let Some(disk) = on_small_disk("a_store_that_could_not_commit_says_so") else {
        return;
    };
    let store = open(&disk).unwrap();
    store.put(&noise(1)).unwrap();
    let mut filler = File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    assert!(!store.has_failed());
    assert!(store.commit().is_err());
    assert!(store.has_failed());
}

#[test]
fn a_read_only_disk_is_named() {
    let Some(disk) = on_small_disk("a_read_only_disk_is_named") else {
        return;
    };
    let store = open(&disk).unwrap();
    let id = store.put(&noise(1)).unwrap();
    store.close().unwrap();
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(&disk).status();
        assert!(status.unwrap().success());
    };
    remount("remount,ro");
    let refused = open(&disk);
    assert!(
        matches!(&refused, Err(OpenError::Io { path, source })
            if path.starts_with(&disk) && source.kind() == std::io::ErrorKind::ReadOnlyFilesystem),
        "{refused:?}"
    );
    remount("remount,rw");
    assert!(open(&disk).unwrap().read(&id).is_ok());
}
