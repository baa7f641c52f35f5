//! Edits that stamps do not show, and disks that keep time badly.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::attack::Disk;
use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::beneath;
use crate::folder::settle::{Doubt, Due};
use crate::folder::state::{Keep, Row};

/// Until a stamp made now is old enough to be believed.
pub(super) fn let_stamps_grow_old() {
    let changed = Instant::now();
    while changed.elapsed() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
}

/// Writes other bytes of the same length in place and puts the modification time back.
fn edit_unseen(path: &Path, text: &str) {
    let file = File::options().write(true).open(path).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
    file.set_modified(before).unwrap();
}

/// A tag editor writes into a song in place, puts its time back and renames it.
#[test]
fn an_edit_that_puts_the_time_back_is_found_after_a_rename() {
    let mut devices = pair();
    devices[0].write("song", "title 1");
    let song = devices[0].path("song");
    let file = File::options().write(true).open(&song).unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    let_stamps_grow_old();
    converge(&mut devices);
    edit_unseen(&song, "title 2");
    std::fs::rename(&song, devices[0].path("renamed")).unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].read("renamed"), "title 2");
    // It was a rename all the same.
    assert!(!devices[1].path("song").exists());
    devices[1].write("renamed", "title 3, saved there");
    converge(&mut devices);
    assert_eq!(devices[0].tree(), devices[1].tree());
    assert_eq!(devices[0].tree().len(), 1);
}

/// Remembers the file as it stands now under its old bytes: what a write through a mapping leaves, which moves no time.
fn forget_the_edit(device: &mut Device, path: &str) {
    let engine = device.engine();
    let mut batch = engine.state.begin().unwrap();
    let place = batch.place_of(engine.config.base, Path::new(path));
    let place = place.unwrap().unwrap();
    let row = batch.get(&place).unwrap().unwrap();
    let top = engine.root.open_dir(Path::new("")).unwrap();
    let seen = beneath::look(std::os::fd::AsFd::as_fd(&top), place.os_name());
    let seen = seen.unwrap().unwrap();
    let row = Row {
        seen,
        racy: false,
        ..row
    };
    batch.put(&place, &row).unwrap();
    batch.commit(Keep::Now).unwrap();
}

#[test]
fn a_file_that_was_closed_is_read_whatever_its_stamp_says() {
    let mut devices = pair();
    devices[0].write("mapped", "first");
    converge(&mut devices);
    edit_unseen(&devices[0].path("mapped"), "other");
    let_stamps_grow_old();
    forget_the_edit(&mut devices[0], "mapped");
    devices[0].check(&["mapped"]);
    sync(&devices[0], &devices[1]);
    let store = devices[0].store.clone();
    devices[1].settle(&[&store]);
    assert_eq!(devices[1].read("mapped"), "first");
    devices[0].check_doubted(&["mapped"]);
    converge(&mut devices);
    assert_eq!(devices[1].read("mapped"), "other");
}

#[test]
fn a_file_of_which_the_store_lost_sight_is_read_before_it_is_replaced() {
    let mut devices = pair();
    devices[0].write("mapped", "first");
    converge(&mut devices);
    edit_unseen(&devices[0].path("mapped"), "other");
    let_stamps_grow_old();
    forget_the_edit(&mut devices[0], "mapped");
    // Somebody asked for its bytes, and they were others.
    let file = devices[0].engine().file_path(Path::new("mapped"));
    devices[0].store.forgotten(&file.root, &file.path).unwrap();
    devices[1].write("mapped", "written there");
    devices[1].settle(&[]);
    sync(&devices[0], &devices[1]);
    let todo_of_changes_alone: fn(&mut Vec<_>) = |_| {};
    let store = devices[1].store.clone();
    devices[0].apply_one_by_one(todo_of_changes_alone, &[&store]);
    converge(&mut devices);
    let mut texts: Vec<String> = devices[1].tree().into_values().collect();
    texts.sort();
    assert_eq!(texts, ["other", "written there"]);
}

/// An ext4 of 1 s stamps and without birth times, in a file.
fn mount_coarse(device: &Device) -> (std::path::PathBuf, std::path::PathBuf) {
    let image = device.home.path().join("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-I", "128"])
        .arg(&image)
        .output();
    assert!(
        made.is_ok_and(|made| made.status.success()),
        "needs mkfs.ext4"
    );
    (image, device.path(""))
}

fn coarse(devices: &mut [Device; 2], test: impl FnOnce(&mut [Device; 2])) {
    let (image, folder) = mount_coarse(&devices[0]);
    let disk = Disk::mount_image(&image, &folder);
    std::fs::remove_file(devices[0].home.path().join("folder.redb")).unwrap();
    devices[0].restart();
    let lost = devices[0].path("lost+found");
    std::fs::remove_dir(lost).unwrap();
    test(devices);
    devices[0].engine = None;
    drop(disk);
}

#[test]
fn two_saves_within_a_second_are_told_apart_where_the_disk_counts_seconds() {
    let mut devices = pair();
    coarse(&mut devices, |devices| {
        let path = devices[0].path("file");
        let second = |path: &Path| path.metadata().unwrap().ctime();
        loop {
            devices[0].write("file", "v1");
            let first = second(&path);
            // Longer than the finest clock ticks, so that only the coarse one can hide the second save.
            let_stamps_grow_old();
            devices[0].check(&["file"]);
            devices[0].write("file", "v2");
            if second(&path) == first {
                break;
            }
        }
        devices[0].check(&["file"]);
        sync(&devices[0], &devices[1]);
        let store = devices[0].store.clone();
        devices[1].settle(&[&store]);
        assert_eq!(devices[1].read("file"), "v2");
    });
}

/// Without birth times a new directory that got the number of a deleted one passes for it.
#[test]
fn a_directory_with_the_number_of_a_deleted_one_shows_what_is_in_it() {
    let mut devices = pair();
    coarse(&mut devices, |devices| {
        devices[0].write("old/one", "1");
        devices[0].write("old/deep/two", "2");
        converge(devices);
        let number = |path: &str| devices[0].path(path).metadata().unwrap().ino();
        let before = number("old");
        std::fs::remove_dir_all(devices[0].path("old")).unwrap();
        std::fs::create_dir(devices[0].path("new")).unwrap();
        assert_eq!(
            before,
            number("new"),
            "this disk gives numbers again at once"
        );
        devices[0].write("new/three", "3");
        converge(devices);
        assert_eq!(devices[0].read("new/three"), "3");
        let names: Vec<String> = devices[1].tree().into_keys().collect();
        assert_eq!(names, ["new", "new/three"]);
        // Under the same name it is another one all the same.
        std::fs::remove_dir_all(devices[0].path("new")).unwrap();
        devices[0].write("new/four", "4");
        devices[0].check_doubted(&["new"]);
        converge(devices);
        let names: Vec<String> = devices[1].tree().into_keys().collect();
        assert_eq!(names, ["new", "new/four"]);
    });
}

/// Some disks get another number at each start.
#[test]
fn a_disk_with_another_number_after_a_restart_changes_nothing() {
    let mut devices = pair();
    devices[0].write("dir/stays", "1");
    devices[0].write("renamed", "2");
    let file = File::options()
        .write(true)
        .open(devices[0].path("renamed"))
        .unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    let_stamps_grow_old();
    converge(&mut devices);
    let engine = devices[0].engine();
    let mut batch = engine.state.begin().unwrap();
    let mut parents = vec![engine.config.base];
    while let Some(parent) = parents.pop() {
        for (place, mut row) in batch.children(parent).unwrap() {
            row.seen.stamp.dev += 1;
            parents.push(row.key.id);
            batch.put(&place, &row).unwrap();
        }
    }
    batch.commit(Keep::Now).unwrap();
    devices[0].restart();
    std::fs::rename(devices[0].path("renamed"), devices[0].path("new name")).unwrap();
    let key = devices[0].entry("renamed");
    converge(&mut devices);
    assert_eq!(devices[1].read("new name"), "2");
    assert_eq!(devices[0].entry("new name"), key, "it is the same entry");
}

/// A file over 16 MiB is hashed beside the steps; here it is renamed when that is done and nobody was told yet.
#[test]
fn a_rename_between_hashing_and_recording_is_a_rename() {
    let mut devices = pair();
    let text = "large ".repeat(3 << 20);
    devices[0].write("large", &text);
    let engine = devices[0].engine();
    let due = vec![Due {
        path: "large".into(),
        doubt: Doubt::Nothing,
    }];
    let mut todo = engine.check(due).unwrap();
    let look = todo.imports.pop().expect("it is hashed beside the steps");
    let result = engine.store.import_reference(&engine.file_path(&look.path));
    std::fs::rename(devices[0].path("large"), devices[0].path("renamed")).unwrap();
    let todo = devices[0].engine().imported(look, result).unwrap();
    devices[0].work_through(todo);
    converge(&mut devices);
    let names: Vec<String> = devices[1].tree().into_keys().collect();
    assert_eq!(names, ["renamed"]);
    assert!(devices[1].read("renamed") == text);
}
