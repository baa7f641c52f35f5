//! Absence is not deletion.

use super::device::{converge, sync};
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
        devices[0].problem(""),
        Some(Reason::DeletionHeld { entries: 31 })
    );
    devices[0].engine().guard.confirm();
    converge(&mut devices);
    assert_eq!(devices[1].tree().len(), 0);
    assert_eq!(devices[0].problem(""), None);
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
    assert!(devices[0].problem("").is_some());
    std::fs::rename(&aside, devices[0].path("dir")).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].problem(""), None);
    assert_eq!(devices[0].engine().held, 0);
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
