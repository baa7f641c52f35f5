//! What is ignored is neither recorded nor fetched nor deleted.

use super::device::converge;
use super::kind::pair;
use super::refused::{Bound, set_mode};
use super::stamp::let_stamps_grow_old;
use crate::folder::status::Reason;

#[test]
fn ignored_files_stay_on_their_device() {
    let mut devices = pair();
    devices[0].write(".wormholeignore", "*.log\nbuild/\n");
    devices[0].write("noise.log", "x");
    devices[0].write("build/out", "x");
    devices[0].write("kept", "y");
    let own = devices[0].tree();
    for _ in 0..2 {
        devices[0].settle(&[]);
        super::device::sync(&devices[0], &devices[1]);
        let store = devices[0].store.clone();
        devices[1].settle(&[&store]);
    }
    let names: Vec<String> = devices[1].tree().into_keys().collect();
    assert_eq!(names, [".wormholeignore", "kept"]);
    assert_eq!(devices[0].tree(), own);
}

#[test]
fn a_file_that_becomes_ignored_is_not_deleted_elsewhere() {
    let mut devices = pair();
    devices[0].write("old.log", "x");
    converge(&mut devices);
    devices[0].write(".wormhole/ignore", "*.log\n");
    devices[0].settle(&[]);
    std::fs::remove_file(devices[0].path("old.log")).unwrap();
    devices[0].settle(&[]);
    super::device::sync(&devices[0], &devices[1]);
    devices[1].settle(&[]);
    assert_eq!(devices[1].read("old.log"), "x");
}

#[test]
fn a_deleted_directory_stays_for_its_ignored_files() {
    let mut devices = pair();
    devices[0].write(".wormholeignore", "*.o\n");
    devices[0].write("src/main.c", "code");
    converge(&mut devices);
    devices[1].write("src/main.o", "object");
    std::fs::remove_dir_all(devices[0].path("src")).unwrap();
    for _ in 0..2 {
        devices[0].settle(&[]);
        super::device::sync(&devices[0], &devices[1]);
        devices[1].settle(&[]);
    }
    assert_eq!(devices[1].read("src/main.o"), "object");
    assert!(!devices[1].path("src/main.c").exists());
    assert_eq!(devices[1].problem("src"), Some(Reason::KeptDirectory));
    assert!(!devices[0].path("src").exists(), "it must not come back");
    devices[1].write("src/new.c", "again");
    converge_ignoring(&mut devices);
    assert_eq!(devices[0].read("src/new.c"), "again");
}

fn converge_ignoring(devices: &mut [super::device::Device; 2]) {
    for _ in 0..3 {
        devices[1].settle(&[]);
        super::device::sync(&devices[0], &devices[1]);
        let store = devices[1].store.clone();
        devices[0].settle(&[&store]);
    }
}

#[test]
fn a_rule_that_is_withdrawn_brings_what_it_left_out() {
    let mut devices = pair();
    devices[1].write(".wormhole/ignore", "*.log\n");
    devices[0].write("old.log", "from there");
    devices[1].write("own.log", "from here");
    converge_ignoring(&mut devices);
    devices[0].settle(&[]);
    super::device::sync(&devices[0], &devices[1]);
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    assert!(!devices[1].path("old.log").exists());
    devices[1].write(".wormhole/ignore", "");
    converge(&mut devices);
    assert_eq!(devices[1].read("old.log"), "from there");
    assert_eq!(devices[0].read("own.log"), "from here");
}

#[test]
fn a_repository_around_it_does_not_list_the_control_directory() {
    let devices = pair();
    assert_eq!(devices[0].read(".wormhole/.gitignore"), "*\n");
}

#[test]
fn the_rules_of_a_directory_that_was_made_again_are_its_own() {
    let mut devices = pair();
    devices[0].write("d/.wormholeignore", "*.log\n");
    devices[0].write("d/noise.log", "x");
    converge_ignoring(&mut devices);
    std::fs::remove_dir_all(devices[0].path("d")).unwrap();
    devices[0].write("d/noise.log", "synced now");
    devices[0].check(&["d"]);
    super::device::sync(&devices[0], &devices[1]);
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    assert_eq!(devices[1].read("d/noise.log"), "synced now");
}

/// One ignores `private`, the other moves there what both have.
fn moved_into_what_is_ignored(name: &str) -> [super::device::Device; 2] {
    let mut devices = pair();
    devices[1].write(".wormhole/ignore", "private\n");
    devices[0].write("f", "text");
    devices[0].write("d/e/g", "text");
    converge(&mut devices);
    std::fs::create_dir(devices[0].path("private")).unwrap();
    let to = devices[0].path(&format!("private/{name}"));
    std::fs::rename(devices[0].path(name), to).unwrap();
    exchange(&mut devices);
    devices
}

fn exchange(devices: &mut [super::device::Device; 2]) {
    for _ in 0..3 {
        let stores = [devices[0].store.clone(), devices[1].store.clone()];
        devices[0].settle(&[&stores[1]]);
        devices[1].settle(&[&stores[0]]);
        super::device::sync(&devices[0], &devices[1]);
    }
}

#[test]
fn a_file_that_is_moved_to_where_it_is_ignored_is_withdrawn() {
    let mut devices = moved_into_what_is_ignored("f");
    assert!(!devices[1].path("f").exists());
    // Somebody puts a file of that name there, and deletes it: that is another file.
    devices[1].write("f", "another");
    exchange(&mut devices);
    std::fs::remove_file(devices[1].path("f")).unwrap();
    exchange(&mut devices);
    assert_eq!(devices[0].read("private/f"), "text");
    // Back where it is not ignored it is shown again.
    std::fs::rename(devices[0].path("private/f"), devices[0].path("f2")).unwrap();
    exchange(&mut devices);
    assert_eq!(devices[1].read("f2"), "text");
}

#[test]
fn a_directory_that_is_moved_to_where_it_is_ignored_is_withdrawn_with_all_in_it() {
    let mut devices = moved_into_what_is_ignored("d");
    assert!(!devices[1].path("d").exists());
    exchange(&mut devices);
    assert_eq!(devices[0].read("private/d/e/g"), "text");
}

#[test]
fn what_was_changed_meanwhile_is_recorded_before_it_is_withdrawn() {
    let mut devices = pair();
    devices[1].write(".wormhole/ignore", "private\n");
    devices[0].write("f", "text");
    converge(&mut devices);
    std::fs::create_dir(devices[0].path("private")).unwrap();
    std::fs::rename(devices[0].path("f"), devices[0].path("private/f")).unwrap();
    devices[0].settle(&[]);
    devices[1].write("f", "changed here, and longer");
    super::device::sync(&devices[0], &devices[1]);
    exchange(&mut devices);
    assert_eq!(devices[0].read("private/f"), "changed here, and longer");
    assert!(!devices[1].path("f").exists());
}

#[test]
fn the_control_directory_of_any_folder_is_left_out() {
    let mut devices = pair();
    devices[0].write("inner/.wormhole/folder", "wormhole folder 00ff\n");
    devices[0].write("inner/file", "text");
    devices[0].settle(&[]);
    exchange(&mut devices);
    assert_eq!(devices[1].read("inner/file"), "text");
    assert!(!devices[1].path("inner/.wormhole").exists());
}

fn is_told(device: &super::device::Device, path: &str) -> bool {
    let path = path.parse().unwrap();
    device.replica.resolve(&path).unwrap().is_some()
}

#[test]
fn a_bad_rule_is_reported_until_it_is_corrected() {
    for file in [".wormholeignore", ".wormhole/ignore"] {
        let mut devices = pair();
        devices[0].write(file, "a{b\n");
        let_stamps_grow_old();
        for _ in 0..2 {
            devices[0].settle(&[]);
            // As it is done now and then with everything that there is trouble with.
            devices[0].check(&[file]);
            let found = devices[0].problem(file);
            assert!(
                matches!(found, Some(Reason::IgnoreRule { .. })),
                "{found:?}"
            );
        }
        devices[0].write(file, "corrected\n");
        devices[0].check(&[file]);
        assert_eq!(devices[0].problem(file), None);
    }
}

#[test]
fn rules_that_cannot_be_read_any_more_hold_and_that_is_reported() {
    let mut devices = pair();
    let file = ".wormhole/ignore";
    devices[0].write(file, "*.log\n");
    devices[0].write("old.log", "x");
    devices[0].settle(&[]);
    devices[0].write("new.log", "x");
    set_mode(&devices[0], file, 0o000);
    let bound = Bound::new();
    devices[0].settle(&[]);
    assert!(!is_told(&devices[0], "new.log"));
    let found = devices[0].problem(file);
    assert!(
        matches!(found, Some(Reason::IgnoreRule { .. })),
        "{found:?}"
    );
    set_mode(&devices[0], file, 0o600);
    devices[0].check(&[file]);
    assert_eq!(devices[0].problem(file), None);
    drop(bound);
}

#[test]
fn a_directory_that_stayed_for_its_ignored_files_is_an_ordinary_one_when_it_is_made_again() {
    let mut devices = pair();
    devices[0].write(".wormholeignore", "*.o\n");
    devices[0].write("src/main.c", "code");
    converge(&mut devices);
    devices[1].write("src/main.o", "object");
    std::fs::remove_dir_all(devices[0].path("src")).unwrap();
    exchange(&mut devices);
    assert_eq!(devices[1].problem("src"), Some(Reason::KeptDirectory));
    std::fs::remove_dir_all(devices[1].path("src")).unwrap();
    devices[1].check(&["src"]);
    assert_eq!(devices[1].problem("src"), None);
    std::fs::create_dir(devices[1].path("src")).unwrap();
    devices[1].check(&["src"]);
    assert!(is_told(&devices[1], "src"));
}
