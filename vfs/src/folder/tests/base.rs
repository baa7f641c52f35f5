//! Folders that show one directory of a mesh, whatever becomes of that.

use wormhole_crdt::{EntryId, Role};

use super::device::{Device, sync};

/// The whole mesh at one, and its directory `part` at another device that is of the same mesh.
fn whole_and_part() -> (Device, Device) {
    let mut whole = Device::found();
    let mut part = whole.join(1, Role::Writer);
    whole.write("part/a", "text");
    whole.write("other", "text");
    whole.settle(&[]);
    sync(&whole, &part);
    bind(&mut part);
    exchange(&mut whole, &mut part);
    assert_eq!(part.tree().into_keys().collect::<Vec<_>>(), ["a"]);
    (whole, part)
}

/// Binds a device's folder to the directory `part`.
fn bind(device: &mut Device) {
    let shown = device.replica.lookup(EntryId::ROOT, "part").unwrap();
    device.base = shown.unwrap().key.id;
    device.restart();
}

fn exchange(one: &mut Device, other: &mut Device) {
    for _round in 0..4 {
        let (left, right) = (one.store.clone(), other.store.clone());
        one.settle(&[&right]);
        other.settle(&[&left]);
        sync(one, other);
    }
}

#[test]
fn what_is_put_into_a_folder_whose_directory_was_removed_makes_it_again() {
    let (mut whole, mut part) = whole_and_part();
    std::fs::remove_dir_all(whole.path("part")).unwrap();
    exchange(&mut whole, &mut part);
    assert_eq!(part.tree().len(), 0, "deleted elsewhere");
    part.write("deep/z", "new");
    exchange(&mut whole, &mut part);
    assert_eq!(whole.read("part/deep/z"), "new");
    assert_eq!(part.read("deep/z"), "new");
    part.restart();
    part.write("y", "newer");
    exchange(&mut whole, &mut part);
    assert_eq!(whole.read("part/y"), "newer");
}

#[test]
fn a_directory_that_is_made_again_is_shown_again() {
    let (mut whole, mut part) = whole_and_part();
    std::fs::remove_dir_all(whole.path("part")).unwrap();
    exchange(&mut whole, &mut part);
    part.write("z", "of the part");
    part.settle(&[]);
    whole.write("part/b", "of the whole");
    exchange(&mut whole, &mut part);
    for (device, below) in [(&whole, "part/"), (&part, "")] {
        assert_eq!(device.read(&format!("{below}z")), "of the part");
        assert_eq!(device.read(&format!("{below}b")), "of the whole");
    }
}

#[test]
fn a_directory_made_apart_shows_what_was_put_into_the_other_one() {
    let mut whole = Device::found();
    let mut part = whole.join(1, Role::Writer);
    whole.write("part/a", "of the whole");
    whole.settle(&[]);
    part.write("part/b", "of the part");
    part.settle(&[]);
    // The folder of the second shows its own directory, which will stand behind the other one.
    bind(&mut part);
    std::fs::remove_dir_all(part.path("part")).unwrap();
    std::fs::remove_file(part.home.path().join("folder.redb")).unwrap();
    part.restart();
    exchange(&mut whole, &mut part);
    for (device, below) in [(&whole, "part/"), (&part, "")] {
        assert_eq!(device.read(&format!("{below}a")), "of the whole");
    }
    part.write("c", "later");
    exchange(&mut whole, &mut part);
    assert_eq!(whole.read("part/c"), "later");
}

#[test]
fn a_renamed_directory_goes_on_to_be_shown() {
    let (mut whole, mut part) = whole_and_part();
    std::fs::rename(whole.path("part"), whole.path("renamed")).unwrap();
    exchange(&mut whole, &mut part);
    part.write("b", "text");
    exchange(&mut whole, &mut part);
    assert_eq!(whole.read("renamed/b"), "text");
    // Its last name is what counts when it goes.
    std::fs::remove_dir_all(whole.path("renamed")).unwrap();
    exchange(&mut whole, &mut part);
    part.write("c", "text");
    exchange(&mut whole, &mut part);
    assert_eq!(whole.read("renamed/c"), "text");
}
