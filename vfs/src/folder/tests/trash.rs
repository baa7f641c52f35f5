//! What others remove or replace is kept for a while, and can be brought back.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::attack::Disk;
use super::device::{Device, converge};
use super::kind::pair;
use crate::folder::restore::RestoreError;

/// Two devices that show the same; what the first removed and replaced is in the trash of the second.
fn changed_from_there() -> [Device; 2] {
    let mut devices = pair();
    devices[0].write("dir/removed", "precious");
    devices[0].write("dir/deep/too", "as well");
    devices[0].write("replaced", "first");
    symlink("first target", devices[0].path("link")).unwrap();
    converge(&mut devices);
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    std::fs::remove_file(devices[0].path("link")).unwrap();
    devices[0].write("replaced", "second");
    converge(&mut devices);
    devices
}

fn trashed(device: &mut Device) -> Vec<(String, u64)> {
    let all = device.engine().trashed().unwrap();
    let one = |one: &crate::folder::trash::Trashed| (one.path.display().to_string(), one.version);
    all.iter().map(one).collect()
}

fn restore(device: &mut Device, path: &str, version: u64) -> Result<Vec<PathBuf>, RestoreError> {
    let (todo, restored) = device.engine().restore(Path::new(path), version).unwrap();
    device.work_through(todo);
    restored.map(|restored| restored.paths)
}

#[test]
fn what_others_removed_or_replaced_is_in_the_trash() {
    let mut devices = changed_from_there();
    let kept = ["dir/deep/too", "dir/removed", "link", "replaced"];
    assert_eq!(
        trashed(&mut devices[1]),
        kept.map(|path| (path.to_owned(), 1))
    );
    // Whoever removes something here meant to.
    assert_eq!(trashed(&mut devices[0]), []);
    assert_eq!(devices[1].engine().trash.size().files, 4);
}

#[test]
fn what_is_restored_is_a_change_made_here() {
    let mut devices = changed_from_there();
    let restored = restore(&mut devices[1], "replaced", 1).unwrap();
    assert_eq!(restored, [PathBuf::from("replaced")]);
    let restored = restore(&mut devices[1], "dir", 1).unwrap();
    assert_eq!(restored, ["dir/deep/too", "dir/removed"].map(PathBuf::from));
    converge(&mut devices);
    for device in &devices {
        assert_eq!(device.read("replaced"), "first");
        assert_eq!(device.read("dir/removed"), "precious");
        assert_eq!(device.read("dir/deep/too"), "as well");
    }
    // What stood there went into the trash, and comes back the same way.
    restore(&mut devices[1], "replaced", 1).unwrap();
    converge(&mut devices);
    assert_eq!(devices[0].read("replaced"), "second");
}

#[test]
fn what_is_not_in_the_trash_is_told_apart_from_what_is_in_the_way() {
    let mut devices = changed_from_there();
    let device = &mut devices[1];
    let refused = restore(device, "never there", 1);
    assert!(
        matches!(refused, Err(RestoreError::NotKept { .. })),
        "{refused:?}"
    );
    let refused = restore(device, "replaced", 2);
    assert!(
        matches!(refused, Err(RestoreError::NoSuchVersion { kept: 1, .. })),
        "{refused:?}"
    );
    std::fs::create_dir(device.path("link")).unwrap();
    let refused = restore(device, "link", 1);
    assert!(
        matches!(refused, Err(RestoreError::InTheWay { .. })),
        "{refused:?}"
    );
    assert_eq!(trashed(device).len(), 4);
}

#[test]
fn a_directory_that_has_no_place_any_more_is_refused_and_not_passed_over() {
    let mut devices = changed_from_there();
    let device = &mut devices[1];
    device.write("dir", "a file by now");
    for path in ["dir", "dir/removed", "dir/deep", "dir/deep/too"] {
        let refused = restore(device, path, 1).unwrap_err();
        let message = refused.to_string();
        assert!(
            message.starts_with("what is at dir now"),
            "{path}: {message}"
        );
    }
    std::fs::remove_file(device.path("dir")).unwrap();
    device.write("dir/removed", "new");
    device.write("dir/deep/too", "new, too");
    let refused = restore(device, "dir", 1);
    assert!(
        matches!(refused, Err(RestoreError::AllTaken { .. })),
        "{refused:?}"
    );
    assert_eq!(trashed(device).len(), 4, "all of it is still kept");
}

#[test]
fn the_bytes_in_the_trash_can_still_be_had() {
    let mut devices = changed_from_there();
    // Only the second device has them, in its trash.
    devices[0].write("again", "precious");
    devices[0].settle(&[]);
    std::fs::remove_file(devices[0].path("again")).unwrap();
    let content = devices[0]
        .replica
        .lookup(wormhole_crdt::EntryId::ROOT, "again");
    let content = content.unwrap().unwrap().file.unwrap().content;
    let slots: Vec<_> = devices[1].store.slots(&content).unwrap().collect();
    for slot in slots {
        let chunk = slot.unwrap().chunk;
        assert_eq!(&devices[1].store.read(&chunk.id).unwrap()[..], b"precious");
    }
}

#[test]
fn nothing_is_kept_where_people_do_not_want_it() {
    let mut devices = pair();
    devices[1].engine().trash = crate::folder::trash::Trash::new(crate::TrashLimit {
        days: 0,
        bytes: None,
    });
    devices[0].write("file", "x");
    converge(&mut devices);
    std::fs::remove_file(devices[0].path("file")).unwrap();
    converge(&mut devices);
    assert_eq!(trashed(&mut devices[1]), []);
    assert!(!devices[1].path(".wormhole/trash").exists());
}

#[test]
fn what_the_trash_lets_go_is_forgotten_by_the_store() {
    let mut devices = changed_from_there();
    let limit = crate::TrashLimit {
        days: 30,
        bytes: Some(0),
    };
    devices[1].engine().trash = crate::folder::trash::Trash::new(limit);
    devices[1].engine().clear_trash().unwrap();
    assert_eq!(trashed(&mut devices[1]), []);
    let left = std::fs::read_dir(devices[1].path(".wormhole/trash")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn what_cannot_be_removed_from_the_trash_does_not_keep_the_rest() {
    let [mut device, _] = pair();
    let day = |second: u32| format!(".wormhole/trash/2020-01-01T00.00.0{second}Z");
    device.write(&format!("{}/stays", day(1)), "text");
    device.write(&format!("{}/goes", day(2)), "text");
    // Nothing is removed from where another file system is mounted.
    let stays = device.path(&day(1));
    let disk = Disk::mount(&stays, "size=1m");
    device.engine().clear_trash().unwrap();
    assert!(stays.exists());
    assert!(!device.path(&day(2)).exists());
    drop(disk);
}
