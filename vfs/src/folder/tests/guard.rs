//! Absence is not deletion.

use wormhole_crdt::EntryId;

use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::record::Answer;
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
    devices[0].answer_held(Answer::Confirm, &[]);
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 0);
    assert_eq!(devices[0].engine().problems.folder(), []);
}

#[test]
fn deletions_stay_held_over_restarts_until_a_person_answers() {
    let mut devices = pair();
    for number in 0..400 {
        devices[0].write(&format!("{number}"), "text");
    }
    converge(&mut devices);
    for number in 0..115 {
        std::fs::remove_file(devices[0].path(&number.to_string())).unwrap();
    }
    devices[0].settle(&[]);
    assert_eq!(devices[0].held(), 115);
    for _restart in 0..3 {
        devices[0].restart();
        assert_eq!(devices[0].held(), 115, "known before anything is looked at");
        devices[0].settle(&[]);
        devices[0].settle(&[]);
        sync(&devices[0], &devices[1]);
        devices[1].settle(&[]);
        assert_eq!(devices[1].tree().len(), 400);
    }
    devices[0].answer_held(Answer::Confirm, &[]);
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 285);
}

#[test]
fn what_vanished_comes_back_when_a_person_says_so() {
    let mut devices = pair();
    for number in 0..30 {
        devices[0].write(&format!("dir/{number}"), &format!("text {number}"));
    }
    converge(&mut devices);
    let before = devices[1].tree();
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].held(), 31);
    let other = devices[1].store.clone();
    devices[0].answer_held(Answer::Undo, &[&other]);
    converge(&mut devices);
    assert_eq!(devices[0].tree(), before);
    assert_eq!(devices[1].tree(), before);
    assert_eq!(devices[0].held(), 0);
}

#[test]
fn a_person_answers_the_list_that_was_shown_and_no_other() {
    let mut devices = pair();
    for number in 0..300 {
        devices[0].write(&format!("{number}"), "text");
    }
    converge(&mut devices);
    for number in 0..200 {
        std::fs::remove_file(devices[0].path(&number.to_string())).unwrap();
    }
    devices[0].settle(&[]);
    let shown = devices[0].engine().held.shown().list;
    std::fs::remove_file(devices[0].path("250")).unwrap();
    devices[0].check(&["250"]);
    assert_eq!(devices[0].held(), 201, "of one burst");
    let (done, _) = devices[0]
        .engine()
        .answer_held(shown, Answer::Confirm)
        .unwrap();
    assert_eq!(done, None);
    assert_eq!(names_in_mesh(&devices[0]).len(), 300);
}

#[test]
fn what_is_deleted_elsewhere_meanwhile_is_not_held() {
    let mut devices = pair();
    for number in 0..300 {
        devices[0].write(&format!("photos/{number}"), "text");
    }
    devices[0].write("notes/plan", "text");
    converge(&mut devices);
    std::fs::remove_dir_all(devices[0].path("photos")).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].held(), 301);
    // The burst is held by the top directory: only when it is over, that is elsewhere.
    devices[0].restart();
    std::fs::remove_file(devices[0].path("notes/plan")).unwrap();
    converge_but_held(&mut devices);
    assert_eq!(devices[0].held(), 301);
    assert!(!devices[1].path("notes/plan").exists());
    assert!(devices[1].path("photos/7").exists());
}

/// Lets both work though what they show is not the same.
fn converge_but_held(devices: &mut [Device]) {
    for _round in 0..3 {
        for device in devices.iter_mut() {
            device.settle(&[]);
        }
        sync(&devices[0], &devices[1]);
    }
}

#[test]
fn files_that_get_new_names_are_rewritten_and_not_held() {
    let mut devices = pair();
    for number in 0..300 {
        devices[0].write(&format!("dist/chunk.{number}.old.js"), "text");
    }
    converge(&mut devices);
    // A build that clears its directory first, and takes a while.
    std::fs::remove_dir_all(devices[0].path("dist")).unwrap();
    std::fs::create_dir(devices[0].path("dist")).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].held(), 300);
    for number in 0..300 {
        devices[0].write(&format!("dist/chunk.{number}.new.js"), "newer");
    }
    converge(&mut devices);
    assert_eq!(devices[0].held(), 0);
    assert_eq!(devices[1].tree().len(), 301);
    assert!(devices[1].path("dist/chunk.7.new.js").exists());
}

#[test]
fn a_name_that_is_replaced_has_not_vanished() {
    let mut devices = pair();
    for number in 0..200 {
        devices[0].write(&format!("{number}"), "text");
    }
    converge(&mut devices);
    for number in 0..200 {
        let path = devices[0].path(&number.to_string());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        devices[0].check(&[&number.to_string()]);
    }
    assert_eq!(devices[0].held(), 0);
    converge(&mut devices);
    let tree = devices[1].tree();
    assert_eq!(tree.len(), 200);
    assert!(tree.values().all(|what| what == "-> elsewhere"), "{tree:?}");
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
    assert_eq!(device.held(), made);
    device.answer_held(Answer::Confirm, &[]);
    assert_eq!(device.held(), 0);
    assert_eq!(device.problem("big"), None);
    assert_eq!(names_in_mesh(&device), ["stays"]);
}

#[test]
fn a_file_can_take_the_place_of_a_big_directory() {
    let mut device = Device::found();
    big_tree(&device);
    device.settle(&[]);
    std::fs::remove_dir_all(device.path("big")).unwrap();
    device.write("big", "small");
    device.settle(&[]);
    assert!(device.held() > 0, "what was in it vanished");
    device.answer_held(Answer::Confirm, &[]);
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
    converge_but_held(&mut devices);
    devices[0].answer_held(Answer::Confirm, &[]);
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
    assert_eq!(devices[0].held(), 0);
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
    assert_eq!(devices[0].held(), 6 * 22);
    devices[0].settle(&[]);
    assert_eq!(devices[0].held(), 220);
    sync(&devices[0], &devices[1]);
    devices[1].settle(&[]);
    assert_eq!(devices[1].tree(), before);
}

#[test]
fn what_is_deleted_with_what_is_held_joins_it() {
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
    assert_eq!(devices[0].held(), 201);
    // A file that was only moved is not missing.
    std::fs::rename(devices[0].path("251"), devices[0].path("moved")).unwrap();
    devices[0].check(&["251", "moved"]);
    assert_eq!(devices[0].held(), 201);
    for number in 0..200 {
        devices[0].write(&number.to_string(), "back");
    }
    devices[0].settle(&[]);
    assert_eq!(devices[0].held(), 1, "one of them is still missing");
    devices[0].answer_held(Answer::Confirm, &[]);
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 299);
}

/// Copies a directory as `cp -a` does, times and all.
fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(copied.unwrap().success());
}

#[test]
fn an_older_copy_in_the_place_of_the_folder_deletes_and_undoes_nothing() {
    let mut devices = pair();
    devices[0].write("kept", "as it was");
    devices[0].write("edited", "first");
    converge(&mut devices);
    let bak = devices[0].home.path().join("bak");
    copy_tree(&devices[0].path(""), &bak);
    devices[0].write("edited", "second, and longer");
    devices[1].write("new", "made since");
    converge(&mut devices);
    std::fs::rename(devices[0].path(""), devices[0].home.path().join("broken")).unwrap();
    copy_tree(&bak, &devices[0].path(""));
    devices[0].restart();
    assert!(devices[0].engine().afresh);
    converge(&mut devices);
    for device in &devices {
        assert_eq!(device.read("edited"), "second, and longer");
        assert_eq!(device.read("new"), "made since");
        assert_eq!(device.read("kept"), "as it was");
        let tree = device.tree();
        let copies: Vec<_> = tree
            .keys()
            .filter(|name| name.contains("conflict"))
            .collect();
        assert_eq!(copies.len(), 1, "{tree:?}");
        assert_eq!(tree[copies[0]], "first");
    }
}

#[test]
fn a_copy_that_was_made_a_moment_before_a_kill_deletes_nothing() {
    let mut devices = pair();
    devices[0].write("edited", "first");
    converge(&mut devices);
    let bak = devices[0].home.path().join("bak");
    copy_tree(&devices[0].path(""), &bak);
    devices[0].write("edited", "second, and longer");
    devices[0].write("new", "made since");
    devices[0].check(&["edited", "new"]);
    // Killed before the marker was renewed.
    devices[0].engine = None;
    std::fs::rename(devices[0].path(""), devices[0].home.path().join("broken")).unwrap();
    copy_tree(&bak, &devices[0].path(""));
    devices[0].restart();
    assert!(devices[0].engine().afresh);
    // The bytes are in the broken folder only. That they existed is still known, to everybody.
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    devices[1].settle(&[]);
    let names = names_in_mesh(&devices[1]);
    assert_eq!(names.len(), 3, "{names:?}");
    for (name, size) in [("edited", 18), ("new", 10)] {
        let shown = devices[1].replica.lookup(EntryId::ROOT, name).unwrap();
        assert_eq!(shown.unwrap().file.unwrap().content.size, size, "{name}");
    }
}

#[test]
fn a_folder_that_was_killed_before_its_marker_was_renewed_goes_on_with_its_memory() {
    let mut devices = pair();
    devices[0].write("gone", "text");
    converge(&mut devices);
    devices[0].write("new", "text");
    devices[0].check(&["new"]);
    devices[0].engine = None;
    std::fs::remove_file(devices[0].path("gone")).unwrap();
    devices[0].restart();
    assert!(!devices[0].engine().afresh);
    converge(&mut devices);
    assert_eq!(devices[1].tree().into_keys().collect::<Vec<_>>(), ["new"]);
}

#[test]
fn the_same_folder_on_another_disk_goes_on_with_its_memory() {
    let mut devices = pair();
    devices[0].write("kept", "text");
    devices[0].write("gone", "text");
    converge(&mut devices);
    let moved = devices[0].home.path().join("moved");
    copy_tree(&devices[0].path(""), &moved);
    std::fs::remove_dir_all(devices[0].path("")).unwrap();
    copy_tree(&moved, &devices[0].path(""));
    std::fs::remove_file(devices[0].path("gone")).unwrap();
    devices[0].restart();
    assert!(!devices[0].engine().afresh);
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 1, "a deletion is one");
}

#[test]
fn the_marker_of_an_older_copy_stops_the_folder() {
    let mut devices = pair();
    devices[0].write("one", "text");
    converge(&mut devices);
    let marker = devices[0].path(".wormhole/folder");
    let old = std::fs::read(&marker).unwrap();
    devices[0].write("two", "text");
    devices[0].engine().renewal.hurry();
    converge(&mut devices);
    assert_eq!(devices[0].engine().is_itself(), Ok(()));
    std::fs::write(&marker, old).unwrap();
    assert_eq!(devices[0].engine().is_itself(), Err(StopReason::OlderCopy));
    devices[0].engine().renewal.hurry();
    devices[0].engine().flush().unwrap();
    assert_eq!(devices[0].engine().is_itself(), Err(StopReason::OlderCopy));
    devices[0].restart();
    assert!(devices[0].engine().afresh);
    assert_eq!(devices[0].engine().is_itself(), Ok(()));
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
