//! What is ignored is neither recorded nor fetched nor deleted.

use super::device::converge;
use super::kind::pair;
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
