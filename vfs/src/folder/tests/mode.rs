//! Permissions and times: what travels, what is applied, and what is never taken for a change.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wormhole_crdt::{EntryId, Mode};

use super::device::{Device, converge, sync};
use super::kind::pair;

fn set_mode(device: &Device, path: &str, mode: u32) {
    std::fs::set_permissions(device.path(path), Permissions::from_mode(mode)).unwrap();
}

fn mode(device: &Device, path: &str) -> u32 {
    std::fs::metadata(device.path(path)).unwrap().mode() & 0o777
}

fn in_the_mesh(device: &Device, path: &str) -> Mode {
    let entry = device.replica.lookup(EntryId::ROOT, path).unwrap();
    entry.unwrap().mode
}

fn touch(device: &Device, path: &str, seconds: u64) {
    let file = std::fs::File::options().write(true).open(device.path(path));
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    file.unwrap().set_modified(time).unwrap();
}

#[test]
fn a_private_a_read_only_and_an_executable_file_arrive_as_such() {
    let mut devices = pair();
    for (name, bits) in [("key", 0o600), ("report", 0o444), ("tool", 0o750)] {
        devices[0].write(name, name);
        set_mode(&devices[0], name, bits);
    }
    std::fs::create_dir(devices[0].path("private")).unwrap();
    set_mode(&devices[0], "private", 0o700);
    converge(&mut devices);
    for (name, bits) in [
        ("key", 0o600),
        ("report", 0o444),
        ("tool", 0o750),
        ("private", 0o700),
    ] {
        assert_eq!(mode(&devices[1], name), bits, "{name}");
    }
}

#[test]
fn permissions_changed_here_change_there_without_a_new_version() {
    let mut devices = pair();
    devices[0].write("key", "secret");
    std::fs::create_dir(devices[0].path("dir")).unwrap();
    converge(&mut devices);
    let entry = |device: &Device| device.replica.lookup(EntryId::ROOT, "key").unwrap();
    let version = entry(&devices[0]).unwrap().version;
    set_mode(&devices[1], "key", 0o600);
    set_mode(&devices[1], "dir", 0o700);
    converge(&mut devices);
    assert_eq!(mode(&devices[0], "key"), 0o600);
    assert_eq!(mode(&devices[0], "dir"), 0o700);
    assert_eq!(entry(&devices[1]).unwrap().version, version);
    let fetched = devices[0].fetched;
    assert_eq!(fetched, 0, "no bytes travel for that");
}

#[test]
fn a_mode_that_would_lock_this_device_out_is_kept_in_the_mesh_and_not_applied() {
    let mut devices = pair();
    std::fs::create_dir(devices[0].path("locked")).unwrap();
    devices[0].write("locked/file", "text");
    set_mode(&devices[0], "locked", 0o555);
    converge(&mut devices);
    assert_eq!(mode(&devices[1], "locked"), 0o755);
    assert_eq!(in_the_mesh(&devices[1], "locked"), Mode::new(0o555));
    // What was applied is not taken for a change made here.
    devices[1].write("locked/other", "text");
    converge(&mut devices);
    assert_eq!(in_the_mesh(&devices[0], "locked"), Mode::new(0o555));
}

#[test]
fn what_the_umask_takes_away_here_is_not_taken_away_there() {
    let mut devices = pair();
    devices[0].write("shared", "one");
    set_mode(&devices[0], "shared", 0o666);
    converge(&mut devices);
    let here = mode(&devices[1], "shared");
    assert_ne!(
        here, 0o666,
        "a umask of zero would make this test say nothing"
    );
    devices[1].write("shared", "two");
    converge(&mut devices);
    assert_eq!(mode(&devices[0], "shared"), 0o666);
    assert_eq!(mode(&devices[1], "shared"), here);
}

#[test]
fn a_file_system_without_permissions_says_nothing_of_them() {
    let mut devices = pair();
    devices[0].write("key", "secret");
    set_mode(&devices[0], "key", 0o600);
    converge(&mut devices);
    devices[1].engine().keeps_modes = false;
    // As such a file system shows everything.
    set_mode(&devices[1], "key", 0o666);
    devices[1].write("key", "another secret");
    devices[1].write("new", "text");
    set_mode(&devices[1], "new", 0o666);
    converge(&mut devices);
    assert_eq!(mode(&devices[0], "key"), 0o600);
    assert_eq!(mode(&devices[0], "new"), 0o644);
}

#[test]
fn a_time_set_here_and_an_edit_made_there_are_no_conflict() {
    let mut devices = pair();
    devices[0].write("plan", "old");
    converge(&mut devices);
    touch(&devices[0], "plan", 1_000_000);
    devices[1].write("plan", "new, and longer");
    devices[0].settle(&[]);
    devices[1].settle(&[]);
    sync(&devices[0], &devices[1]);
    converge(&mut devices);
    for device in &devices {
        assert_eq!(device.tree().len(), 1, "{:?}", device.tree());
        assert_eq!(device.read("plan"), "new, and longer");
    }
}

#[test]
fn a_time_set_here_does_not_bring_back_what_was_removed_there() {
    let mut devices = pair();
    devices[0].write("plan", "text");
    devices[0].write("other", "text of the other");
    converge(&mut devices);
    touch(&devices[0], "plan", 1_000_000);
    std::fs::remove_file(devices[1].path("plan")).unwrap();
    devices[0].settle(&[]);
    devices[1].settle(&[]);
    sync(&devices[0], &devices[1]);
    converge(&mut devices);
    for device in &devices {
        assert!(!device.path("plan").exists(), "{:?}", device.tree());
    }
}

#[test]
fn a_time_set_here_arrives_there() {
    let mut devices = pair();
    devices[0].write("plan", "text");
    converge(&mut devices);
    touch(&devices[0], "plan", 1_000_000);
    converge(&mut devices);
    let there = std::fs::metadata(devices[1].path("plan")).unwrap();
    assert_eq!(there.mtime(), 1_000_000);
}

#[test]
fn links_pointed_elsewhere_on_two_devices_apart_are_both_kept() {
    let mut devices = pair();
    let link = |device: &Device, target: &str| {
        let path = device.path("link");
        let _absent = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, path).unwrap();
    };
    link(&devices[0], "first");
    converge(&mut devices);
    link(&devices[0], "from zero");
    link(&devices[1], "from one");
    devices[1].settle(&[]);
    // It hears of the other before it has looked at its own.
    sync(&devices[0], &devices[1]);
    converge(&mut devices);
    for device in &devices {
        let names = std::fs::read_dir(device.path(".")).unwrap();
        let mut targets: Vec<_> = names
            .filter_map(|name| std::fs::read_link(name.unwrap().path()).ok())
            .collect();
        targets.sort();
        assert_eq!(targets, ["from one", "from zero"].map(PathBuf::from));
    }
}

#[test]
fn directories_made_on_both_sides_with_other_permissions_are_one() {
    let mut devices = pair();
    for (device, bits) in devices.iter().zip([0o700, 0o755]) {
        std::fs::create_dir(device.path("dir")).unwrap();
        set_mode(device, "dir", bits);
    }
    devices[0].write("dir/zero", "text of zero");
    devices[1].write("dir/one", "text");
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    converge(&mut devices);
    for device in &devices {
        assert_eq!(mode(device, "dir"), 0o700);
        assert_eq!(device.tree().len(), 3, "{:?}", device.tree());
    }
}

/// Whoever deletes decides over what a file holds: its times and permissions bring nothing back.
#[test]
fn what_was_deleted_here_stays_deleted_though_it_was_touched_there_before_that_was_heard() {
    for restarted in [false, true] {
        let mut devices = pair();
        for path in ["plan", "dir/inside", "edited"] {
            devices[0].write(path, "text");
        }
        converge(&mut devices);
        set_mode(&devices[1], "plan", 0o600);
        set_mode(&devices[1], "dir", 0o700);
        let inside = std::fs::File::open(devices[1].path("dir/inside")).unwrap();
        inside.set_modified(UNIX_EPOCH).unwrap();
        devices[1].write("edited", "anew");
        devices[1].settle(&[]);
        for path in ["plan", "edited"] {
            std::fs::remove_file(devices[0].path(path)).unwrap();
        }
        std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
        sync(&devices[0], &devices[1]);
        if restarted {
            devices[0].restart();
        }
        converge(&mut devices);
        for device in &devices {
            assert_eq!(
                device.tree(),
                [("edited".to_owned(), "anew".to_owned())].into(),
                "{restarted}"
            );
        }
    }
}
