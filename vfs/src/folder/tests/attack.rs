//! Hostile and unlucky file systems: links swapped in, full and read-only disks, files that change or vanish.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device::{Device, converge, sync};
use super::kind::pair;

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let mut devices = pair();
    devices[0].write("dir/file", "1");
    converge(&mut devices);
    let outside = devices[1].home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "precious").unwrap();
    devices[0].write("dir/file", "2, longer");
    devices[0].write("dir/other", "3");
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    // The attacker acts after the scan, before the change is applied.
    std::fs::rename(
        devices[1].path("dir"),
        devices[1].home.path().join("hidden"),
    )
    .unwrap();
    symlink(&outside, devices[1].path("dir")).unwrap();
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    assert_eq!(
        std::fs::read_to_string(outside.join("file")).unwrap(),
        "precious"
    );
    assert!(!outside.join("other").exists());
}

#[test]
fn a_racing_attacker_gains_nothing() {
    let mut devices = pair();
    devices[0].write("dir/file", "0");
    converge(&mut devices);
    let outside = devices[1].home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let (dir, hidden) = (
        devices[1].path("dir"),
        devices[1].home.path().join("hidden"),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let attacker = {
        let (stop, outside) = (Arc::clone(&stop), outside.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if std::fs::rename(&dir, &hidden).is_ok() {
                    drop(symlink(&outside, &dir));
                    drop(std::fs::remove_file(&dir));
                    drop(std::fs::rename(&hidden, &dir));
                }
            }
        })
    };
    for round in 0..20 {
        devices[0].write(&format!("dir/{round}"), "text");
        devices[0].settle(&[]);
        sync(&devices[0], &devices[1]);
        let store = devices[0].store.clone();
        devices[1].settle(&[&store]);
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

/// A tmpfs of its own for the folder; gone with the value. The tests that need it fail where mounting is refused.
pub(super) struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    pub(super) fn mount(at: &'a Path, options: &str) -> Self {
        Self::mount_kind("tmpfs", at, options)
    }

    /// One of another kind of file system that is kept in memory.
    pub(super) fn mount_kind(kind: &str, at: &'a Path, options: &str) -> Self {
        let mount = Command::new("mount")
            .args(["-t", kind, "-o", options, kind])
            .arg(at)
            .status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "this test mounts a {kind}: run it as root, or in a user and mount namespace of its own"
        );
        Self(at)
    }

    /// One in a file.
    pub(super) fn mount_image(image: &Path, at: &'a Path) -> Self {
        let mount = Command::new("mount")
            .args(["-o", "loop"])
            .args([image, at])
            .status();
        assert!(
            mount.is_ok_and(|status| status.success()),
            "this test mounts a disk in a file: run it as root, where loop devices are"
        );
        Self(at)
    }

    pub(super) fn remount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-o", options])
            .arg(self.0)
            .status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_tried_again() {
    let mut devices = pair();
    let folder = devices[1].path("");
    let disk = Disk::mount(&folder, "size=1m");
    std::fs::remove_file(devices[1].home.path().join("folder.redb")).unwrap();
    devices[1].restart();
    devices[0].write("fits", "small");
    devices[0].write("does not", &"much too long ".repeat(200_000));
    for _ in 0..2 {
        devices[0].settle(&[]);
        sync(&devices[0], &devices[1]);
        let store = devices[0].store.clone();
        devices[1].settle(&[&store]);
    }
    assert_eq!(devices[1].read("fits"), "small");
    assert!(devices[1].is_waiting());
    assert!(!devices[1].path("does not").exists());
    disk.remount("remount,size=16m");
    converge(&mut devices);
    assert_eq!(devices[1].read("does not").len(), 14 * 200_000);
    devices[1].engine = None;
}

#[test]
fn another_file_system_inside_is_not_entered() {
    let mut devices = pair();
    std::fs::create_dir(devices[0].path("disk")).unwrap();
    let at = devices[0].path("disk");
    let _disk = Disk::mount(&at, "size=1m");
    devices[0].write("disk/file", "x");
    devices[0].settle(&[]);
    let reason = devices[0].problem("disk");
    assert_eq!(reason, Some(super::super::status::Reason::OtherFileSystem));
    assert_eq!(devices[0].replica.counts().unwrap().files, 0);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_recorded_when_it_is_done() {
    let mut devices = pair();
    let path = devices[0].path("busy");
    let writer = std::thread::spawn(move || {
        for round in 0..200 {
            std::fs::write(&path, format!("round {round} ").repeat(1_000)).unwrap();
        }
    });
    devices[0].settle(&[]);
    writer.join().unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].read("busy"), "round 199 ".repeat(1_000));
}

#[test]
fn a_file_that_vanishes_while_it_is_looked_at_is_no_trouble() {
    let mut devices = pair();
    let dir = devices[0].path("");
    let maker = std::thread::spawn(move || {
        for round in 0..500 {
            let path = dir.join(format!("{}", round % 7));
            std::fs::write(&path, "x").unwrap();
            std::fs::remove_file(&path).unwrap();
        }
    });
    for _ in 0..10 {
        devices[0].settle(&[]);
    }
    maker.join().unwrap();
    let devices: &mut [Device; 2] = &mut devices;
    converge(devices);
    assert!(devices[1].tree().is_empty());
}
