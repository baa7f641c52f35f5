//! A scrub finds every kind of damage and heals by forgetting.

use std::fs;

use super::*;
use crate::fixture::{Bed, flip, noise};

fn scrub(store: &Store, scope: ScrubScope) -> ScrubReport {
    store
        .scrub(scope, &mut |_| ControlFlow::Continue(()))
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
fn a_scrub_can_be_broken_off() {
    let bed = Bed::new();
    let store = bed.open();
    for seed in 0..10 {
        store.put(&noise(seed, 100)).unwrap();
    }
    let mut stop = |report: &ScrubReport| match report.checked {
        4 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert_eq!(
        store.scrub(ScrubScope::Packs, &mut stop).unwrap().checked,
        4
    );
}
