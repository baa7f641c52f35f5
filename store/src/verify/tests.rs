//! A scrub finds every kind of damage and heals by forgetting.

use std::fs;

use super::*;
use crate::fixture::{Bed, flip, noise};

fn scrub(store: &Store, scope: ScrubScope) -> ScrubReport {
    store
        .scrub(scope, None, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

#[test]
fn damaged_chunks_are_named_and_become_absent() {
    let bed = Bed::new();
    let store = bed.open();
    let ids: Vec<_> = (0..10)
        .map(|seed| store.put(&noise(seed, 10_000)).unwrap())
        .collect();
    let clean = scrub(&store, ScrubScope::Packs);
    assert_eq!(
        (clean.checked, clean.bytes, clean.damaged_copies),
        (10, 100_000, 0)
    );
    flip(&bed.packs()[0], 16 + 3 * 10_052 + 5000);
    let report = scrub(&store, ScrubScope::Packs);
    assert_eq!(report.damaged, [ids[3]]);
    assert!(!store.has(&ids[3]));
    assert_eq!(scrub(&store, ScrubScope::Packs).checked, 9);
    store.put(&noise(3, 10_000)).unwrap();
    assert_eq!(scrub(&store, ScrubScope::Packs).damaged_copies, 0);
}

#[test]
fn files_are_checked_when_everything_is() {
    let bed = Bed::new();
    let store = bed.open();
    for name in ["good", "changed", "gone"] {
        store
            .import_reference(&bed.write(name, name.as_bytes()))
            .unwrap();
    }
    fs::write(bed.folder().join("changed"), "and how").unwrap();
    fs::remove_file(bed.folder().join("gone")).unwrap();
    assert_eq!(scrub(&store, ScrubScope::Packs).checked, 0);
    let report = scrub(&store, ScrubScope::Everything);
    assert_eq!(
        (report.checked, report.stale_references, report.bytes),
        (3, 2, 4)
    );
}

#[test]
fn a_scrub_that_is_broken_off_goes_on_where_it_was() {
    let bed = Bed::new();
    let store = bed.open();
    for seed in 0..10 {
        let bytes = noise(seed, 100);
        store.put(&bytes).unwrap();
        let name = bed.write(&seed.to_string(), &bytes);
        store.import_reference(&name).unwrap();
    }
    let mut position = None;
    let mut checked = 0;
    for slice in 0.. {
        let mut stop = |report: &ScrubReport| match report.checked {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let report = store
            .scrub(ScrubScope::Everything, position, &mut stop)
            .unwrap();
        checked += report.checked;
        let Some(reached) = report.position else {
            assert_eq!(slice, 6, "three at a time");
            break;
        };
        assert_eq!(
            reached.to_string().parse(),
            Ok(reached),
            "as after a restart"
        );
        position = Some(reached);
    }
    assert_eq!(checked, 20, "each copy once");
    assert!("xyz".parse::<ScrubPosition>().is_err());
}

#[test]
fn a_file_that_rots_on_disk_is_named() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(1, 50_000);
    let id = store
        .import_reference(&bed.write("photo", &bytes))
        .unwrap()
        .content
        .id;
    // The disk changes a byte without telling: as if the stamp had been taken after it.
    let path = bed.folder().join("photo");
    flip(&path, 30_000);
    bed.pretend_unchanged(&store, "photo");
    let report = scrub(&store, ScrubScope::Everything);
    assert_eq!(report.damaged_files, [path]);
    assert_eq!(report.damaged, [id.first_blob()]);
    assert!(!store.has(&id.first_blob()));
}

#[test]
fn the_contents_that_damage_belongs_to_are_found() {
    let bed = Bed::new();
    let store = bed.open();
    let large = crate::fixture::copy(&store, &noise(1, 2_000_000));
    let other = crate::fixture::copy(&store, &noise(2, 2_000_000));
    let small = crate::fixture::copy(&store, b"small");
    let slot = store.slots(&large).unwrap().next().unwrap().unwrap();
    let of = |id: ChunkId| BTreeSet::from([id]);
    let concerned = |id: ChunkId| {
        [large, other, small].map(|content| store.consists_of_any(&content, &of(id)).unwrap())
    };
    assert_eq!(concerned(slot.chunk.id), [true, false, false]);
    assert_eq!(concerned(other.id.first_blob()), [false, true, false]);
    let page = store.manifest(&large).unwrap().pages()[0].id;
    assert_eq!(concerned(page), [true, false, false]);
    assert_eq!(concerned(small.id.first_blob()), [false, false, true]);
    assert_eq!(concerned(ChunkId::from_bytes([0; 32])), [false; 3]);
}
