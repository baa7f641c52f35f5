//! Only verified bytes come out, from wherever they are.

use proptest::prelude::*;

use crate::fixture::{Bed, copy, flip, noise, read_all};
use crate::{Content, ReadError, StoreOptions};

#[test]
fn a_flipped_byte_is_found_and_the_chunk_counts_as_absent() {
    let bed = Bed::new();
    let store = bed.open();
    let id = store.put(&noise(1, 100_000)).unwrap();
    store.commit().unwrap();
    flip(&bed.packs()[0], 5000);
    assert!(matches!(store.read(&id), Err(ReadError::Damaged { .. })));
    assert!(!store.has(&id));
    assert!(matches!(store.read(&id), Err(ReadError::Absent { .. })));
    assert_eq!(
        store.take_damage().chunks,
        [id].into(),
        "no scrub can find it any more"
    );
    assert!(store.take_damage().is_empty(), "it was told");
    store.put(&noise(1, 100_000)).unwrap();
    assert_eq!(store.read(&id).unwrap(), noise(1, 100_000), "fetched again");
}

#[test]
fn a_damaged_pack_copy_falls_back_to_a_file() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(1, 50_000);
    let id = store.put(&bytes).unwrap();
    store.import_reference(&bed.write("same", &bytes)).unwrap();
    flip(&bed.packs()[0], 500);
    assert_eq!(store.read(&id).unwrap(), bytes);
}

#[test]
fn a_file_that_a_reader_finds_rotten_is_named() {
    let bed = Bed::new();
    let store = bed.open();
    let rotten = bed.write("photo", &noise(1, 50_000));
    let content = store.import_reference(&rotten).unwrap().content;
    flip(&bed.folder().join("photo"), 100);
    bed.pretend_unchanged(&store, "photo");
    assert!(store.read(&content.id.first_blob()).is_err());
    let damage = store.take_damage();
    assert_eq!(damage.files, [bed.folder().join("photo")].into());
    assert_eq!(damage.chunks, [content.id.first_blob()].into());
}

#[test]
fn a_pack_that_was_cut_off_is_damage_not_an_outage() {
    let bed = Bed::new();
    let store = bed.open();
    let id = store.put(&noise(1, 50_000)).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&bed.packs()[0])
        .unwrap()
        .set_len(100)
        .unwrap();
    assert!(matches!(
        store.read_encoded(&id),
        Err(ReadError::Damaged { .. })
    ));
}

#[test]
fn a_second_read_comes_from_ram_and_the_cache_is_bounded() {
    let bed = Bed::new();
    let store = bed.open_with(StoreOptions {
        cache_bytes: 1 << 20,
        ..StoreOptions::default()
    });
    let first = store.put(&noise(0, 100_000)).unwrap();
    store.read(&first).unwrap();
    flip(&bed.packs()[0], 5000);
    assert!(
        store.read(&first).is_ok(),
        "verified before, held in RAM since"
    );
    for seed in 1..40 {
        let id = store.put(&noise(seed, 100_000)).unwrap();
        store.read(&id).unwrap();
    }
    assert!(store.usage().unwrap().cache_bytes <= 1 << 20);
}

#[test]
fn what_another_device_sends_is_checked() {
    let (alice, bob) = (Bed::new(), Bed::new());
    let (alice, bob) = (alice.open(), bob.open());
    let text = "all work and no play makes jack a dull boy\n"
        .repeat(2000)
        .into_bytes();
    let id = alice.put(&text).unwrap();
    let sent = alice.read_encoded(&id).unwrap();
    for encoded in [sent.clone(), sent.clone().compressed()] {
        assert_eq!(bob.decode(id, &encoded).unwrap(), text);
    }
    let other = alice.put(b"something else").unwrap();
    assert!(matches!(
        bob.decode(other, &sent),
        Err(ReadError::Damaged { .. })
    ));
    assert!(matches!(
        bob.put_verified(other, &text),
        Err(crate::WriteError::Mismatch { .. })
    ));
    assert!(!bob.has(&other) && !bob.has(&id));
}

#[test]
fn a_missing_chunk_is_named() {
    let (alice, bob) = (Bed::new(), Bed::new());
    let (alice, bob) = (alice.open(), bob.open());
    let content = copy(&alice, &noise(9, 2_000_000));
    let root = alice.manifest(&content).unwrap();
    let page = root.pages()[0].id;
    assert!(
        matches!(bob.reader(content), Err(ReadError::Absent { id }) if id == content.id.first_blob())
    );
    bob.put(&alice.read(&content.id.first_blob()).unwrap())
        .unwrap();
    let reader = bob.reader(content).unwrap();
    let mut buffer = [0; 10];
    assert!(matches!(reader.read_at(0, &mut buffer), Err(ReadError::Absent { id }) if id == page));
    bob.put(&alice.read(&page).unwrap()).unwrap();
    let slot = reader.slot_at(1_000_000).unwrap().unwrap();
    let absent = reader.read_at(1_000_000, &mut buffer);
    assert!(matches!(absent, Err(ReadError::Absent { id }) if id == slot.chunk.id));
    bob.put(&alice.read(&slot.chunk.id).unwrap()).unwrap();
    assert_eq!(reader.read_at(1_000_000, &mut buffer).unwrap(), 10);
}

#[test]
fn the_ends_of_a_content_are_where_its_size_says() {
    let bed = Bed::new();
    let store = bed.open();
    for length in [1, 65_536, 65_537, 3_000_000] {
        let bytes = noise(4, length);
        let content = copy(&store, &bytes);
        assert_eq!(read_all(&store, content), bytes);
        let reader = store.reader(content).unwrap();
        let mut buffer = [9; 8];
        assert_eq!(reader.read_at(length as u64, &mut buffer).unwrap(), 0);
        assert_eq!(reader.read_at(u64::MAX, &mut buffer).unwrap(), 0);
        assert_eq!(reader.read_at(length as u64 - 1, &mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], bytes[length - 1]);
        assert_eq!(reader.slot_at(length as u64).unwrap(), None);
    }
    assert_eq!(
        store
            .reader(Content::EMPTY)
            .unwrap()
            .read_at(0, &mut [0; 4])
            .unwrap(),
        0
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_range_reads_as_the_bytes_that_were_put(
        length in 0..4_000_000_usize,
        ranges in proptest::collection::vec((0..4_100_000_u64, 0..900_000_usize), 1..8),
    ) {
        let bed = Bed::new();
        let store = bed.open();
        let bytes = noise(length as u64, length);
        let reader = store.reader(copy(&store, &bytes)).unwrap();
        for (offset, wanted) in ranges {
            let mut buffer = vec![0; wanted];
            let read = reader.read_at(offset, &mut buffer).unwrap();
            let start = usize::try_from(offset).unwrap().min(length);
            let end = (start + wanted).min(length);
            prop_assert_eq!(&buffer[..read], &bytes[start..end]);
        }
    }
}

#[test]
fn a_file_is_found_behind_any_number_that_are_gone() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(1, 1000);
    let mut id = None;
    for at in 0..100 {
        let name = bed.write(&format!("d/{at}"), &bytes);
        id = Some(store.import_reference(&name).unwrap().content.id);
    }
    for at in 1..100 {
        std::fs::remove_file(bed.folder().join(format!("d/{at}"))).unwrap();
    }
    let id = id.unwrap().first_blob();
    assert_eq!(store.read(&id).unwrap(), bytes, "the oldest is still there");
    std::fs::remove_file(bed.folder().join("d/0")).unwrap();
    store.close().unwrap();
    let gone = bed.open().read(&id);
    assert!(matches!(gone, Err(ReadError::Stale { .. })), "{gone:?}");
}
