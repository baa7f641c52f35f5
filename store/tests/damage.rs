//! A store whose files were damaged anywhere answers: with the bytes, or with an error.
//!
//! Bytes of the index and of the packs are overwritten at random places; whatever is still read
//! must be right. Seeds are in the message of a failure.

#![allow(clippy::unwrap_used)] // helpers of tests, which may fail loudly

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wormhole_store::{
    ChunkId, Content, ContentKey, FilePath, OpenError, RootId, ScrubReport, ScrubScope, Store,
    StoreOptions,
};

const ROOT: RootId = RootId::from_bytes([1; 16]);

fn open(home: &Path) -> Result<Store, OpenError> {
    Store::open(
        &home.join("store"),
        ContentKey::from_bytes([1; 32]),
        StoreOptions::default(),
    )
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Fills a store with chunks, files and a manifest; returns what is in it.
fn fill(home: &Path) -> (Vec<(ChunkId, Vec<u8>)>, Content) {
    let folder = home.join("folder");
    fs::create_dir_all(&folder).unwrap();
    let store = open(home).unwrap();
    store.add_root(&ROOT, &folder).unwrap();
    let mut chunks = Vec::new();
    for seed in 0..200 {
        let bytes = noise(seed, 500);
        if seed % 2 == 0 {
            let name = seed.to_string();
            fs::write(folder.join(&name), &bytes).unwrap();
            store.import_reference(&FilePath::new(ROOT, name)).unwrap();
        } else {
            store.put(&bytes).unwrap();
        }
        chunks.push((store.key().chunk_id(&bytes), bytes));
    }
    let content = store.import_copy(&mut &noise(999, 300_000)[..]).unwrap();
    store.close().unwrap();
    (chunks, content)
}

/// Uses every part of a store; whatever is read must be right.
fn exercise(home: &Path, chunks: &[(ChunkId, Vec<u8>)], content: &Content) {
    let Ok(store) = open(home) else { return };
    let right = |id: &ChunkId, bytes: &[u8]| store.read(id).is_ok_and(|found| found != bytes);
    assert!(
        !chunks.iter().any(|(id, bytes)| right(id, bytes)),
        "wrong bytes"
    );
    drop(store.holding(content));
    drop(store.add_root(&ROOT, &home.join("folder")));
    drop(store.import_reference(&FilePath::new(ROOT, "4")));
    drop(store.moved(&ROOT, Path::new("6"), Path::new("new/6")));
    let watch = &mut |_: &ScrubReport| ControlFlow::Continue(());
    drop(store.scrub(ScrubScope::Everything, None, watch));
    drop(store.sweep(&mut [*content].into_iter(), &mut || {
        ControlFlow::Continue(())
    }));
    drop(store.put(&noise(5000, 100)));
    drop(store.close());
}

#[test]
fn damage_anywhere_is_answered_with_an_error_or_with_the_bytes() {
    let original = tempfile::tempdir().unwrap();
    let (chunks, content) = fill(original.path());
    for seed in 0..60 {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("store/packs")).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for name in ["store/index.redb", "store/packs/00000001.pack"] {
            let mut bytes = fs::read(original.path().join(name)).unwrap();
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..bytes.len());
                let length = rng.random_range(1..64).min(bytes.len() - at);
                rng.fill_bytes(&mut bytes[at..at + length]);
            }
            fs::write(home.path().join(name), bytes).unwrap();
        }
        let outcome = std::panic::catch_unwind(|| exercise(home.path(), &chunks, &content));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
