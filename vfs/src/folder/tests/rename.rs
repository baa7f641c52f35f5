//! Renames are one operation and send no bytes; what editors do to save stays the same file.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::record::Answer;

fn id_of(device: &Device, path: &str) -> wormhole_crdt::EntryId {
    let path = path.parse().unwrap();
    device.replica.resolve(&path).unwrap().unwrap().key.id
}

#[test]
fn a_renamed_directory_is_one_operation_and_sends_nothing() {
    let mut devices = pair();
    for number in 0..50 {
        devices[0].write(&format!("old/sub/{number}"), &format!("text {number}"));
    }
    converge(&mut devices);
    let (before, id) = (devices[1].fetched, id_of(&devices[0], "old/sub/7"));
    std::fs::create_dir(devices[0].path("new")).unwrap();
    std::fs::rename(devices[0].path("old"), devices[0].path("new/place")).unwrap();
    devices[0].check(&["old", "new"]);
    converge(&mut devices);
    assert_eq!(devices[1].tree()["new/place/sub/7"], "text 7");
    assert!(!devices[1].path("old").exists());
    assert_eq!(devices[1].fetched, before);
    assert_eq!(id_of(&devices[1], "new/place/sub/7"), id);
}

#[test]
fn a_renamed_and_edited_file_stays_itself() {
    let mut devices = pair();
    devices[0].write("draft", "one");
    converge(&mut devices);
    let id = id_of(&devices[0], "draft");
    std::fs::rename(devices[0].path("draft"), devices[0].path("final")).unwrap();
    devices[0].write("final", "two, longer");
    converge(&mut devices);
    assert_eq!(devices[1].tree()["final"], "two, longer");
    assert_eq!(id_of(&devices[1], "final"), id);
}

#[test]
fn a_file_renamed_and_made_executable_is_both_elsewhere() {
    let mut devices = pair();
    devices[0].write("script", "#!/bin/sh");
    converge(&mut devices);
    let id = id_of(&devices[0], "script");
    let new = devices[0].path("script.sh");
    std::fs::rename(devices[0].path("script"), &new).unwrap();
    std::fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    converge(&mut devices);
    assert_eq!(id_of(&devices[1], "script.sh"), id);
    let mode = std::fs::metadata(devices[1].path("script.sh"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o100, 0o100);
}

#[test]
fn a_file_asked_for_before_its_rename_was_noticed_can_still_be_fetched() {
    let mut devices = pair();
    devices[0].write("before", "text");
    devices[0].settle(&[]);
    std::fs::rename(devices[0].path("before"), devices[0].path("after")).unwrap();
    sync(&devices[0], &devices[1]);
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    assert!(devices[1].is_waiting());
    converge(&mut devices);
    assert_eq!(devices[1].read("after"), "text");
}

#[test]
fn a_file_that_the_store_lost_sight_of_is_found_by_the_next_scan() {
    let mut devices = pair();
    devices[0].write("file", "text");
    devices[0].settle(&[]);
    let file = devices[0].engine().file_path(Path::new("file"));
    devices[0].store.forgotten(&file.root, &file.path).unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].read("file"), "text");
}

#[test]
fn a_save_by_temporary_file_stays_the_same_file() {
    let mut devices = pair();
    devices[0].write("doc", "one");
    converge(&mut devices);
    let id = id_of(&devices[0], "doc");
    devices[0].write(".doc.tmp", "two");
    std::fs::rename(devices[0].path(".doc.tmp"), devices[0].path("doc")).unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].tree()["doc"], "two");
    assert_eq!(id_of(&devices[1], "doc"), id);
}

#[test]
fn a_save_that_keeps_a_backup_stays_the_same_file() {
    let mut devices = pair();
    devices[0].write("doc", "one");
    converge(&mut devices);
    let id = id_of(&devices[0], "doc");
    std::fs::rename(devices[0].path("doc"), devices[0].path("doc~")).unwrap();
    devices[0].write("doc", "two");
    converge(&mut devices);
    assert_eq!(devices[1].tree()["doc"], "two");
    assert_eq!(devices[1].tree()["doc~"], "one");
    assert_eq!(id_of(&devices[1], "doc"), id);
}

#[test]
fn swapped_names_arrive_swapped() {
    let mut devices = pair();
    devices[0].write("a/in a", "1");
    devices[0].write("b/in b", "2");
    converge(&mut devices);
    let path = |name| devices[0].path(name);
    std::fs::rename(path("a"), path("c")).unwrap();
    std::fs::rename(path("b"), path("a")).unwrap();
    std::fs::rename(path("c"), path("b")).unwrap();
    converge(&mut devices);
    let tree = devices[1].tree();
    assert_eq!(tree["b/in a"], "1");
    assert_eq!(tree["a/in b"], "2");
    assert_eq!(tree.len(), 4, "{tree:?}");
}

#[test]
fn a_thousand_files_that_each_take_the_next_name_arrive_renumbered() {
    let mut devices = pair();
    for number in 0..1_000 {
        devices[0].write(&number.to_string(), &format!("was {number}"));
    }
    converge(&mut devices);
    let path = |number: usize| devices[0].path(&number.to_string());
    for number in (0..1_000).rev() {
        std::fs::rename(path(number), path(number + 1)).unwrap();
    }
    converge(&mut devices);
    let tree = devices[1].tree();
    assert_eq!(tree.len(), 1_000);
    assert!((0..1_000).all(|number| tree[&(number + 1).to_string()] == format!("was {number}")));
}

#[test]
fn a_deep_tree_comes_and_goes() {
    let mut devices = pair();
    let deep = ["d"; 250].join("/");
    devices[0].write(&format!("{deep}/file"), "text");
    devices[0].write("stays", "text");
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    assert_eq!(devices[1].read(&format!("{deep}/file")), "text");
    std::fs::remove_dir_all(devices[0].path("d")).unwrap();
    devices[0].settle(&[]);
    devices[0].answer_held(Answer::Confirm, &[]);
    converge(&mut devices);
    let names: Vec<String> = devices[1].tree().into_keys().collect();
    assert_eq!(names, ["stays"]);
}

#[test]
fn a_copy_sends_no_bytes() {
    let mut devices = pair();
    devices[0].write("one", &"words ".repeat(50_000));
    converge(&mut devices);
    let before = devices[1].fetched;
    std::fs::copy(devices[0].path("one"), devices[0].path("two")).unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].read("two"), devices[0].read("one"));
    assert_eq!(devices[1].fetched, before);
}

#[test]
fn a_hard_link_is_a_file_of_its_own() {
    let mut devices = pair();
    devices[0].write("one", "text");
    converge(&mut devices);
    std::fs::hard_link(devices[0].path("one"), devices[0].path("two")).unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 2);
}

/// It went with the directory that it was in, and what somebody else made of the file is elsewhere.
#[test]
fn nobody_waits_for_a_version_that_was_deleted_with_its_directory_while_others_moved_and_edited_the_file()
 {
    let mut devices = pair();
    devices[0].write("dir/plan", "start");
    devices[0].write("dir/other", "stays not");
    converge(&mut devices);
    devices[0].write("dir/plan", "edited here");
    devices[0].settle(&[]);
    std::fs::rename(devices[1].path("dir/plan"), devices[1].path("moved")).unwrap();
    devices[1].write("moved", "edited there");
    devices[1].settle(&[]);
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    sync(&devices[0], &devices[1]);
    devices[0].restart();
    converge(&mut devices);
    for device in &devices {
        let left = [("moved".to_owned(), "edited there".to_owned())];
        assert_eq!(device.tree(), left.into());
        assert!(!device.is_waiting());
    }
}
