//! The handle: what is durable, what recovery finds, what a failing disk does.

use std::fs::{self, File};

use super::*;
use crate::fixture::{Bed, copy, file, flip, key, noise, read_all};
use crate::{ImportError, OpenError};

#[test]
fn what_was_committed_is_there_after_reopening() {
    let bed = Bed::new();
    let store = bed.open();
    let content = copy(&store, &noise(1, 3_000_000));
    let imported = store
        .import_reference(&bed.write("file", &noise(2, 200_000)))
        .unwrap();
    store.close().unwrap();
    let store = bed.open();
    assert_eq!(
        *store.recovery(),
        Recovery::default(),
        "a clean stop needs no recovery"
    );
    assert_eq!(read_all(&store, content), noise(1, 3_000_000));
    assert_eq!(read_all(&store, imported.content), noise(2, 200_000));
    copy(&store, &noise(3, 10));
    store.commit().unwrap();
    assert_eq!(bed.packs().len(), 1, "the last pack goes on");
}

#[test]
fn a_second_store_in_the_same_directory_is_refused() {
    let bed = Bed::new();
    let store = bed.open();
    let second = Store::open(&bed.home(), key(), StoreOptions::default());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    drop(store);
    assert!(Store::open(&bed.home(), key(), StoreOptions::default()).is_ok());
}

#[test]
fn another_key_is_refused_with_and_without_an_index() {
    let bed = Bed::new();
    let store = bed.open();
    copy(&store, b"secret");
    store.close().unwrap();
    let other = || {
        Store::open(
            &bed.home(),
            ContentKey::from_bytes([9; 32]),
            StoreOptions::default(),
        )
    };
    assert!(matches!(other(), Err(OpenError::WrongKey { .. })));
    fs::remove_file(bed.home().join("index.redb")).unwrap();
    assert!(matches!(other(), Err(OpenError::WrongKey { .. })));
    assert_eq!(bed.open().recovery().adopted_chunks, 1);
}

#[test]
fn a_lost_index_is_rebuilt_from_the_packs() {
    let bed = Bed::new();
    let store = bed.open_with(StoreOptions {
        pack_bytes: 1 << 20,
        ..StoreOptions::default()
    });
    let contents: Vec<_> = (0..4)
        .map(|seed| copy(&store, &noise(seed, 900_000)))
        .collect();
    let imported = store
        .import_reference(&bed.write("file", &noise(9, 5000)))
        .unwrap();
    store.close().unwrap();
    for loss in ["removed", "overwritten", "emptied"] {
        let index = bed.home().join("index.redb");
        match loss {
            "removed" => fs::remove_file(&index).unwrap(),
            "overwritten" => fs::write(&index, noise(5, 100_000)).unwrap(),
            _ => fs::write(&index, "").unwrap(),
        }
        let store = bed.open();
        assert!(
            store.recovery().adopted_chunks > 12,
            "{loss}: {:?}",
            store.recovery()
        );
        for (seed, content) in contents.iter().enumerate() {
            assert_eq!(
                read_all(&store, *content),
                noise(seed as u64, 900_000),
                "{loss}"
            );
        }
        assert!(
            !store.has(&imported.content.id.first_blob()),
            "references are not in packs"
        );
        assert!(store.import_reference(&file("file")).is_ok());
        store.close().unwrap();
    }
}

#[test]
fn uncommitted_records_of_a_torn_tail_are_adopted_and_the_torn_one_is_not() {
    let bed = Bed::new();
    let store = bed.open();
    let durable = store.put(&noise(1, 5000)).unwrap();
    store.commit().unwrap();
    let [whole, torn] = [2, 3].map(|seed| store.put(&noise(seed, 5000)).unwrap());
    drop(store); // without a commit, as after a crash that spared the page cache
    let pack = &bed.packs()[0];
    let length = fs::metadata(pack).unwrap().len();
    File::options()
        .write(true)
        .open(pack)
        .unwrap()
        .set_len(length - 1)
        .unwrap();

    let store = bed.open();
    let expected = Recovery {
        adopted_chunks: 1,
        torn_bytes: 5051,
        ..Recovery::default()
    };
    assert_eq!(*store.recovery(), expected);
    assert!(store.read(&durable).is_ok() && store.read(&whole).is_ok() && !store.has(&torn));
    let later = store.put(&noise(4, 5000)).unwrap();
    assert_eq!(bed.packs().len(), 2, "nothing is appended to a torn tail");
    store.close().unwrap();
    let store = bed.open();
    assert_eq!(*store.recovery(), Recovery::default(), "accounted for");
    assert!(store.read(&later).is_ok());
}

#[test]
fn a_pack_that_lost_its_end_is_reported_and_the_rest_is_read() {
    let bed = Bed::new();
    let store = bed.open();
    let [first, second] = [1, 2].map(|seed| store.put(&noise(seed, 5000)).unwrap());
    store.close().unwrap();
    File::options()
        .write(true)
        .open(&bed.packs()[0])
        .unwrap()
        .set_len(5100)
        .unwrap();
    let store = bed.open();
    assert_eq!(store.recovery().short_packs, 1);
    assert!(store.read(&first).is_ok());
    assert!(matches!(
        store.read(&second),
        Err(crate::ReadError::Damaged { .. })
    ));
    store.put(&noise(2, 5000)).unwrap();
    assert!(
        store.read(&second).is_ok(),
        "fetched again, into another pack"
    );
}

#[test]
fn a_flipped_byte_and_a_lost_index_together_cost_one_chunk() {
    let bed = Bed::new();
    let store = bed.open();
    let ids: Vec<_> = (0..5)
        .map(|seed| store.put(&noise(seed, 5000)).unwrap())
        .collect();
    store.close().unwrap();
    fs::remove_file(bed.home().join("index.redb")).unwrap();
    flip(&bed.packs()[0], 16 + 2 * 5052 + 20);
    let store = bed.open();
    assert_eq!(store.recovery().adopted_chunks, 4);
    assert!(
        ids.iter()
            .enumerate()
            .all(|(at, id)| store.read(id).is_ok() == (at != 2))
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let bed = Bed::new();
    fs::write(bed.home(), "a file in the way").unwrap();
    let refused = Store::open(&bed.home(), key(), StoreOptions::default());
    assert!(matches!(refused, Err(OpenError::Io { path, .. }) if path.starts_with(bed.home())));
}

#[test]
fn a_newer_format_is_refused_with_advice() {
    let bed = Bed::new();
    bed.open().close().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let database = redb::Database::open(bed.home().join("index.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write
        .open_table(meta)
        .unwrap()
        .insert("format", 99)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let refused = Store::open(&bed.home(), key(), StoreOptions::default()).unwrap_err();
    assert!(
        refused.to_string().ends_with("update Wormhole"),
        "{refused}"
    );
}

#[test]
fn a_failed_fsync_stops_writing_but_not_reading() {
    let bed = Bed::new();
    let store = bed.open();
    let id = store.put(&noise(1, 1000)).unwrap();
    store.commit().unwrap();
    store.put(&noise(2, 1000)).unwrap();
    store.inner.packs.break_fsync();
    assert!(matches!(store.commit(), Err(WriteError::Io { .. })));
    assert!(matches!(store.commit(), Err(WriteError::Poisoned)));
    assert!(matches!(store.put(b"more"), Err(WriteError::Poisoned)));
    let import = store.import_reference(&file(".marker"));
    assert!(matches!(
        import,
        Err(ImportError::Write(WriteError::Poisoned))
    ));
    assert!(store.read(&id).is_ok());
    drop(store);
    assert!(bed.open().read(&id).is_ok());
}

#[test]
fn concurrent_writers_put_each_chunk_once_and_commit_together() {
    let bed = Bed::new();
    let store = bed.open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for seed in 0..100 {
                    store.put(&noise(seed, 2000)).unwrap();
                    if seed % 10 == 0 {
                        store.commit().unwrap();
                    }
                }
            });
        }
    });
    store.commit().unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.places, usage.pack_bytes), (100, 16 + 100 * 2052));
}

#[test]
fn zeros_of_a_hole_are_present_everywhere_and_take_no_space() {
    let bed = Bed::new();
    let store = bed.open();
    let zero = store.zero_chunk();
    assert!(store.has(&zero.id));
    assert!(store.read(&zero.id).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!(store.put(&vec![0; zero.len as usize]).unwrap(), zero.id);
    assert_eq!(store.usage().unwrap().pack_bytes, 0);
}
