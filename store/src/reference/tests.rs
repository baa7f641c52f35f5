//! Files move, change and vanish; references follow or are dropped, and nothing wrong is served.

use std::fs::{self, File};

use super::*;
use crate::fixture::{Bed, ROOT, file, noise, read_all};
use crate::{ImportError, ReadError};

fn moved(store: &Store, bed: &Bed, from: &str, to: &str) {
    let to_full = bed.folder().join(to);
    fs::create_dir_all(to_full.parent().unwrap()).unwrap();
    fs::rename(bed.folder().join(from), to_full).unwrap();
    store.moved(&ROOT, Path::new(from), Path::new(to)).unwrap();
}

#[test]
fn references_follow_a_renamed_file_and_a_renamed_directory() {
    let bed = Bed::new();
    let store = bed.open();
    let deep = store
        .import_reference(&bed.write("a/b/c/deep", &noise(1, 300_000)))
        .unwrap();
    let flat = store
        .import_reference(&bed.write("a/flat", &noise(2, 5000)))
        .unwrap();
    moved(&store, &bed, "a/flat", "elsewhere/still flat");
    moved(&store, &bed, "a", "x/y");
    store.commit().unwrap();
    moved(&store, &bed, "x/y/b", "b");
    for imported in [deep, flat] {
        assert_eq!(
            read_all(&store, imported.content).len() as u64,
            imported.content.size
        );
    }
    store.close().unwrap();
    let store = bed.open();
    assert_eq!(read_all(&store, deep.content), noise(1, 300_000));
    // New files below an old name do not get mixed up with what moved away.
    let again = store
        .import_reference(&bed.write("a/flat", &noise(3, 5000)))
        .unwrap();
    assert_eq!(read_all(&store, again.content), noise(3, 5000));
    assert_eq!(read_all(&store, flat.content), noise(2, 5000));
}

#[test]
fn a_file_that_is_read_before_its_rename_was_heard_of_keeps_its_references() {
    let bed = Bed::new();
    let store = bed.open();
    let one = store
        .import_reference(&bed.write("one", &noise(1, 300_000)))
        .unwrap();
    let other = store
        .import_reference(&bed.write("other", &noise(2, 5000)))
        .unwrap();
    fs::rename(bed.folder().join("one"), bed.folder().join("renamed")).unwrap();
    fs::rename(bed.folder().join("other"), bed.folder().join("one")).unwrap();
    for content in [one.content, other.content] {
        let read = store
            .reader(content)
            .and_then(|reader| reader.read_at(0, &mut [0]));
        assert!(matches!(read, Err(ReadError::Stale { .. })));
    }
    let say = |from, to| store.moved(&ROOT, Path::new(from), Path::new(to)).unwrap();
    say("one", "renamed");
    say("other", "one");
    assert_eq!(read_all(&store, one.content), noise(1, 300_000));
    assert_eq!(read_all(&store, other.content), noise(2, 5000));
    assert!(store.refers_to(&file("renamed")).unwrap());
    assert!(!store.refers_to(&file("other")).unwrap());
}

#[test]
fn renaming_a_directory_of_many_files_is_one_row() {
    let bed = Bed::new();
    let store = bed.open();
    let files: Vec<_> = (0..300)
        .map(|at| bed.write(&format!("many/{at}"), &noise(at, 100)))
        .collect();
    let imported: Vec<_> = store
        .import_many(&files)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    store.commit().unwrap();
    moved(&store, &bed, "many", "renamed");
    let pending = store.usage().unwrap().pending_rows;
    assert!(pending <= 3, "{pending} rows");
    for imported in imported {
        assert!(store.read(&imported.content.id.first_blob()).is_ok());
    }
}

#[test]
fn what_a_move_replaces_is_forgotten() {
    let bed = Bed::new();
    let store = bed.open();
    let winner = store
        .import_reference(&bed.write("new", b"new bytes"))
        .unwrap();
    let loser = store
        .import_reference(&bed.write("old", b"old bytes"))
        .unwrap();
    moved(&store, &bed, "new", "old");
    assert!(store.has(&winner.content.id.first_blob()));
    assert!(!store.has(&loser.content.id.first_blob()));
    // A move of something unknown still means that its target is gone.
    bed.write("unknown", b"?");
    moved(&store, &bed, "unknown", "old");
    assert!(!store.has(&winner.content.id.first_blob()));
}

#[test]
fn a_file_can_move_below_a_directory_of_its_own_name_but_a_directory_cannot() {
    let bed = Bed::new();
    let store = bed.open();
    let imported = store.import_reference(&bed.write("a", b"bytes")).unwrap();
    fs::rename(bed.folder().join("a"), bed.folder().join("tmp")).unwrap();
    fs::create_dir(bed.folder().join("a")).unwrap();
    fs::rename(bed.folder().join("tmp"), bed.folder().join("a/a")).unwrap();
    store
        .moved(&ROOT, Path::new("a"), Path::new("a/a"))
        .unwrap();
    assert_eq!(read_all(&store, imported.content), b"bytes");
    let refused = store.moved(&ROOT, Path::new("a"), Path::new("a/b"));
    assert!(matches!(
        refused,
        Err(WriteError::Path(PathError::IntoItself { .. }))
    ));
}

#[test]
fn forgetting_a_directory_forgets_what_is_below() {
    let bed = Bed::new();
    let store = bed.open();
    let below = store
        .import_reference(&bed.write("d/e/f", b"below"))
        .unwrap();
    let beside = store.import_reference(&bed.write("d2", b"beside")).unwrap();
    store.forgotten(&ROOT, Path::new("d")).unwrap();
    store.forgotten(&ROOT, Path::new("never/was")).unwrap();
    assert!(!store.has(&below.content.id.first_blob()));
    assert!(store.has(&beside.content.id.first_blob()));
    let again = store.import_reference(&file("d/e/f")).unwrap();
    assert_eq!(read_all(&store, again.content), b"below");
}

#[test]
fn a_changed_file_is_never_served() {
    let bed = Bed::new();
    let store = bed.open();
    for (name, change) in [
        ("longer", &b"bytes and more"[..]),
        ("same length", b"BYTES"),
    ] {
        let name = bed.write(name, b"bytes");
        let imported = store.import_reference(&name).unwrap();
        let id = imported.content.id.first_blob();
        let path = bed.folder().join(&name.path);
        fs::write(&path, change).unwrap();
        // As rsync -t would: even an mtime that was put back does not help.
        let time = fs::FileTimes::new().set_modified(
            std::time::UNIX_EPOCH
                + std::time::Duration::from_nanos(imported.stamp.mtime_ns.try_into().unwrap()),
        );
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(time)
            .unwrap();
        assert!(matches!(store.read(&id), Err(ReadError::Stale { .. })));
        assert!(
            matches!(store.read(&id), Err(ReadError::Absent { .. })),
            "forgotten"
        );
        assert!(!store.has(&id));
    }
}

#[test]
fn a_rename_or_chmod_alone_does_not_make_a_reference_stale() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new();
    let store = bed.open();
    let name = bed.write("tool", b"bytes");
    let imported = store.import_reference(&name).unwrap();
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bed.folder().join("tool"), mode).unwrap();
    assert_eq!(read_all(&store, imported.content), b"bytes");
}

#[test]
fn the_next_place_is_tried_when_one_is_stale() {
    let bed = Bed::new();
    let store = bed.open();
    let names = ["one", "two", "three"].map(|name| bed.write(name, b"the same bytes"));
    let [content, ..] = names.map(|name| store.import_reference(&name).unwrap().content);
    fs::remove_file(bed.folder().join("three")).unwrap();
    fs::write(bed.folder().join("two"), "changed").unwrap();
    assert_eq!(read_all(&store, content), b"the same bytes");
}

#[test]
fn a_disk_that_is_not_mounted_is_no_reason_to_forget() {
    let bed = Bed::new();
    let store = bed.open();
    let content = store
        .import_reference(&bed.write("a/file", b"bytes"))
        .unwrap()
        .content;
    let away = bed.folder().with_extension("away");
    fs::rename(bed.folder(), &away).unwrap();
    assert!(matches!(
        store.read(&content.id.first_blob()),
        Err(ReadError::Io { .. })
    ));
    fs::create_dir(bed.folder()).unwrap();
    assert!(matches!(
        store.read(&content.id.first_blob()),
        Err(ReadError::Io { .. })
    ));
    fs::remove_dir(bed.folder()).unwrap();
    fs::rename(&away, bed.folder()).unwrap();
    assert_eq!(read_all(&store, content), b"bytes");
}

#[test]
fn a_root_can_be_registered_elsewhere_and_be_removed() {
    let bed = Bed::new();
    let store = bed.open();
    let content = store
        .import_reference(&bed.write("file", b"bytes"))
        .unwrap()
        .content;
    let moved = bed.folder().with_extension("moved");
    fs::rename(bed.folder(), &moved).unwrap();
    store.add_root(&ROOT, &moved).unwrap();
    assert_eq!(read_all(&store, content), b"bytes");
    store.remove_root(&ROOT).unwrap();
    assert!(!store.has(&content.id.first_blob()));
    let unknown = store.import_reference(&file("file"));
    assert!(
        matches!(unknown, Err(ImportError::Path(PathError::UnknownRoot { root })) if root == ROOT)
    );
}

#[test]
fn paths_that_lead_out_are_refused() {
    let bed = Bed::new();
    let store = bed.open();
    for path in ["", "/etc/passwd", "../home", "a/../../home", "."] {
        let refused = store.import_reference(&file(path));
        let not_below = matches!(refused, Err(ImportError::Path(PathError::NotBelow { .. })));
        assert!(not_below, "{path:?} {refused:?}");
        assert!(store.forgotten(&ROOT, Path::new(path)).is_err());
    }
    let deep = "d/".repeat(1025);
    assert!(store.forgotten(&ROOT, Path::new(&deep)).is_err());
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let bed = Bed::new();
    let store = bed.open();
    let content = store
        .import_reference(&bed.write("d/file", b"bytes"))
        .unwrap()
        .content;
    let outside = bed.home().join("outside");
    fs::rename(bed.folder().join("d"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, bed.folder().join("d")).unwrap();
    assert!(matches!(
        store.read(&content.id.first_blob()),
        Err(ReadError::Stale { .. })
    ));
    assert!(matches!(
        store.import_reference(&file("d/file")),
        Err(ImportError::Io { .. })
    ));
}
