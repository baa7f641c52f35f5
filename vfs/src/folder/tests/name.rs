//! Names and things that cannot be synced are reported, and nothing else suffers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::device::converge;
use super::kind::pair;
use crate::folder::status::Reason;

#[test]
fn names_that_are_not_text_are_reported() {
    let mut devices = pair();
    let bad = OsStr::from_bytes(b"caf\xe9");
    std::fs::write(devices[0].path("").join(bad), "x").unwrap();
    devices[0].write("good", "y");
    converge_without(&mut devices, bad);
    let paths = devices[0].engine().problems.paths();
    assert_eq!(paths, [std::path::PathBuf::from(bad)]);
    assert_eq!(devices[1].tree()["good"], "y");
}

fn converge_without(devices: &mut [super::device::Device; 2], bad: &OsStr) {
    let path = devices[0].path("").join(bad);
    let hidden = devices[0].home.path().join("hidden");
    devices[0].settle(&[]);
    std::fs::rename(&path, &hidden).unwrap();
    converge(devices);
    std::fs::rename(&hidden, &path).unwrap();
    devices[0].settle(&[]);
}

#[test]
fn sockets_and_pipes_are_reported_and_left_alone() {
    let mut devices = pair();
    let _socket = std::os::unix::net::UnixListener::bind(devices[0].path("socket")).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].problem("socket"), Some(Reason::SpecialFile));
    assert!(devices[0].path("socket").exists());
}

#[test]
fn a_name_that_differs_only_in_case_is_reported() {
    let mut devices = pair();
    devices[0].write("Readme", "first");
    converge(&mut devices);
    devices[0].write("README", "second");
    devices[0].settle(&[]);
    assert_eq!(
        devices[0].problem("README"),
        Some(Reason::CaseClash {
            other: "Readme".into()
        })
    );
    assert_eq!(devices[0].read("README"), "second");
}

#[test]
fn a_change_of_case_alone_is_a_rename() {
    let mut devices = pair();
    devices[0].write("readme", "text");
    converge(&mut devices);
    std::fs::rename(devices[0].path("readme"), devices[0].path("README")).unwrap();
    converge(&mut devices);
    assert_eq!(devices[1].tree().keys().collect::<Vec<_>>(), ["README"]);
}

#[test]
fn set_user_id_bits_do_not_travel() {
    let mut devices = pair();
    devices[0].write("tool", "x");
    let mode = std::fs::Permissions::from_mode(0o6755);
    std::fs::set_permissions(devices[0].path("tool"), mode).unwrap();
    converge(&mut devices);
    let arrived = devices[1]
        .path("tool")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(arrived & 0o7000, 0);
    assert_ne!(arrived & 0o100, 0);
}

#[test]
fn a_name_that_is_not_text_is_reported_while_it_is_there() {
    let mut devices = pair();
    let bad = OsStr::from_bytes(b"caf\xe9");
    let path = devices[0].path("").join(bad);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("in it"), "x").unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].engine().problems.paths().len(), 1);
    std::fs::remove_dir_all(&path).unwrap();
    let todo = devices[0].check_one(bad.into());
    assert!(todo.paths.is_empty() && todo.later.is_empty());
    assert_eq!(devices[0].engine().problems.paths().len(), 0);
}
