//! Manifests come from other devices: whatever the bytes, decoding answers.

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::bend::{Budget, bend};
use crate::fixture::key;

/// Builds a manifest of chunks with these lengths; gives its content and blobs.
fn build(lengths: &[u32]) -> (Content, HashMap<ChunkId, Vec<u8>>) {
    let blobs = RefCell::new(HashMap::new());
    let keep = |blob: &[u8]| -> Result<ChunkId, TooManyPages> {
        let id = key().chunk_id(blob);
        blobs.borrow_mut().insert(id, blob.to_vec());
        Ok(id)
    };
    let mut builder = Builder::default();
    for (at, &len) in lengths.iter().enumerate() {
        let id = key().chunk_id(&at.to_le_bytes());
        builder.push(ChunkRef { id, len }, keep).unwrap();
    }
    let content = builder.finish(keep).unwrap();
    (content, blobs.into_inner())
}

fn root_of(lengths: &[u32]) -> Vec<u8> {
    let (content, mut blobs) = build(lengths);
    blobs.remove(&content.id.first_blob()).unwrap()
}

#[test]
fn a_manifest_of_many_pages_round_trips() {
    let lengths: Vec<u32> = (0..1300).map(|at| 1000 + at).collect();
    let (content, blobs) = build(&lengths);
    let root = Manifest::decode(&blobs[&content.id.first_blob()]).unwrap();
    assert_eq!(root.size(), content.size);
    assert_eq!(root.pages().len(), 3);
    let mut found = Vec::new();
    for (number, page) in root.pages().iter().enumerate() {
        found.extend(root.decode_page(number, &blobs[&page.id]).unwrap());
    }
    assert_eq!(
        found.iter().map(|chunk| chunk.len).collect::<Vec<_>>(),
        lengths
    );
}

#[test]
fn small_contents_have_no_manifest() {
    let (content, blobs) = build(&[65_536]);
    assert!(content.is_single() && blobs.is_empty());
    assert_eq!(build(&[]).0, Content::EMPTY);
    assert_eq!(build(&[65_537]).1.len(), 2, "a root and a page");
}

#[test]
fn every_limit_of_a_root_is_checked() {
    let good = root_of(&[100_000, 200_000]);
    assert!(Manifest::decode(&good).is_ok());
    let changed = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        Manifest::decode(&bad).unwrap_err()
    };
    assert_eq!(changed(0, b"XXXX"), ManifestError::Kind);
    assert_eq!(changed(5, &[1]), ManifestError::Kind, "reserved");
    assert_eq!(changed(4, &[9]), ManifestError::Chunking { version: 9 });
    assert!(matches!(
        changed(8, &1_u64.to_le_bytes()),
        ManifestError::Sum { .. }
    ));
    assert_eq!(changed(48, &[0; 8]), ManifestError::Entry { entry: 0 });
    assert_eq!(changed(48, &[0xff; 8]), ManifestError::Entry { entry: 0 });
    for len in [0, 15, 16, good.len() - 1] {
        assert_eq!(
            Manifest::decode(&good[..len]),
            Err(ManifestError::Length { len })
        );
    }
    let huge = vec![0; ROOT_HEADER + PAGE_REF * (MAX_PAGES + 1)];
    assert!(Manifest::decode(&huge).is_err());
}

#[test]
fn a_page_must_be_what_its_root_says() {
    let lengths = [1000; 600];
    let (content, blobs) = build(&lengths);
    let root = Manifest::decode(&blobs[&content.id.first_blob()]).unwrap();
    let [first, second] = [0, 1].map(|page| &blobs[&root.pages()[page].id]);
    assert!(matches!(
        root.decode_page(0, second),
        Err(ManifestError::Sum { .. })
    ));
    assert!(matches!(
        root.decode_page(2, first),
        Err(ManifestError::Sum { .. })
    ));
    // The same bytes in fewer, larger chunks: slots would no longer be where their number says.
    let mut short = PAGE_MAGIC.to_vec();
    for _ in 0..256 {
        short.extend_from_slice(&[7; 32]);
        short.extend_from_slice(&2000_u32.to_le_bytes());
    }
    assert_eq!(
        root.decode_page(0, &short),
        Err(ManifestError::ShortPage { found: 256 })
    );
}

#[test]
fn a_page_checks_its_entries() {
    let page = |len: u32| {
        let mut page = PAGE_MAGIC.to_vec();
        page.extend_from_slice(&[7; 32]);
        page.extend_from_slice(&len.to_le_bytes());
        decode_page(&page)
    };
    assert!(page(1 << 20).is_ok());
    assert_eq!(page(0), Err(ManifestError::Entry { entry: 0 }));
    assert_eq!(page((1 << 20) + 1), Err(ManifestError::Entry { entry: 0 }));
    assert_eq!(decode_page(b"WHP1"), Err(ManifestError::Length { len: 4 }));
    assert_eq!(decode_page(&[0; 40]), Err(ManifestError::Kind));
}

#[test]
fn a_file_beyond_the_limit_is_refused_while_it_is_built() {
    let keep = |blob: &[u8]| -> Result<ChunkId, TooManyPages> { Ok(key().chunk_id(blob)) };
    let mut builder = Builder {
        pages: vec![
            PageRef {
                id: ChunkId::from_bytes([0; 32]),
                bytes: 1
            };
            MAX_PAGES
        ],
        ..Builder::default()
    };
    let chunk = ChunkRef {
        id: ChunkId::from_bytes([1; 32]),
        len: 1 << 20,
    };
    let outcome = (0..PAGE_CHUNKS).try_for_each(|_| builder.push(chunk, keep));
    assert_eq!(outcome, Err(TooManyPages));
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        drop(Manifest::decode(&bytes));
        drop(decode_page(&bytes));
    }

    #[test]
    fn decoders_never_panic_on_nearly_good_bytes(at in 0..200_usize, byte: u8, cut in 0..200_usize) {
        let mut bytes = root_of(&[1_000_000; 600]);
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(root) = Manifest::decode(&bytes) {
            prop_assert!(root.size() > 65_536);
            drop(root.decode_page(at, &bytes));
        }
    }

    #[test]
    fn any_lengths_round_trip(lengths in proptest::collection::vec(1..=1_048_576_u32, 1..700)) {
        let (content, blobs) = build(&lengths);
        prop_assert_eq!(content.size, lengths.iter().map(|&len| u64::from(len)).sum::<u64>());
        if !content.is_single() {
            let root = Manifest::decode(&blobs[&content.id.first_blob()]).unwrap();
            let mut found = Vec::new();
            for (number, page) in root.pages().iter().enumerate() {
                found.extend(root.decode_page(number, &blobs[&page.id]).unwrap());
            }
            prop_assert_eq!(found.iter().map(|chunk| chunk.len).collect::<Vec<_>>(), lengths);
        }
    }
}

#[test]
fn bent_manifests_do_no_harm() {
    let lengths: Vec<u32> = (0..1_300).map(|at| 1_000 + at).collect();
    let (_, blobs) = build(&lengths);
    let mut right: Vec<_> = blobs.into_values().collect();
    right.sort_unstable();
    let root = root_of(&lengths);
    let manifest = Manifest::decode(&root).unwrap();
    let budget = Budget {
        fixed: 64 << 10,
        per_byte: 8,
    };
    bend("manifests", &right, "", budget, |bytes| {
        let _root = Manifest::decode(bytes);
        for number in 0..4 {
            let _page = manifest.decode_page(number, bytes);
        }
    });
}
