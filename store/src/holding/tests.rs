//! What is said to be here is what is here.

use super::*;
use crate::fixture::{Bed, copy, noise};

/// Copies chosen blobs of a content into another store, as a fetch would.
fn send(from: &Store, to: &Store, ids: impl IntoIterator<Item = ChunkId>) {
    for id in ids {
        to.put_verified(id, &from.read(&id).unwrap()).unwrap();
    }
}

#[test]
fn a_content_arrives_root_first_then_pages_then_chunks() {
    let (alice, bob) = (Bed::new(), Bed::new());
    let (alice, bob) = (alice.open(), bob.open());
    let content = copy(&alice, &noise(1, 3_000_000));
    assert_eq!(alice.holding(&content).unwrap(), Holding::All);

    assert_eq!(bob.holding(&content).unwrap(), Holding::NoManifest);
    let root = bob.missing_manifest(&content).unwrap();
    assert_eq!(root, [content.id.first_blob()]);
    send(&alice, &bob, root);
    let pages = bob.missing_manifest(&content).unwrap();
    assert_eq!(pages.len(), 1);
    send(&alice, &bob, pages);
    assert!(bob.missing_manifest(&content).unwrap().is_empty());
    assert_eq!(bob.holding(&content).unwrap(), Holding::None);

    let slots: Vec<_> = bob.slots(&content).unwrap().map(Result::unwrap).collect();
    send(&alice, &bob, [slots[2].chunk.id]);
    let Holding::Some(bitmap) = bob.holding(&content).unwrap() else {
        panic!("one slot")
    };
    assert!(bitmap.get(2) && !bitmap.get(1) && bitmap.count() == 1);
    send(&alice, &bob, slots.iter().map(|slot| slot.chunk.id));
    assert_eq!(bob.holding(&content).unwrap(), Holding::All);
}

#[test]
fn single_and_empty_contents_need_no_manifest() {
    let bed = Bed::new();
    let store = bed.open();
    let small = Content {
        id: store.key().chunk_id(b"small").into(),
        size: 5,
    };
    assert!(store.missing_manifest(&small).unwrap().is_empty());
    assert_eq!(store.holding(&small).unwrap(), Holding::None);
    store.put(b"small").unwrap();
    assert_eq!(store.holding(&small).unwrap(), Holding::All);
    assert_eq!(store.holding(&Content::EMPTY).unwrap(), Holding::All);
    assert_eq!(store.slots(&Content::EMPTY).unwrap().count(), 0);
    assert_eq!(store.slots(&small).unwrap().count(), 1);
}

#[test]
fn slots_number_chunks_over_pages_without_gaps() {
    let bed = Bed::new();
    let store = bed.open();
    let bytes = noise(2, 5_000_000);
    let content = copy(&store, &bytes);
    let mut offset = 0;
    for (index, slot) in store.slots(&content).unwrap().enumerate() {
        let slot = slot.unwrap();
        assert_eq!((slot.index, slot.offset), (index as u64, offset));
        let end = offset + u64::from(slot.chunk.len);
        let expected = &bytes[usize::try_from(offset).unwrap()..usize::try_from(end).unwrap()];
        assert_eq!(store.read(&slot.chunk.id).unwrap(), expected);
        offset = end;
    }
    assert_eq!(offset, content.size);
}

#[test]
fn a_chunk_that_is_no_manifest_is_refused_as_one() {
    let bed = Bed::new();
    let store = bed.open();
    let id = store.put(&noise(3, 100_000)).unwrap();
    let content = Content {
        id: id.into(),
        size: 100_000,
    };
    assert!(matches!(
        store.manifest(&content),
        Err(ReadError::Manifest { .. })
    ));
    assert!(matches!(
        store.holding(&content),
        Err(ReadError::Manifest { .. })
    ));
    // Nor is a real manifest that of a content of another size.
    let real = copy(&store, &noise(4, 100_000));
    let lie = Content {
        size: real.size + 1,
        ..real
    };
    assert!(matches!(store.reader(lie), Err(ReadError::Manifest { .. })));
}

#[test]
fn a_bitmap_answers_beyond_its_end() {
    let bitmap = Bitmap::from_bytes(vec![0b101]);
    assert!(bitmap.get(0) && !bitmap.get(1) && bitmap.get(2));
    assert!(!bitmap.get(8) && !bitmap.get(u64::MAX));
}

/// A content whose root lists one page of 512 chunks as often as a root can.
fn one_page_often(store: &Store) -> Content {
    const LEN: u32 = 1 << 20;
    let pages = (LEN as usize - 16) / 40;
    let mut page = b"WHP1".to_vec();
    for n in 0..512_u32 {
        page.extend(store.key().chunk_id(&n.to_le_bytes()).as_bytes());
        page.extend(LEN.to_le_bytes());
    }
    let covered = 512 * u64::from(LEN);
    let size = pages as u64 * covered;
    let mut root = b"WHM1".to_vec();
    root.extend([crate::chunker::CDC_VERSION, 0, 0, 0]);
    root.extend(size.to_le_bytes());
    for _ in 0..pages {
        root.extend(store.key().chunk_id(&page).as_bytes());
        root.extend(covered.to_le_bytes());
    }
    for blob in [&page, &root] {
        store.put(blob).unwrap();
    }
    let id = store.key().chunk_id(&root).into();
    Content { id, size }
}

#[test]
fn a_page_that_is_listed_very_often_is_looked_at_once() {
    let bed = Bed::new();
    let store = bed.open();
    let content = one_page_often(&store);
    let (mut looked, mut pages) = (0, 0);
    store
        .each_page_once(&content, |chunks, times| {
            looked += chunks.len();
            pages += times;
        })
        .unwrap();
    assert_eq!((looked, pages), (512, 26_214));
    assert_eq!(store.holding(&content).unwrap(), Holding::None);
    assert_eq!(store.occupied_bytes(&content).unwrap(), content.size);
}

#[test]
fn a_content_is_wanted_a_part_at_a_time_and_each_chunk_once() {
    let bed = Bed::new();
    let store = bed.open();
    let content = one_page_often(&store);
    let lack = crate::ChunkSink::prepare(&store, &content, Lack::PAGES as u64).unwrap();
    assert_eq!(lack.slots.len(), 512);
    assert_eq!(lack.next, Some(2 * Lack::PAGES as u64));
    let slots = store.parts(&content, 26_200).unwrap();
    let offsets: Vec<u64> = slots.map(|slot| slot.unwrap().offset).collect();
    assert_eq!(offsets.len(), 14 * 512);
    assert_eq!(offsets.last(), Some(&(content.size - (1 << 20))));
}
