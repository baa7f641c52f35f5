//! Garbage goes, everything else stays.

use std::fs;
use std::ops::ControlFlow;

use super::*;
use crate::fixture::{Bed, copy, file, flip, noise, read_all};
use crate::{FilePath, ReadError, StoreOptions};

fn sweep(store: &Store, live: &[Content]) -> Swept {
    let go_on = &mut || ControlFlow::Continue(());
    store.sweep(&mut live.iter().copied(), go_on).unwrap()
}

fn small_packs(bed: &Bed) -> Store {
    bed.open_with(StoreOptions {
        pack_bytes: 300_000,
        ..StoreOptions::default()
    })
}

fn present(store: &Store, content: &Content) -> bool {
    store.has(&content.id.first_blob())
}

#[test]
fn garbage_goes_at_the_second_sweep_and_live_contents_stay() {
    let bed = Bed::new();
    let store = small_packs(&bed);
    let live: Vec<_> = (0..5)
        .map(|seed| copy(&store, &noise(seed, 200_000)))
        .collect();
    let dead: Vec<_> = (10..30)
        .map(|seed| copy(&store, &noise(seed, 200_000)))
        .collect();
    assert_eq!(
        sweep(&store, &live),
        Swept::default(),
        "all of it may still become live"
    );
    let before = store.usage().unwrap();
    let swept = sweep(&store, &live);
    assert!(
        swept.dropped_chunks >= 60 && swept.removed_packs > 5,
        "{swept:?}"
    );
    let after = store.usage().unwrap();
    assert!(
        after.pack_bytes < before.pack_bytes / 2,
        "{before:?} {after:?}"
    );
    assert!(!dead.iter().any(|content| present(&store, content)));
    for (seed, content) in live.iter().enumerate() {
        assert_eq!(read_all(&store, *content), noise(seed as u64, 200_000));
    }
    sweep(&store, &live); // what was the last pack then is sealed now
    assert_eq!(sweep(&store, &live), Swept::default(), "nothing left to do");
    store.close().unwrap();
    let store = bed.open();
    assert_eq!(*store.recovery(), crate::Recovery::default());
    for (seed, content) in live.iter().enumerate() {
        assert_eq!(read_all(&store, *content), noise(seed as u64, 200_000));
    }
}

#[test]
fn what_is_put_again_counts_as_new() {
    let bed = Bed::new();
    let store = bed.open();
    let content = copy(&store, &noise(1, 100_000));
    sweep(&store, &[]);
    copy(&store, &noise(1, 100_000)); // an import that is about to be announced
    sweep(&store, &[]);
    assert_eq!(read_all(&store, content), noise(1, 100_000));
    sweep(&store, &[]);
    assert!(!present(&store, &content));
}

#[test]
fn an_import_under_way_is_safe_however_many_sweeps_pass() {
    let bed = Bed::new();
    let store = bed.open();
    let ticket = store.inner.in_flight.begin(&store.inner.index);
    let id = store.put(b"first chunk of a very large file").unwrap();
    for _ in 0..5 {
        sweep(&store, &[]);
    }
    assert!(store.has(&id));
    drop(ticket);
    sweep(&store, &[]);
    assert!(!store.has(&id));
}

#[test]
fn a_pack_copy_is_released_when_an_unchanged_file_has_it_too() {
    let bed = Bed::new();
    let store = small_packs(&bed);
    let bytes = noise(1, 900_000);
    let content = copy(&store, &bytes);
    let name = bed.write("landed", &bytes);
    store.adopt(&name, &content).unwrap();
    sweep(&store, &[content]);
    let swept = sweep(&store, &[content]);
    assert!(swept.released_chunks >= 2, "{swept:?}");
    assert_eq!(read_all(&store, content), bytes, "out of the file");
    // Only the manifest is left in packs.
    store.put(&noise(9, 400_000)).unwrap();
    assert!(store.usage().unwrap().pack_bytes < 700_000);
}

#[test]
fn the_only_good_copy_is_never_released() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(1, 300_000);
    let content = copy(&store, &bytes);
    for name in ["changed", "deleted"] {
        store.adopt(&bed.write(name, &bytes), &content).unwrap();
    }
    fs::write(bed.folder().join("changed"), noise(2, 300_000)).unwrap();
    fs::remove_file(bed.folder().join("deleted")).unwrap();
    for _ in 0..3 {
        assert_eq!(sweep(&store, &[content]).released_chunks, 0);
    }
    assert_eq!(read_all(&store, content), bytes);
}

#[test]
fn references_that_are_gone_are_collected() {
    let bed = Bed::new();
    let store = bed.open();
    let names: Vec<FilePath> = (0..50)
        .map(|at| bed.write(&format!("d/{at}"), &noise(at, 1000)))
        .collect();
    let live: Vec<_> = store
        .import_many(&names)
        .into_iter()
        .map(|file| file.unwrap().content)
        .collect();
    store.commit().unwrap();
    assert_eq!(store.usage().unwrap().places, 50);
    store
        .forgotten(&crate::fixture::ROOT, "d".as_ref())
        .unwrap();
    let swept = sweep(&store, &live);
    assert_eq!(swept.dropped_references, 50);
    assert_eq!(store.usage().unwrap().places, 0);
    let snapshot = store.inner.index.read().snapshot();
    assert_eq!(snapshot.nodes().unwrap().count(), 1, "the root alone");
}

#[test]
fn garbage_in_the_pack_that_is_appended_to_goes_one_sweep_later() {
    let bed = Bed::new();
    let store = bed.open_with(StoreOptions {
        pack_bytes: 4 << 20,
        ..StoreOptions::default()
    });
    copy(&store, &noise(1, 2_000_000));
    let live = [copy(&store, &noise(2, 200_000))];
    for _ in 0..3 {
        sweep(&store, &live);
    }
    let usage = store.usage().unwrap();
    assert!(usage.pack_bytes < 210_000, "{usage:?}");
    assert_eq!(read_all(&store, live[0]), noise(2, 200_000));
}

#[test]
fn compaction_compresses_text_and_leaves_damage_where_it_is() {
    let bed = Bed::new();
    let store = small_packs(&bed);
    let text = |seed: u64| format!("line {seed} of a very repetitive file\n").repeat(5000);
    let live: Vec<_> = (0..2)
        .map(|seed| copy(&store, text(seed).as_bytes()))
        .collect();
    let rotten = copy(&store, &noise(5, 60_000));
    for seed in 10..20 {
        copy(&store, &noise(seed, 200_000));
    }
    let pack = bed.packs()[1].clone();
    let at = fs::read(&pack)
        .unwrap()
        .windows(100)
        .position(|w| w == &noise(5, 60_000)[..100]);
    flip(&pack, at.unwrap());
    let live = [live[0], live[1], rotten];
    sweep(&store, &live);
    let swept = sweep(&store, &live);
    assert!(swept.removed_packs > 3, "{swept:?}");
    for (seed, content) in live[..2].iter().enumerate() {
        assert_eq!(read_all(&store, *content), text(seed as u64).into_bytes());
    }
    assert!(matches!(
        store.read(&rotten.id.first_blob()),
        Err(ReadError::Damaged { .. })
    ));
}

#[test]
fn readers_and_writers_go_on_while_packs_move() {
    let bed = Bed::new();
    let store = small_packs(&bed);
    let live: Vec<_> = (0..8)
        .map(|seed| copy(&store, &noise(seed, 100_000)))
        .collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for round in 0..60 {
                let seed = round % 8;
                let mut bytes = Vec::new();
                for slot in store.slots(&live[seed]).unwrap() {
                    let encoded = store.read_encoded(&slot.unwrap().chunk.id).unwrap();
                    bytes.extend_from_slice(&encoded.plain().unwrap());
                }
                assert_eq!(bytes, noise(seed as u64, 100_000));
            }
        });
        for round in 0..6 {
            for seed in 0..10 {
                copy(&store, &noise(1000 + round * 10 + seed, 100_000));
            }
            sweep(&store, &live);
        }
        reader.join().unwrap();
    });
    assert!(store.import_reference(&file(".marker")).is_ok());
}

#[test]
fn full_packs_of_text_are_compressed_once_and_others_left_alone() {
    let bed = Bed::new();
    let store = small_packs(&bed);
    let text = |seed: u64| format!("line {seed} of a very repetitive file\n").repeat(7000);
    let texts: Vec<_> = (0..6)
        .map(|seed| copy(&store, text(seed).as_bytes()))
        .collect();
    let noises: Vec<_> = (0..6)
        .map(|seed| copy(&store, &noise(seed, 250_000)))
        .collect();
    let live: Vec<_> = texts.iter().chain(&noises).copied().collect();
    let before = store.usage().unwrap().pack_bytes;
    let swept = sweep(&store, &live);
    assert_eq!(swept.squeezed_packs, 3, "{swept:?}");
    let after = store.usage().unwrap().pack_bytes;
    assert!(after + 1_000_000 < before, "{before} {after}");
    for _ in 0..3 {
        assert_eq!(sweep(&store, &live).squeezed_packs, 0, "once is enough");
    }
    store.close().unwrap();
    let store = small_packs(&bed);
    assert_eq!(
        sweep(&store, &live).squeezed_packs,
        0,
        "after a restart, too"
    );
    for (seed, content) in texts.iter().enumerate() {
        assert_eq!(read_all(&store, *content), text(seed as u64).into_bytes());
    }
    for (seed, content) in noises.iter().enumerate() {
        assert_eq!(read_all(&store, *content), noise(seed as u64, 250_000));
    }
}

#[test]
fn a_sweep_that_is_ended_anywhere_loses_nothing_and_is_made_up_for() {
    let text = |seed: u64| format!("line {seed} of a very repetitive file\n").repeat(5000);
    for calls in [0, 1, 5, 20, 30, 40, 60] {
        let bed = Bed::new();
        let store = small_packs(&bed);
        let live: Vec<_> = (0..4)
            .map(|seed| copy(&store, text(seed).as_bytes()))
            .collect();
        for seed in 10..20 {
            copy(&store, &noise(seed, 200_000));
        }
        sweep(&store, &live);
        let mut left = calls;
        let mut watch = || {
            left -= 1;
            match left < 0 {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        store.sweep(&mut live.iter().copied(), &mut watch).unwrap();
        for (seed, content) in live.iter().enumerate() {
            let found = read_all(&store, *content);
            assert_eq!(found, text(seed as u64).into_bytes(), "after {calls}");
        }
        for _ in 0..3 {
            sweep(&store, &live);
        }
        let usage = store.usage().unwrap();
        assert!(usage.pack_bytes < 300_000, "after {calls}: {usage:?}");
    }
}

#[test]
fn a_file_whose_time_was_set_back_replaces_no_copy() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(1, 60_000);
    let content = copy(&store, &bytes);
    store.adopt(&bed.write("file", &bytes), &content).unwrap();
    let path = bed.folder().join("file");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, noise(2, 60_000)).unwrap();
    let times = fs::FileTimes::new().set_modified(time);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_times(times).unwrap();
    for _ in 0..3 {
        assert_eq!(sweep(&store, &[content]).released_chunks, 0);
    }
    assert_eq!(read_all(&store, content), bytes);
}

#[test]
fn what_a_fetch_finds_here_during_a_sweep_outlives_it() {
    let bed = Bed::new();
    let store = bed.open();
    let kept = copy(&store, &noise(1, 3_000_000));
    let shown = copy(&store, &noise(2, 3_000_000));
    sweep(&store, &[]);
    // Nobody has wanted them for long, and both come back while they are being swept away.
    let mut wanted = false;
    let file = bed.write("file", &noise(2, 3_000_000));
    let mut watch = || {
        if !std::mem::replace(&mut wanted, true) {
            let lack = crate::ChunkSink::prepare(&store, &kept, 0).unwrap();
            assert!(lack.is_empty(), "all of it is here");
            store.adopt(&file, &shown).unwrap();
        }
        ControlFlow::Continue(())
    };
    store.sweep(&mut std::iter::empty(), &mut watch).unwrap();
    assert!(wanted);
    assert_eq!(read_all(&store, kept), noise(1, 3_000_000));
    assert_eq!(read_all(&store, shown), noise(2, 3_000_000));
}
