//! Two and three devices work at once: everybody ends with the same tree, and nothing that nobody replaced is lost.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wormhole_crdt::{Edit, EntryId, EntryKey, EntryName, FileInput, NewNode, Role, Timestamp};

use super::device::{Device, converge, sync};
use super::kind::pair;
use crate::folder::scan::{Walk, Walked};
use crate::folder::status::Reason;

#[test]
fn both_versions_of_a_file_changed_apart_are_kept() {
    let mut devices = pair();
    devices[0].write("plan.txt", "start");
    converge(&mut devices);
    devices[0].write("plan.txt", "zero's version");
    devices[1].write("plan.txt", "one's other version");
    converge(&mut devices);
    let tree = devices[0].tree();
    let texts: BTreeSet<&str> = tree.values().map(String::as_str).collect();
    assert_eq!(
        texts,
        BTreeSet::from(["one's other version", "zero's version"])
    );
    assert!(tree.contains_key("plan.txt"));
    assert!(
        tree.keys()
            .any(|name| name.starts_with("plan (conflict") && name.ends_with(".txt"))
    );
}

/// The clocks of both devices are years apart, and jump between one save and the next.
#[test]
fn the_later_save_wins_whatever_the_clocks_say() {
    let mut devices = pair();
    let year = Duration::from_secs(365 * 24 * 3600);
    let saves = [(0, 30), (1, 80), (0, 1), (0, 60), (1, 0)];
    for (turn, (device, years)) in saves.into_iter().enumerate() {
        let text = format!("save {turn}");
        devices[device].write("plan", &text);
        let file = std::fs::File::options()
            .write(true)
            .open(devices[device].path("plan"))
            .unwrap();
        file.set_modified(UNIX_EPOCH + year * years).unwrap();
        converge(&mut devices);
        for device in &devices {
            assert_eq!(device.tree(), [("plan".to_owned(), text.clone())].into());
            let found = device.path("plan").metadata().unwrap();
            assert_eq!(found.modified().unwrap(), UNIX_EPOCH + year * years);
        }
    }
}

#[test]
fn a_change_from_elsewhere_does_not_destroy_an_unrecorded_one() {
    let mut devices = pair();
    devices[0].write("plan", "start");
    converge(&mut devices);
    devices[0].write("plan", "from zero");
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    // Not recorded yet when the other one arrives.
    devices[1].write("plan", "from one, unseen");
    converge(&mut devices);
    let texts: BTreeSet<String> = devices[1].tree().into_values().collect();
    assert_eq!(
        texts,
        BTreeSet::from(["from one, unseen".into(), "from zero".into()])
    );
}

/// A version that only one device holds, beside another of the same file. A third device knows it by name only and does
/// something to the file; then the holder looks at what it missed, one change after another.
fn only_copy_after(act: fn(&Device), order: fn(&mut Vec<EntryKey>)) {
    let one = Device::found();
    let (two, three) = (one.join(1, Role::Writer), one.join(2, Role::Writer));
    let mut devices = [one, two, three];
    devices[0].write("plan", "start");
    converge(&mut devices);
    devices[0].write("plan", "only here");
    devices[0].settle(&[]);
    // The later of two writes made apart keeps the name.
    for text in ["something", "known everywhere"] {
        devices[1].write("plan", text);
        devices[1].settle(&[]);
    }
    settle_for_certain(&mut devices[0], "plan");
    sync(&devices[0], &devices[2]);
    sync(&devices[1], &devices[2]);
    let store = devices[1].store.clone();
    devices[2].settle(&[&store]);
    act(&devices[2]);
    devices[2].settle(&[&store]);
    sync(&devices[0], &devices[2]);
    let store = devices[2].store.clone();
    devices[0].apply_one_by_one(order, &[&store]);
    converge(&mut devices);
    let shown: BTreeSet<String> = devices[2].tree().into_values().collect();
    assert!(shown.contains("only here"), "{shown:?}");
}

#[test]
fn the_only_copy_of_a_version_outlives_what_is_done_to_another() {
    let orders: [fn(&mut Vec<EntryKey>); 2] = [|_as_they_are| {}, |keys| keys.reverse()];
    let acts: [fn(&Device); 4] = [
        |device| std::fs::write(device.path("plan"), "next").unwrap(),
        |device| std::fs::remove_file(device.path("plan")).unwrap(),
        |device| std::fs::rename(device.path("plan"), device.path("moved")).unwrap(),
        |device| {
            let executable = Permissions::from_mode(0o755);
            std::fs::set_permissions(device.path("plan"), executable).unwrap();
        },
    ];
    for (act, order) in acts
        .into_iter()
        .flat_map(|act| orders.map(|order| (act, order)))
    {
        only_copy_after(act, order);
    }
}

/// Looks at a file when its stamp tells for certain that nobody has written to it since.
fn settle_for_certain(device: &mut Device, path: &str) {
    let written = device.path(path).metadata().unwrap().modified().unwrap();
    while written.elapsed().unwrap_or_default() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
    device.settle(&[]);
}

/// A device that knows a file by name only makes a copy of it and removes the file itself, and its holder hears of that.
fn copied_and_removed(devices: &[Device; 2]) -> EntryKey {
    let [holder, other] = devices;
    sync(holder, other);
    let replica = &other.replica;
    let entry = replica.lookup(EntryId::ROOT, "plan").unwrap().unwrap();
    let file = entry.file.unwrap();
    let content = FileInput {
        content: file.content,
        mtime: file.mtime,
    };
    let copy = Edit::Create {
        id: replica.fresh_id(EntryId::ROOT, &mut rand::rng()).unwrap(),
        parent: EntryId::ROOT,
        name: EntryName::parse("copy").unwrap(),
        node: NewNode::File(content),
        mode: None,
    };
    let edits = [
        Edit::Remove {
            key: entry.key,
            base: None,
        },
        copy,
    ];
    replica.edit(&edits, Timestamp(9)).unwrap();
    sync(holder, other);
    entry.key
}

#[test]
fn the_only_copy_outlives_its_file_while_changes_are_not_looked_at() {
    let mut devices = pair();
    devices[0].write("plan", "wanted again");
    devices[0].settle(&[]);
    settle_for_certain(&mut devices[0], "plan");
    let key = copied_and_removed(&devices);
    devices[0].engine().caught_up = None;
    devices[0].engine().withdraw(&[key]).unwrap();
    assert!(!devices[0].path("plan").exists());
    devices[0].settle(&[]);
    assert_eq!(devices[0].read("copy"), "wanted again");
}

#[test]
fn a_version_that_the_store_lost_sight_of_is_kept_when_another_replaces_it() {
    let mut devices = pair();
    devices[0].write("plan", "wanted again");
    devices[0].settle(&[]);
    settle_for_certain(&mut devices[0], "plan");
    let key = copied_and_removed(&devices);
    let file = devices[0].engine().file_path(Path::new("plan"));
    devices[0].store.forgotten(&file.root, &file.path).unwrap();
    devices[0].engine().caught_up = None;
    devices[0].engine().withdraw(&[key]).unwrap();
    devices[0].settle(&[]);
    assert_eq!(devices[0].read("copy"), "wanted again");
}

#[test]
fn a_file_edited_there_and_deleted_here_comes_back() {
    let mut devices = pair();
    devices[0].write("plan", "start");
    converge(&mut devices);
    std::fs::remove_file(devices[0].path("plan")).unwrap();
    devices[1].write("plan", "edited");
    converge(&mut devices);
    assert_eq!(devices[0].read("plan"), "edited");
}

/// Whose bytes were deleted where they were made, and never came anywhere else.
#[test]
fn nobody_waits_for_a_version_that_its_writer_deleted_while_others_moved_the_file() {
    for (heard, edited) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut devices = pair();
        devices[0].write("plan", "start");
        converge(&mut devices);
        devices[1].write("plan", "edited there");
        devices[1].settle(&[]);
        if heard {
            sync(&devices[0], &devices[1]);
        }
        std::fs::remove_file(devices[1].path("plan")).unwrap();
        devices[1].settle(&[]);
        std::fs::rename(devices[0].path("plan"), devices[0].path("moved")).unwrap();
        if edited {
            devices[0].write("moved", "edited here");
        }
        devices[0].settle(&[]);
        converge(&mut devices);
        let left = edited.then(|| ("moved".to_owned(), "edited here".to_owned()));
        for device in &devices {
            assert_eq!(device.tree(), left.clone().into_iter().collect());
            assert!(!device.is_waiting());
        }
    }
}

/// A file arrives, and another program does something to it before the folder has looked at it.
fn touched_on_arrival(act: fn(&Path)) -> [Device; 2] {
    let mut devices = pair();
    devices[0].write("file", "from there");
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    let path = devices[1].path("file");
    devices[1].engine().fault.meanwhile = Some(("file in place", path, act));
    converge(&mut devices);
    assert!(devices[1].engine().fault.meanwhile.is_none());
    devices
}

#[test]
fn a_file_edited_the_moment_it_arrives_is_recorded_as_edited() {
    let devices = touched_on_arrival(|path| std::fs::write(path, "edited here").unwrap());
    assert_eq!(devices[0].read("file"), "edited here");
}

#[test]
fn a_file_made_executable_the_moment_it_arrives_is_so_everywhere() {
    let devices = touched_on_arrival(|path| {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    });
    let mode = std::fs::metadata(devices[0].path("file")).unwrap().mode();
    assert_eq!(mode & 0o100, 0o100);
}

#[test]
fn a_file_made_on_both_sides_stays_executable_where_it_was() {
    let mut devices = pair();
    devices[0].write("tool", "from zero");
    devices[0].settle(&[]);
    devices[1].write("tool", "from one");
    let path = devices[1].path("tool");
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    sync(&devices[0], &devices[1]);
    converge(&mut devices);
    let tree = devices[0].tree();
    assert!(tree.values().any(|text| text == "*from one"), "{tree:?}");
}

#[test]
fn a_file_that_a_scan_finds_growing_is_left_for_later() {
    let mut devices = pair();
    devices[0].write("synced", "text");
    devices[0].settle(&[]);
    devices[0].write("growing", "half of it");
    let (_, todo) = devices[0].engine().scan(&mut Walk::whole()).unwrap();
    let later = |path: &str| todo.later.iter().any(|(at, _)| at == Path::new(path));
    assert!(later("growing"), "{todo:?}");
    let shown = |device: &Device| device.replica.lookup(EntryId::ROOT, "growing").unwrap();
    assert_eq!(shown(&devices[0]), None);
    let long_ago = std::fs::File::options()
        .write(true)
        .open(devices[0].path("growing"))
        .unwrap();
    long_ago.set_modified(UNIX_EPOCH).unwrap();
    devices[0].engine().scan(&mut Walk::whole()).unwrap();
    assert!(shown(&devices[0]).is_some());
}

#[test]
fn a_big_flat_directory_is_compared_a_part_at_a_time() {
    let mut device = Device::found();
    for number in 0..1_200 {
        device.write(&number.to_string(), "x");
    }
    let mut walk = Walk::whole();
    let (walked, _) = device.engine().scan(&mut walk).unwrap();
    assert_eq!(walked, Walked::Partly);
    let shown = device.replica.children(EntryId::ROOT).unwrap();
    assert!((1..600).contains(&shown.len()), "{}", shown.len());
    // What happens in the meantime is neither missed nor taken for a deletion.
    std::fs::remove_file(device.path("0")).unwrap();
    device.write("new", "x");
    device.settle(&[]);
    let shown = device.replica.children(EntryId::ROOT).unwrap();
    assert_eq!(shown.len(), 1_200);
}

#[test]
fn a_directory_deleted_there_lives_on_with_what_was_put_into_it_here() {
    let mut devices = pair();
    devices[0].write("dir/old", "1");
    converge(&mut devices);
    std::fs::remove_dir_all(devices[0].path("dir")).unwrap();
    devices[1].write("dir/new", "2");
    converge(&mut devices);
    assert_eq!(devices[0].read("dir/new"), "2");
    assert!(!devices[0].path("dir/old").exists());
}

#[test]
fn a_rename_here_and_an_edit_there_both_happen() {
    let mut devices = pair();
    devices[0].write("draft", "1");
    converge(&mut devices);
    std::fs::rename(devices[0].path("draft"), devices[0].path("final")).unwrap();
    devices[1].write("draft", "edited");
    converge(&mut devices);
    assert_eq!(devices[0].tree().len(), 1);
    assert_eq!(devices[0].read("final"), "edited");
}

#[test]
fn directories_made_apart_with_one_name_are_one() {
    let mut devices = pair();
    devices[0].write("docs/zero", "0");
    devices[1].write("docs/one", "1");
    converge(&mut devices);
    let names: Vec<String> = devices[0].tree().into_keys().collect();
    assert_eq!(names, ["docs", "docs/one", "docs/zero"]);
}

#[test]
fn a_reader_keeps_its_changes_to_itself_and_loses_none() {
    let one = Device::found();
    let reader = one.join(1, Role::Reader);
    let mut devices = [one, reader];
    devices[0].write("plan.txt", "start");
    converge(&mut devices);
    devices[1].write("plan.txt", "reader's own");
    devices[1].write("note", "private");
    devices[1].settle(&[]);
    assert_eq!(devices[1].problem("plan.txt"), Some(Reason::ReadOnlyMember));
    devices[0].write("plan.txt", "next");
    for _ in 0..2 {
        devices[0].settle(&[]);
        sync(&devices[0], &devices[1]);
        let store = devices[0].store.clone();
        devices[1].settle(&[&store]);
    }
    assert_eq!(devices[1].read("plan.txt"), "next");
    assert_eq!(devices[1].read("plan (local).txt"), "reader's own");
    assert_eq!(devices[1].read("note"), "private");
    assert_eq!(devices[0].tree().len(), 1);
}

#[test]
fn what_a_reader_puts_back_is_no_change_any_more() {
    let one = Device::found();
    let reader = one.join(1, Role::Reader);
    let mut devices = [one, reader];
    devices[0].write("plan.txt", "start");
    converge(&mut devices);
    devices[1].write("plan.txt", "reader's own");
    devices[1].settle(&[]);
    assert_eq!(devices[1].problem("plan.txt"), Some(Reason::ReadOnlyMember));
    devices[1].write("plan.txt", "start");
    devices[1].settle(&[]);
    assert_eq!(devices[1].problem("plan.txt"), None);
    devices[0].write("plan.txt", "next");
    for _ in 0..2 {
        devices[0].settle(&[]);
        sync(&devices[0], &devices[1]);
        let store = devices[0].store.clone();
        devices[1].settle(&[&store]);
    }
    assert_eq!(devices[1].tree().len(), 1, "nothing was set aside");
    assert_eq!(devices[1].read("plan.txt"), "next");
}

/// One thing a person does. Every text is written once, so that loss can be seen.
fn act(device: &Device, rng: &mut ChaCha8Rng, text: &str) -> BTreeSet<String> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::new()];
    let tree = device.tree();
    for (path, what) in &tree {
        if what == "directory" {
            dirs.push(path.into());
        } else {
            files.push(path.clone());
        }
    }
    let names = ["a", "b", "c.txt", "d"];
    let fresh = |rng: &mut ChaCha8Rng| dirs.choose(rng).unwrap().join(names.choose(rng).unwrap());
    let mut replaced = BTreeSet::new();
    match rng.random_range(0..10) {
        0..=3 => {
            let path = fresh(rng);
            let name = path.to_string_lossy().into_owned();
            if tree.get(&name).is_some_and(|what| what == "directory") {
                return replaced;
            }
            replaced.extend(tree.get(&name).cloned());
            std::fs::write(device.path(&name), text).unwrap();
        }
        4 => {
            let made = std::fs::create_dir(device.path("").join(fresh(rng)));
            drop(made);
        }
        5 | 6 => {
            if let Some(path) = files.choose(rng) {
                replaced.insert(tree[path].clone());
                std::fs::remove_file(device.path(path)).unwrap();
            }
        }
        7 | 8 => {
            let all: Vec<&String> = tree.keys().collect();
            if let Some(from) = all.choose(rng) {
                let to = fresh(rng);
                let name = to.to_string_lossy().into_owned();
                let over = tree.get(&name);
                if over.is_none() && std::fs::rename(device.path(from), device.path(&name)).is_err()
                {
                    return replaced;
                }
            }
        }
        _ => {
            if let Some(path) = dirs.choose(rng).filter(|path| path.as_os_str() != "") {
                let prefix = format!("{}/", path.display());
                let below = tree.iter().filter(|(name, _)| name.starts_with(&prefix));
                replaced.extend(below.map(|(_, text)| text.clone()));
                std::fs::remove_dir_all(device.path("").join(path)).unwrap();
            }
        }
    }
    replaced
}

fn random_life(seed: u64, devices: &mut [Device], steps: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for device in devices.iter_mut() {
        device.engine().config.deletion_guard.emptied_entries = u64::MAX;
    }
    let (mut written, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for step in 0..steps {
        let at = rng.random_range(0..devices.len());
        let text = format!("text {step} of {at}");
        replaced.extend(act(&devices[at], &mut rng, &text));
        if devices[at].tree().values().any(|shown| *shown == text) {
            written.insert(text);
        }
        match rng.random_range(0..6) {
            0 => devices[at].settle(&[]),
            1 => {
                let other = (at + 1) % devices.len();
                sync(&devices[at], &devices[other]);
            }
            2 => {
                let store = devices[(at + 1) % devices.len()].store.clone();
                devices[at].settle(&[&store]);
            }
            3 if rng.random_bool(0.3) => devices[at].restart(),
            _ => {}
        }
    }
    converge(devices);
    let shown: BTreeSet<String> = devices[0].tree().into_values().collect();
    for text in written.difference(&replaced) {
        assert!(shown.contains(text), "{text} is lost; seed {seed}");
    }
}

#[test]
fn random_work_on_two_devices_converges_and_loses_nothing() {
    for seed in 0..12 {
        println!("seed {seed}");
        random_life(seed, &mut pair(), 40);
    }
}

#[test]
fn random_work_on_three_devices_converges_and_loses_nothing() {
    for seed in 100..104 {
        println!("seed {seed}");
        let one = Device::found();
        let (two, three) = (one.join(1, Role::Writer), one.join(2, Role::Writer));
        random_life(seed, &mut [one, two, three], 60);
    }
}

#[test]
fn what_comes_without_memory_goes_beside_what_the_mesh_has() {
    let mut devices = pair();
    let joining = devices[0].join(2, Role::Writer);
    for number in 0..30 {
        devices[0].write(&format!("{number}"), &format!("of the mesh {number}"));
    }
    converge(&mut devices);
    let [one, other] = devices;
    let mut three = [one, other, joining];
    for number in 0..30 {
        three[2].write(&format!("{number}"), &format!("older and longer {number}"));
    }
    // Much is written meanwhile: the joining device has the latest logical time.
    sync(&three[0], &three[2]);
    converge(&mut three);
    let tree = three[0].tree();
    assert_eq!(tree.len(), 60);
    for number in 0..30 {
        assert_eq!(tree[&number.to_string()], format!("of the mesh {number}"));
    }
    let conflicts = three[1].replica.conflicts().unwrap();
    assert_eq!(conflicts.len(), 30, "each is told");
}

#[test]
fn a_lost_memory_lets_the_mesh_keep_the_names() {
    let mut devices = pair();
    devices[0].write("f", "first");
    converge(&mut devices);
    // It leaves, the other goes on, it comes back without having touched the file.
    devices[1].engine = None;
    std::fs::remove_file(devices[1].home.path().join("folder.redb")).unwrap();
    std::fs::remove_dir_all(devices[1].path(".wormhole")).unwrap();
    devices[0].write("f", "second, and longer");
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    devices[1].restart();
    converge(&mut devices);
    assert_eq!(devices[0].read("f"), "second, and longer");
    assert_eq!(devices[0].tree().len(), 2);
}

#[test]
fn a_reader_keeps_its_own_files_in_a_directory_that_was_deleted_elsewhere() {
    let mut writer = Device::found();
    let mut reader = writer.join(1, Role::Reader);
    writer.write("d/f", "text");
    let store = writer.store.clone();
    writer.settle(&[]);
    sync(&writer, &reader);
    reader.settle(&[&store]);
    reader.write("d/own", "mine");
    reader.settle(&[&store]);
    std::fs::remove_dir_all(writer.path("d")).unwrap();
    writer.settle(&[]);
    sync(&writer, &reader);
    reader.settle(&[&store]);
    assert_eq!(reader.read("d/own"), "mine");
    assert!(!reader.path("d/f").exists());
    // Nothing is tried again and again.
    let key = EntryKey::ROOT;
    let todo = reader.engine().apply(&[key]).unwrap();
    assert!(todo.blocked.is_empty() && todo.paths.is_empty());
    assert!(reader.problem("d").is_some());
}
