//! The user is at work while the mesh changes: nothing is passed over because it came in between. Nothing but what was told
//! is looked at here: comparing everything would hide what was passed over.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::engine::Todo;
use crate::folder::state::Keep;

/// What the first has to say is known to the second.
fn tell(devices: &mut [Device; 2]) {
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
}

/// The second does what it was told, and compares nothing.
fn hear(devices: &mut [Device; 2]) {
    let store = devices[0].store.clone();
    devices[1].work(Todo::default(), &[&store]);
}

fn told(device: &Device, path: &str) -> Option<wormhole_crdt::Entry> {
    device.replica.resolve(&path.parse().unwrap()).unwrap()
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// A directory was renamed a moment ago when something in it is changed or removed elsewhere.
#[test]
fn a_change_in_a_directory_that_was_just_renamed_arrives() {
    let mut devices = pair();
    devices[0].write("old/changed", "first");
    devices[0].write("old/removed", "first");
    converge(&mut devices);
    std::fs::rename(devices[1].path("old"), devices[1].path("new")).unwrap();
    devices[0].write("old/changed", "second, longer");
    remove(&devices[0].path("old/removed"));
    tell(&mut devices);
    let keys = devices[1].take_news();
    let mut todo = devices[1].engine().apply(&keys).unwrap();
    let gone = std::mem::take(&mut todo.gone_keys);
    let rest = devices[1].engine().withdraw(&gone).unwrap();
    // What was looked at first is the new name.
    devices[1].check(&["new"]);
    let store = devices[0].store.clone();
    devices[1].work(todo, &[&store]);
    devices[1].work(rest, &[&store]);
    let names: Vec<String> = devices[1].tree().into_keys().collect();
    assert_eq!(names, ["new", "new/changed"]);
    assert_eq!(devices[1].read("new/changed"), "second, longer");
}

/// Two files are saved into a directory that is deleted elsewhere, and looked at together.
#[test]
fn two_files_saved_into_a_directory_that_is_deleted_elsewhere_are_told() {
    let mut devices = pair();
    devices[0].write("dir/known", "text");
    converge(&mut devices);
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    tell(&mut devices);
    devices[1].write("dir/new", "new");
    devices[1].write("dir/newer", "newer");
    devices[1].check(&["dir/new", "dir/newer"]);
    assert!(told(&devices[1], "dir/new").is_some());
    assert!(told(&devices[1], "dir/newer").is_some());
}

/// A directory is deleted elsewhere while much is put into it here.
#[test]
fn everything_put_into_a_directory_that_is_deleted_elsewhere_is_told() {
    let mut devices = pair();
    for path in ["dir/known", "one", "two", "sub/three"] {
        devices[0].write(path, path);
    }
    converge(&mut devices);
    let ids = ["one", "two"].map(|path| told(&devices[1], path).unwrap().key.id);
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    tell(&mut devices);
    let path = |path: &str| devices[1].path(path);
    for (from, to) in [("one", "dir/one"), ("two", "dir/two"), ("sub", "dir/sub")] {
        std::fs::rename(path(from), path(to)).unwrap();
    }
    devices[1].write("dir/new", "new");
    devices[1].write("dir/newer", "newer");
    // As after a start, but for what would be compared once more.
    let todo = Todo {
        scans: vec!["dir".into()],
        paths: vec!["one".into(), "two".into(), "sub".into()],
        ..Todo::default()
    };
    devices[1].work(todo, &[]);
    for path in ["dir/one", "dir/two", "dir/new", "dir/newer", "dir/sub"] {
        assert!(told(&devices[1], path).is_some(), "{path}");
        let key = told(&devices[1], path).unwrap().key;
        assert_eq!(
            devices[1].entry(path),
            key,
            "{path} is remembered where it is"
        );
    }
    assert_eq!(
        ["dir/one", "dir/two"].map(|path| told(&devices[1], path).unwrap().key.id),
        ids
    );
    assert_eq!(devices[1].read("dir/sub/three"), "sub/three");
    converge(&mut devices);
    assert_eq!(devices[0].read("dir/two"), "two");
    assert!(!devices[0].path("dir/known").exists());
}

/// Renamed, and changed below, while this device was away or was told too much to be told one by one.
#[test]
fn a_directory_that_was_renamed_and_changed_below_is_brought_whole() {
    let mut devices = pair();
    devices[0].write("dir/deep/file", "first");
    devices[0].write("dir/deep/removed", "first");
    converge(&mut devices);
    std::fs::rename(devices[0].path("dir"), devices[0].path("moved")).unwrap();
    devices[0].write("moved/deep/file", "second, longer");
    remove(&devices[0].path("moved/deep/removed"));
    tell(&mut devices);
    devices[1].take_news();
    let store = devices[0].store.clone();
    devices[1].audit(&[&store]);
    assert_eq!(devices[1].tree(), devices[0].tree());
}

/// A program writes into a directory that came from the mesh, before anybody hears of what happens in it.
#[test]
fn what_is_written_into_a_directory_that_was_just_made_is_told() {
    let mut devices = pair();
    converge(&mut devices);
    std::fs::create_dir(devices[0].path("dir")).unwrap();
    tell(&mut devices);
    let dir = devices[1].path("dir");
    devices[1].engine().fault.meanwhile = Some(("directory made", dir, |dir| {
        std::fs::write(dir.join("mine"), "mine").unwrap();
    }));
    hear(&mut devices);
    assert!(told(&devices[1], "dir/mine").is_some());
}

/// Something, the point at which it is in its place, and what takes it away.
type Case = (&'static str, &'static str, fn(&Path));

/// What was put in place is gone again before it was looked at.
#[test]
fn what_is_taken_away_as_soon_as_it_is_there_is_brought_again() {
    let mut devices = pair();
    devices[0].write("replaced", "first");
    converge(&mut devices);
    devices[0].write("file", "text");
    devices[0].write("replaced", "second, longer");
    symlink("target", devices[0].path("link")).unwrap();
    std::fs::create_dir(devices[0].path("dir")).unwrap();
    tell(&mut devices);
    let mut keys = devices[1].take_news();
    keys.sort();
    let store = devices[0].store.clone();
    let remove_dir = |path: &Path| std::fs::remove_dir(path).unwrap();
    let cases: [Case; 4] = [
        ("file", "file in place", remove),
        ("replaced", "file in place", remove),
        ("link", "link in place", remove),
        ("dir", "directory made", remove_dir),
    ];
    for (path, point, act) in cases {
        let key = told(&devices[1], path).unwrap().key;
        let at = devices[1].path(path);
        devices[1].engine().fault.meanwhile = Some((point, at, act));
        let todo = Todo {
            keys: vec![key],
            ..Todo::default()
        };
        devices[1].work(todo, &[&store]);
        assert!(devices[1].engine().fault.meanwhile.is_none(), "{path}");
    }
    assert_eq!(devices[1].tree(), devices[0].tree());
}

/// Somebody saves a file in place just when it is moved.
#[test]
fn a_file_saved_while_it_is_moved_is_told() {
    let mut devices = pair();
    devices[0].write("old", "first");
    converge(&mut devices);
    std::fs::rename(devices[0].path("old"), devices[0].path("new")).unwrap();
    tell(&mut devices);
    let old = devices[1].path("old");
    devices[1].engine().fault.meanwhile = Some(("before it is moved", old, |path| {
        std::fs::write(path, "saved meanwhile").unwrap();
    }));
    hear(&mut devices);
    let size = told(&devices[1], "new").unwrap().file.unwrap().content.size;
    assert_eq!(size, "saved meanwhile".len() as u64);
}

/// Some disks get another number while a program runs or between two starts.
#[test]
fn attributes_arrive_on_a_disk_that_has_another_number_now() {
    let mut devices = pair();
    devices[0].write("file", "text");
    converge(&mut devices);
    let engine = devices[1].engine();
    let mut batch = engine.state.begin().unwrap();
    for (place, mut row) in batch.children(engine.config.base).unwrap() {
        row.seen.stamp.dev += 1;
        row.racy = false;
        batch.put(&place, &row).unwrap();
    }
    batch.commit(Keep::Now).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = std::fs::File::options()
        .write(true)
        .open(devices[0].path("file"));
    file.unwrap().set_modified(time).unwrap();
    tell(&mut devices);
    hear(&mut devices);
    let found = devices[1].path("file").metadata().unwrap();
    assert_eq!(found.modified().unwrap(), time);
}

/// Puts something into every berth that is waiting in the trash.
fn fill_berths(trash: &Path) {
    for day in std::fs::read_dir(trash).unwrap() {
        std::fs::write(day.unwrap().path().join("file"), "in the way").unwrap();
    }
}

#[test]
fn a_replaced_file_that_the_trash_does_not_take_is_not_lost() {
    let mut devices = pair();
    devices[0].write("file", "first");
    converge(&mut devices);
    devices[0].write("file", "second, longer");
    tell(&mut devices);
    let trash = devices[1].path(".wormhole/trash");
    devices[1].engine().fault.meanwhile = Some(("swapped", trash, fill_berths));
    hear(&mut devices);
    assert_eq!(devices[1].read("file"), "second, longer");
    devices[1]
        .engine()
        .tidy(&std::collections::HashSet::new())
        .unwrap();
    devices[1].restart();
    let kept = devices[1].engine().trashed().unwrap();
    let kept: Vec<String> = kept
        .iter()
        .map(|one| std::fs::read_to_string(devices[1].path(one.kept.to_str().unwrap())).unwrap())
        .collect();
    assert!(kept.contains(&"first".to_owned()), "{kept:?}");
}

/// FAT, and some file systems of other machines, cannot swap two names, nor give a file two.
#[test]
fn a_disk_that_cannot_swap_names_keeps_what_is_replaced() {
    let mut devices = pair();
    devices[0].write("file", "first");
    devices[0].write("saved", "first");
    converge(&mut devices);
    devices[1].engine().fault.cannot_swap = true;
    devices[0].write("file", "second, longer");
    devices[0].write("saved", "second, longer");
    tell(&mut devices);
    let (file, saved) = (devices[1].entry("file"), devices[1].entry("saved"));
    devices[1].take_news();
    let only = |key| Todo {
        keys: vec![key],
        ..Todo::default()
    };
    let store = devices[0].store.clone();
    devices[1].work(only(file), &[&store]);
    assert_eq!(devices[1].read("file"), "second, longer");
    let kept = devices[1].engine().trashed().unwrap();
    assert_eq!(kept.len(), 1);
    // Another program is quicker.
    let path = devices[1].path("saved");
    devices[1].engine().fault.meanwhile = Some(("file complete", path, |path| {
        std::fs::write(path, "saved meanwhile").unwrap();
    }));
    devices[1].work(only(saved), &[&store]);
    let texts: Vec<String> = devices[1].tree().into_values().collect();
    assert!(texts.contains(&"saved meanwhile".to_owned()), "{texts:?}");
    let left = std::fs::read_dir(devices[1].path(".wormhole/tmp")).unwrap();
    let mut left = left.map(|one| one.unwrap().file_name());
    assert!(!left.any(|name| name.to_string_lossy().starts_with("gone-")));
}

/// Files that this device has, and of which it remembers nothing, in a big directory.
#[test]
fn a_big_directory_is_not_listed_once_for_each_of_its_files() {
    let mut devices = pair();
    for number in 0..50 {
        devices[0].write(&format!("dir/{number}"), "text");
    }
    converge(&mut devices);
    let engine = devices[0].engine();
    let mut batch = engine.state.begin().unwrap();
    let dir = batch
        .place_of(engine.config.base, Path::new("dir"))
        .unwrap();
    let dir = batch.get(&dir.unwrap()).unwrap().unwrap().key.id;
    for (place, _) in batch.children(dir).unwrap() {
        batch.remove(&place).unwrap();
    }
    batch.commit(Keep::Now).unwrap();
    devices[0].engine().fault.passed.clear();
    let names: Vec<String> = (0..50).map(|number| format!("dir/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    devices[0].check(&names);
    let passed = &devices[0].engine().fault.passed;
    assert_eq!(passed.get("a directory of the mesh listed"), Some(&1));
}

/// Both devices had recorded their own link before they met: the one that loses the name has to give it up.
#[test]
fn of_two_links_pointed_elsewhere_apart_one_gives_up_the_name() {
    let mut devices = pair();
    symlink("k", devices[0].path("ln")).unwrap();
    converge(&mut devices);
    for (device, target) in devices.iter_mut().zip(["z1", "z2"]) {
        remove(&device.path("ln"));
        symlink(target, device.path("ln")).unwrap();
        device.settle(&[]);
    }
    sync(&devices[0], &devices[1]);
    for device in &mut devices {
        device.work(Todo::default(), &[]);
    }
    let [one, other] = devices.each_ref().map(Device::tree);
    assert_eq!(one, other);
}
