//! Files that are made of what the device has: whole or in part, on every kind of disk, cut off and gone on with.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use wormhole_crdt::{EntryKey, Timestamp};
use wormhole_store::{
    ChunkSink, Content, ContentKey, FilePath, RootId, Slot, Store, StoreOptions, WriteError,
};

use super::super::partial::{Durable, Fault, PartialFile, Want};
use super::attack::Disk;

const ROOT: RootId = RootId::from_bytes([1; 16]);
/// Large enough to be copied in step and past the page cache.
const LARGE: usize = 16 << 20;

/// A store, a folder that it refers into, and a place for unfinished files.
struct Bed {
    home: TempDir,
    store: Store,
}

impl Bed {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for name in ["folder", "tmp"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        let key = ContentKey::from_bytes([7; 32]);
        let store = Store::open(&home.path().join("store"), key, StoreOptions::default()).unwrap();
        store.add_root(&ROOT, &home.path().join("folder")).unwrap();
        Self { home, store }
    }

    fn source(&self, name: &str) -> PathBuf {
        self.home.path().join("folder").join(name)
    }

    fn tmp(&self) -> PathBuf {
        self.home.path().join("tmp")
    }

    /// Writes a file into the folder and imports it.
    fn import(&self, name: &str, bytes: &[u8]) -> Content {
        std::fs::write(self.source(name), bytes).unwrap();
        let imported = self.store.import_reference(&FilePath::new(ROOT, name));
        imported.unwrap().content
    }

    fn partial(&self, content: Content) -> PartialFile {
        let want = Want {
            key: EntryKey::ROOT,
            content,
            executable: false,
            mtime: Timestamp(0),
            label: "copy".into(),
        };
        let tmp: OwnedFd = File::open(self.tmp()).unwrap().into();
        PartialFile::new(want, Arc::new(tmp), self.store.clone())
    }

    fn path(&self, partial: &PartialFile) -> PathBuf {
        self.tmp().join(partial.name())
    }

    /// Copies all of a content and gives the file.
    fn copied(&self, content: Content) -> PathBuf {
        let partial = self.partial(content);
        assert!(partial.prepare(&content).unwrap().is_empty());
        partial.seal(Durable::Now).unwrap();
        self.path(&partial)
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
    bytes
}

fn range(slot: &Slot) -> std::ops::Range<usize> {
    let start = usize::try_from(slot.offset).unwrap();
    start..start + slot.chunk.len as usize
}

#[test]
fn a_copy_is_the_same_whatever_its_size() {
    let bed = Bed::new();
    let odd = [0, 1, 4095, 4096, 4097];
    let sizes = odd
        .map(|more| LARGE + more)
        .into_iter()
        .chain(odd)
        .chain([LARGE - 1]);
    for size in sizes {
        let bytes = noise(size);
        let content = bed.import("file", &bytes);
        let copy = std::fs::read(bed.copied(content)).unwrap();
        assert!(copy == bytes, "{size} bytes");
    }
}

#[test]
fn a_disk_without_direct_writes_gets_the_same_copy() {
    for kind in ["ramfs", "tmpfs"] {
        let bed = Bed::new();
        let bytes = noise(LARGE + 5000);
        let content = bed.import("file", &bytes);
        let tmp = bed.tmp();
        let disk = Disk::mount_kind(kind, &tmp, "mode=0700");
        assert!(
            std::fs::read(bed.copied(content)).unwrap() == bytes,
            "{kind}"
        );
        drop(disk);
    }
}

#[test]
fn a_large_copy_on_a_full_disk_says_so() {
    let bed = Bed::new();
    let content = bed.import("file", &noise(LARGE));
    let tmp = bed.tmp();
    let disk = Disk::mount(&tmp, "size=9m");
    let partial = bed.partial(content);
    let refused = partial.prepare(&content);
    assert!(
        matches!(refused, Err(WriteError::NoSpace { .. })),
        "{refused:?}"
    );
    assert_eq!(partial.fault(), Some(Fault::NoSpace));
    drop(disk);
}

#[test]
fn zeros_stay_holes_in_a_large_copy() {
    let bed = Bed::new();
    let mut bytes = vec![0; 4 * LARGE];
    bytes[..100].fill(1);
    bytes[2 * LARGE + 12_345..][..2_000_000].copy_from_slice(&noise(2_000_000));
    let content = bed.import("file", &bytes);
    let copy = bed.copied(content);
    assert!(std::fs::read(&copy).unwrap() == bytes);
    let occupied = copy.metadata().unwrap().blocks() * 512;
    assert!(occupied < 8 << 20, "{occupied} bytes for 2 MB of data");
}

/// The interrupted copy left its first half, and one chunk of that is not what it should be.
#[test]
fn an_interrupted_copy_goes_on_where_it_stopped() {
    let bed = Bed::new();
    let bytes = noise(LARGE + 4097);
    let content = bed.import("file", &bytes);
    let left = bed.path(&bed.partial(content));
    let half = File::create(&left).unwrap();
    half.write_all_at(&bytes[..LARGE / 2], 0).unwrap();
    half.write_all_at(b"garbage", 5_000_000).unwrap();
    let is_left = |slot: &Slot| {
        let range = range(slot);
        range.end <= LARGE / 2 && !range.contains(&5_000_000)
    };
    // With no other source it has what was left, and nothing else.
    std::fs::rename(bed.source("file"), bed.home.path().join("away")).unwrap();
    let missing = bed.partial(content).prepare(&content).unwrap();
    let slots = bed.store.slots(&content).unwrap().map(Result::unwrap);
    let rest: Vec<Slot> = slots.filter(|slot| !is_left(slot)).collect();
    assert_eq!(missing, rest);
    // With the source back, it is completed.
    std::fs::rename(bed.home.path().join("away"), bed.source("file")).unwrap();
    bed.import("again", &bytes);
    assert!(std::fs::read(bed.copied(content)).unwrap() == bytes);
}

/// Somebody writes to the source all the time: what is not asked of the network is right nevertheless.
#[test]
fn a_source_that_changes_while_it_is_copied_is_fetched_instead() {
    let bed = Bed::new();
    let bytes = noise(LARGE + 1);
    let content = bed.import("file", &bytes);
    let source = File::options()
        .write(true)
        .open(bed.source("file"))
        .unwrap();
    let partial = bed.partial(content);
    let (begun, done) = (bed.path(&partial), AtomicBool::new(false));
    let missing = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if begun.metadata().is_ok_and(|now| now.blocks() > 0) {
                    source
                        .write_all_at(b"changed", bytes.len() as u64 - 7)
                        .unwrap();
                }
            }
        });
        let missing = partial.prepare(&content);
        done.store(true, Ordering::Relaxed);
        missing.unwrap()
    });
    println!("{} slots were too late", missing.len());
    for slot in missing {
        partial.put(slot, &bytes[range(&slot)]).unwrap();
    }
    partial.seal(Durable::Now).unwrap();
    assert!(std::fs::read(bed.path(&partial)).unwrap() == bytes);
}

#[test]
fn what_is_not_here_is_asked_for_between_what_is() {
    let bed = Bed::new();
    let bytes = noise(LARGE + 300_000);
    let content = bed.import("file", &bytes);
    let slots: Vec<Slot> = bed
        .store
        .slots(&content)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    std::fs::remove_file(bed.source("file")).unwrap();
    let (away, here): (Vec<Slot>, Vec<Slot>) = slots.iter().partition(|slot| slot.index % 3 == 1);
    for slot in here {
        bed.store.put(&bytes[range(&slot)]).unwrap();
    }
    let partial = bed.partial(content);
    assert_eq!(partial.prepare(&content).unwrap(), away);
    for slot in away {
        partial.put(slot, &bytes[range(&slot)]).unwrap();
    }
    partial.seal(Durable::Now).unwrap();
    assert!(std::fs::read(bed.path(&partial)).unwrap() == bytes);
}
