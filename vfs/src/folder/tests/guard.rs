//! Absence is not deletion.

use wormhole_crdt::EntryId;

use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::status::{Reason, StopReason};

#[test]
fn an_emptied_folder_deletes_nothing_until_a_person_confirms() {
    let mut devices = pair();
    for number in 0..30 {
        devices[0].write(&format!("dir/{number}"), "text");
    }
    converge(&mut devices);
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    devices[1].settle(&[]);
    assert_eq!(devices[1].tree().len(), 31);
    assert_eq!(
        devices[0].engine().problems.folder(),
        [Reason::DeletionHeld { entries: 31 }]
    );
    devices[0].engine().guard.confirm();
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 0);
    assert_eq!(devices[0].engine().problems.folder(), []);
}

/// More entries than one envelope can speak of: flat, and in directories of directories.
fn big_tree(device: &Device) -> u64 {
    std::fs::create_dir(device.path("big")).unwrap();
    for number in 0..10_500 {
        std::fs::write(device.path(&format!("big/{number}")), "").unwrap();
    }
    for number in 0..20 {
        let dir = format!("big/in {}/deep {number}", number % 4);
        std::fs::create_dir_all(device.path(&dir)).unwrap();
        for number in 0..50 {
            std::fs::write(device.path(&format!("{dir}/{number}")), "").unwrap();
        }
    }
    1 + 10_500 + 4 + 20 + 20 * 50
}

fn names_in_mesh(device: &Device) -> Vec<String> {
    let shown = device.replica.children(EntryId::ROOT).unwrap();
    shown
        .iter()
        .map(|entry| entry.name.as_str().to_owned())
        .collect()
}

#[test]
fn a_big_directory_can_be_deleted_once_a_person_confirms() {
    let mut device = Device::found();
    device.write("stays", "text");
    let made = big_tree(&device);
    device.settle(&[]);
    std::fs::remove_dir_all(device.path("big")).unwrap();
    device.settle(&[]);
    assert_eq!(device.engine().held, made);
    device.engine().guard.confirm();
    device.settle(&[]);
    assert_eq!(device.engine().held, 0);
    assert_eq!(device.problem("big"), None);
    assert_eq!(names_in_mesh(&device), ["stays"]);
}

#[test]
fn a_file_can_take_the_place_of_a_big_directory() {
    let mut device = Device::found();
    big_tree(&device);
    device.settle(&[]);
    device.engine().guard.confirm();
    std::fs::remove_dir_all(device.path("big")).unwrap();
    device.write("big", "small");
    device.settle(&[]);
    assert_eq!(device.problem("big"), None);
    let shown = device.replica.children(EntryId::ROOT).unwrap();
    assert!(shown.iter().all(|entry| entry.file.is_some()), "{shown:?}");
}

#[test]
fn a_big_deletion_spares_what_was_not_seen_here() {
    let mut devices = pair();
    for number in 0..500 {
        devices[0].write(&format!("big/in/{number}"), "");
    }
    converge(&mut devices);
    devices[1].write("big/in/new", "unseen");
    devices[1].settle(&[]);
    sync(&devices[0], &devices[1]);
    std::fs::remove_dir_all(devices[0].path("big")).unwrap();
    devices[0].engine().guard.confirm();
    converge(&mut devices);
    let names: Vec<String> = devices[0].tree().into_keys().collect();
    assert_eq!(names, ["big", "big/in", "big/in/new"]);
}

#[test]
fn files_that_come_back_end_the_alarm() {
    let mut devices = pair();
    for number in 0..30 {
        devices[0].write(&format!("dir/{number}"), "text");
    }
    converge(&mut devices);
    let aside = devices[0].home.path().join("aside");
    std::fs::rename(devices[0].path("dir"), &aside).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].engine().problems.folder().len(), 1);
    std::fs::rename(&aside, devices[0].path("dir")).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].engine().problems.folder(), []);
    assert_eq!(devices[0].engine().held, 0);
}

#[test]
fn a_deletion_of_many_directories_is_held_as_a_whole() {
    let mut devices = pair();
    for number in 0..210 {
        devices[0].write(&format!("dir {}/{number}", number % 10), "text");
    }
    converge(&mut devices);
    let before = devices[1].tree();
    for number in 0..10 {
        std::fs::remove_dir_all(devices[0].path(&format!("dir {number}"))).unwrap();
    }
    // Only some of what vanished is heard of by name; the directories above are found missing all the same.
    devices[0].check(&[
        "dir 0/0", "dir 1/1", "dir 2/2", "dir 3/3", "dir 4/4", "dir 5/5",
    ]);
    assert_eq!(devices[0].engine().held, 6 * 22);
    devices[0].settle(&[]);
    assert_eq!(devices[0].engine().held, 220);
    sync(&devices[0], &devices[1]);
    devices[1].settle(&[]);
    assert_eq!(devices[1].tree(), before);
}

#[test]
fn what_is_deleted_while_deletions_are_held_joins_them() {
    let mut devices = pair();
    for number in 0..300 {
        devices[0].write(&format!("{number}"), "text");
    }
    converge(&mut devices);
    for number in 0..200 {
        std::fs::remove_file(devices[0].path(&number.to_string())).unwrap();
    }
    devices[0].settle(&[]);
    std::fs::remove_file(devices[0].path("250")).unwrap();
    devices[0].check(&["250"]);
    assert_eq!(devices[0].engine().held, 201);
    // A file that was only moved is not missing.
    std::fs::rename(devices[0].path("251"), devices[0].path("moved")).unwrap();
    devices[0].check(&["251", "moved"]);
    assert_eq!(devices[0].engine().held, 201);
    for number in 0..200 {
        devices[0].write(&number.to_string(), "back");
    }
    converge(&mut devices);
    assert_eq!(devices[0].engine().held, 0, "few are missing now");
    assert_eq!(devices[1].tree().len(), 299);
}

#[test]
fn a_folder_without_its_marker_stops() {
    let mut devices = pair();
    devices[0].write("one", "text");
    converge(&mut devices);
    std::fs::remove_dir_all(devices[0].path(".wormhole")).unwrap();
    std::fs::remove_file(devices[0].path("one")).unwrap();
    assert_eq!(devices[0].engine().is_itself(), Err(StopReason::MarkerGone));
    assert_eq!(devices[0].try_restart(), Err(StopReason::MarkerGone));
    sync(&devices[0], &devices[1]);
    devices[1].settle(&[]);
    assert_eq!(devices[1].read("one"), "text");
}

#[test]
fn another_folders_marker_is_refused() {
    let mut devices = pair();
    devices[0].write(".wormhole/folder", "wormhole folder 00ff\n");
    assert_eq!(devices[0].try_restart(), Err(StopReason::MarkerForeign));
}

#[test]
fn a_lost_memory_deletes_nothing() {
    let mut devices = pair();
    devices[0].write("one", "text");
    converge(&mut devices);
    devices[0].engine = None;
    std::fs::remove_file(devices[0].home.path().join("folder.redb")).unwrap();
    devices[0].restart();
    converge(&mut devices);
    assert_eq!(devices[1].read("one"), "text");
    assert_eq!(devices[0].tree().len(), 1);
}
