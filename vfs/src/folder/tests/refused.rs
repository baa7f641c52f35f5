//! What the system refuses: no permission, a disk that takes no writes. It is told, tried again, and never a deletion.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::attack::Disk;
use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::explain::Found;
use crate::folder::status::{Explanation, Reason};

/// While it lives, permissions bind this thread as they bind other users, also when it is root's.
pub(super) struct Bound(CapabilitySets);

impl Bound {
    pub(super) fn new() -> Self {
        let before = capabilities(None).unwrap();
        let over = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let sets = CapabilitySets {
            effective: before.effective - over,
            ..before
        };
        set_capabilities(None, sets).unwrap();
        Self(before)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        set_capabilities(None, self.0).unwrap();
    }
}

pub(super) fn set_mode(device: &Device, path: &str, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(device.path(path), mode).unwrap();
}

/// Looks again at what there is trouble with, as the folder's task does now and then.
fn try_again(device: &mut Device, other: &Device) {
    let paths = device.engine().problems.paths();
    let paths: Vec<&str> = paths.iter().filter_map(|path| path.to_str()).collect();
    device.check(&paths);
    device.retry_refused(&[&other.store]);
}

#[test]
fn a_file_that_cannot_be_read_is_reported_and_retried() {
    let mut devices = pair();
    devices[0].write("secret", "x");
    set_mode(&devices[0], "secret", 0o000);
    let bound = Bound::new();
    devices[0].settle(&[]);
    assert_eq!(devices[0].problem("secret"), Some(Reason::Permission));
    set_mode(&devices[0], "secret", 0o600);
    converge(&mut devices);
    assert_eq!(devices[0].problem("secret"), None);
    assert_eq!(devices[1].read("secret"), "x");
    drop(bound);
}

#[test]
fn a_directory_that_cannot_be_read_is_reported_and_nothing_in_it_is_deleted() {
    for mode in [0o000, 0o100, 0o400] {
        let mut devices = pair();
        devices[0].write("dir/below/file", "kept");
        devices[0].write("dir/other", "kept");
        converge(&mut devices);
        let before = devices[1].tree();
        set_mode(&devices[0], "dir", mode);
        let bound = Bound::new();
        devices[0].settle(&[]);
        devices[0].check(&["dir", "dir/below", "dir/below/file", "dir/other"]);
        let told = |device: &mut Device| {
            let paths = device.engine().problems.paths();
            assert!(
                paths.iter().any(|path| path.starts_with("dir")),
                "{paths:?}"
            );
            for path in paths {
                assert_eq!(
                    device.engine().problems.at(&path),
                    Some(&Reason::Permission)
                );
            }
        };
        told(&mut devices[0]);
        let why = devices[0].engine().explain(Path::new("dir/other")).unwrap();
        let denied = Explanation::Problem(Reason::Permission);
        assert!(
            matches!(why, Found::Answer(why) if why == denied),
            "{mode:o}"
        );
        // A start finds it the same way.
        devices[0].restart();
        devices[0].settle(&[]);
        told(&mut devices[0]);
        sync(&devices[0], &devices[1]);
        devices[1].settle(&[]);
        assert_eq!(devices[1].tree(), before, "mode {mode:o}");
        set_mode(&devices[0], "dir", 0o700);
        let [one, other] = &mut devices;
        try_again(one, other);
        assert!(devices[0].engine().problems.paths().is_empty());
        converge(&mut devices);
        assert_eq!(devices[1].tree(), before);
        drop(bound);
    }
}

#[test]
fn a_file_in_a_directory_that_cannot_be_read_was_not_renamed() {
    let mut devices = pair();
    devices[0].write("dir/file", "kept");
    converge(&mut devices);
    std::fs::hard_link(devices[0].path("dir/file"), devices[0].path("second")).unwrap();
    set_mode(&devices[0], "dir", 0o000);
    let bound = Bound::new();
    converge_one_way(&mut devices);
    let names: Vec<String> = devices[1].tree().into_keys().collect();
    assert_eq!(names, ["dir", "dir/file", "second"]);
    set_mode(&devices[0], "dir", 0o700);
    drop(bound);
}

/// What the first has to say reaches the second.
fn converge_one_way(devices: &mut [Device; 2]) {
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
}

#[test]
fn what_a_read_only_disk_refused_is_done_when_it_can_be_written() {
    let mut devices = pair();
    let folder = devices[1].path("");
    let disk = Disk::mount(&folder, "size=1m");
    std::fs::remove_file(devices[1].home.path().join("folder.redb")).unwrap();
    devices[1].restart();
    for name in ["removed", "renamed", "made executable", "moved/file"] {
        devices[0].write(name, name);
    }
    converge(&mut devices);
    devices[0].write("dir/file", "text");
    std::fs::remove_file(devices[0].path("removed")).unwrap();
    std::fs::rename(devices[0].path("renamed"), devices[0].path("new name")).unwrap();
    std::fs::rename(devices[0].path("moved"), devices[0].path("new place")).unwrap();
    set_mode(&devices[0], "made executable", 0o755);
    std::os::unix::fs::symlink("dir", devices[0].path("link")).unwrap();
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    disk.remount("remount,ro");
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    let changed = [
        "dir",
        "removed",
        "new name",
        "made executable",
        "new place",
        "link",
    ];
    for path in changed {
        assert_eq!(
            devices[1].problem(path),
            Some(Reason::ReadOnlyDisk),
            "{path}"
        );
    }
    disk.remount("remount,rw");
    let [other, one] = &mut devices;
    try_again(one, other);
    assert_eq!(devices[1].tree(), devices[0].tree());
    assert!(devices[1].engine().problems.paths().is_empty());
    devices[1].engine = None;
}
