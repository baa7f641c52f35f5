//! Steps in the store: importing a file by reference and by copy, keeping fetched chunks, reading.

use std::fs;

use criterion::{BatchSize, Criterion, Throughput};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use wormhole_store::{ContentKey, FilePath, RootId, Store, StoreOptions};

const LENGTH: usize = 64 << 20;
const CHUNK: usize = 256 << 10;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A store in a directory of its own, which lives as long as the pair.
fn fresh() -> (TempDir, Store) {
    let dir = TempDir::new().expect("a temporary directory");
    let key = ContentKey::from_bytes([7; 32]);
    let store = Store::open(dir.path(), key, StoreOptions::default()).expect("an empty store");
    (dir, store)
}

/// Cutting and hashing a file that stays where it is, and one that is copied into packs.
pub(crate) fn import(criterion: &mut Criterion) {
    let folder = TempDir::new().expect("a temporary directory");
    fs::write(folder.path().join("file"), noise(1, LENGTH)).expect("room for 64 MiB");
    let root = RootId::from_bytes([1; 16]);
    let mut group = criterion.benchmark_group("import 64 MiB");
    group
        .throughput(Throughput::Bytes(LENGTH as u64))
        .sample_size(10);
    group.bench_function("by reference", |bencher| {
        bencher.iter_batched(
            || {
                let (dir, store) = fresh();
                store.add_root(&root, folder.path()).expect("a root");
                (dir, store)
            },
            |(dir, store)| {
                let path = FilePath::new(root, "file");
                store
                    .import_reference(&path)
                    .expect("nobody changes the file");
                store.commit().expect("a good disk");
                (dir, store)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("by copy", |bencher| {
        let bytes = noise(1, LENGTH);
        bencher.iter_batched(
            fresh,
            |(dir, store)| {
                store
                    .import_copy(&mut bytes.as_slice())
                    .expect("a good disk");
                store.commit().expect("a good disk");
                (dir, store)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Keeping chunks that a peer sent: verified, appended, durable at the end.
pub(crate) fn keep(criterion: &mut Criterion) {
    let chunks: Vec<_> = (0..64).map(|seed| noise(seed, CHUNK)).collect();
    let mut group = criterion.benchmark_group("keep 64 chunks of 256 KiB");
    group
        .throughput(Throughput::Bytes((chunks.len() * CHUNK) as u64))
        .sample_size(10);
    group.bench_function("verified and durable", |bencher| {
        bencher.iter_batched(
            fresh,
            |(dir, store)| {
                for chunk in &chunks {
                    let id = store.key().chunk_id(chunk);
                    store.put_verified(id, chunk).expect("the id is right");
                }
                store.commit().expect("a good disk");
                (dir, store)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Reading a content at random places, and its chunks as they are served to a peer.
pub(crate) fn read(criterion: &mut Criterion) {
    let (_dir, store) = fresh();
    let content = store
        .import_copy(&mut noise(2, LENGTH).as_slice())
        .expect("a good disk");
    store.commit().expect("a good disk");
    let slots: Vec<_> = store
        .slots(&content)
        .expect("a manifest")
        .flatten()
        .collect();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(4_096));
    group.bench_function("4 KiB at a random place, from the cache", |bencher| {
        let reader = store.reader(content).expect("a manifest");
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut buffer = [0; 4_096];
        bencher.iter(|| {
            let offset = rng.next_u64() % (16 << 20);
            reader
                .read_at(offset, &mut buffer)
                .expect("the content is here")
        });
    });
    group
        .throughput(Throughput::Bytes(LENGTH as u64))
        .sample_size(10);
    group.bench_function("64 MiB as served to a peer", |bencher| {
        bencher.iter(|| {
            for slot in &slots {
                store
                    .read_encoded(&slot.chunk.id)
                    .expect("the chunk is here");
            }
        });
    });
    group.finish();
}
