//! Everything that can be synced arrives as it was: contents, empty things, links, bits, times.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::device::{Device, converge};
use wormhole_crdt::Role;

pub(super) fn pair() -> [Device; 2] {
    let one = Device::found();
    let other = one.join(1, Role::Writer);
    [one, other]
}

#[test]
fn files_directories_and_links_arrive_as_they_are() {
    let mut devices = pair();
    let [one, _] = &devices;
    one.write("plan.txt", "all of it");
    one.write("deep/er/file", "x");
    one.write("empty file", "");
    std::fs::create_dir(one.path("empty directory")).unwrap();
    symlink("../outside", one.path("link")).unwrap();
    one.write("run.sh", "#!/bin/sh");
    std::fs::set_permissions(one.path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    converge(&mut devices);
    let tree = devices[1].tree();
    assert_eq!(tree["plan.txt"], "all of it");
    assert_eq!(tree["deep/er/file"], "x");
    assert_eq!(tree["empty file"], "");
    assert_eq!(tree["empty directory"], "directory");
    assert_eq!(tree["link"], "-> ../outside");
    assert_eq!(tree["run.sh"], "*#!/bin/sh");
}

#[test]
fn modification_times_arrive_to_the_nanosecond() {
    let mut devices = pair();
    devices[0].write("old", "text");
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let set = |device: &Device, time| {
        let file = std::fs::File::options()
            .write(true)
            .open(device.path("old"))
            .unwrap();
        file.set_modified(time).unwrap();
    };
    set(&devices[0], time);
    converge(&mut devices);
    let modified = |device: &Device| device.path("old").metadata().unwrap().modified().unwrap();
    assert_eq!(modified(&devices[1]), time);
    let later = time + Duration::from_nanos(1);
    set(&devices[1], later);
    converge(&mut devices);
    assert_eq!(modified(&devices[0]), later);
}

#[test]
fn changes_of_every_kind_follow() {
    let mut devices = pair();
    devices[0].write("a", "1");
    devices[0].write("gone/file", "2");
    symlink("here", devices[0].path("link")).unwrap();
    converge(&mut devices);
    devices[1].write("a", "changed");
    std::fs::set_permissions(devices[1].path("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::remove_dir_all(devices[1].path("gone")).unwrap();
    std::fs::remove_file(devices[1].path("link")).unwrap();
    symlink("there", devices[1].path("link")).unwrap();
    converge(&mut devices);
    let tree = devices[0].tree();
    assert_eq!(tree["a"], "*changed");
    assert_eq!(tree["link"], "-> there");
    assert!(!tree.contains_key("gone"));
}

#[test]
fn a_file_becomes_a_directory_and_back() {
    let mut devices = pair();
    devices[0].write("thing", "file");
    converge(&mut devices);
    std::fs::remove_file(devices[0].path("thing")).unwrap();
    devices[0].write("thing/inside", "now");
    converge(&mut devices);
    assert_eq!(devices[1].tree()["thing/inside"], "now");
    std::fs::remove_dir_all(devices[1].path("thing")).unwrap();
    devices[1].write("thing", "file again");
    converge(&mut devices);
    assert_eq!(devices[0].tree()["thing"], "file again");
}

#[test]
fn a_big_file_is_resumed_and_its_holes_stay_holes() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let mut devices = pair();
    let size = 64 << 20;
    let file = std::fs::File::create(devices[0].path("sparse")).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(b"in the middle", 20 << 20).unwrap();
    drop(file);
    converge(&mut devices);
    let found = devices[1].path("sparse").metadata().unwrap();
    assert_eq!(found.len(), size);
    assert!(found.blocks() * 512 < size / 4, "{} blocks", found.blocks());
    assert!(
        devices[1].fetched < size / 8,
        "{} bytes came",
        devices[1].fetched
    );
}

#[test]
fn an_existing_folder_is_adopted_without_bytes_and_differences_are_kept() {
    let mut devices = pair();
    for device in &devices {
        device.write("same", "the same bytes");
        device.write("dir/also", "the same too");
    }
    devices[0].write("differs", "zero's");
    devices[1].write("differs", "one's");
    converge(&mut devices);
    let tree = devices[0].tree();
    let texts: Vec<&str> = tree.values().map(String::as_str).collect();
    assert!(
        texts.contains(&"zero's") && texts.contains(&"one's"),
        "{tree:?}"
    );
    assert_eq!(tree.len(), 5, "{tree:?}");
    assert!(devices[1].fetched < 12, "{} bytes came", devices[1].fetched);
}
