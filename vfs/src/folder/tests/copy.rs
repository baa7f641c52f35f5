//! Files that are made of what the device has: whole or in part, on every kind of disk, cut off and gone on with.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use wormhole_crdt::{EntryKey, Timestamp};
use wormhole_store::{
    ChunkSink, Content, ContentKey, FilePath, Lack, RootId, Slot, Store, StoreOptions, WriteError,
};

use super::super::beneath::Root;
use super::super::partial::{Durable, Fault, PartialFile, Want};
use super::super::temporary::Temporary;
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
        for name in ["folder", "there"] {
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

    /// The folder that files are made in, which may be another disk.
    fn there(&self) -> PathBuf {
        self.home.path().join("there")
    }

    fn tmp(&self) -> PathBuf {
        self.there().join(".wormhole/tmp")
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
            mode: wormhole_crdt::Mode::FILE,
            mtime: Timestamp(0),
            label: "copy".into(),
        };
        std::fs::create_dir_all(self.tmp()).unwrap();
        let root = Arc::new(Root::open(&self.there()).unwrap());
        let tmp = Temporary::open(root).unwrap();
        PartialFile::claim(want, &tmp, self.store.clone()).unwrap()
    }

    fn path(&self, partial: &PartialFile) -> PathBuf {
        self.tmp().join(partial.name())
    }

    /// Copies all of a content and gives the file.
    fn copied(&self, content: Content) -> PathBuf {
        let partial = self.partial(content);
        assert!(partial.prepare(&content, 0).unwrap().is_empty());
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
        let there = bed.there();
        let disk = Disk::mount_kind(kind, &there, "mode=0700");
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
    let there = bed.there();
    let disk = Disk::mount(&there, "size=9m");
    let partial = bed.partial(content);
    let refused = partial.prepare(&content, 0);
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
    let missing = bed.partial(content).prepare(&content, 0).unwrap().slots;
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
        let missing = partial.prepare(&content, 0);
        done.store(true, Ordering::Relaxed);
        missing.unwrap().slots
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
    assert_eq!(partial.prepare(&content, 0).unwrap().slots, away);
    for slot in away {
        partial.put(slot, &bytes[range(&slot)]).unwrap();
    }
    partial.seal(Durable::Now).unwrap();
    assert!(std::fs::read(bed.path(&partial)).unwrap() == bytes);
}

/// Contents of one chunk, of many, and of more than is read back.
const SIZES: [usize; 4] = [3_000, 64 << 10, 900_000, 3 << 20];

/// Writes all of a content as a fetch does.
fn written(bed: &Bed, bytes: &[u8]) -> PartialFile {
    let content = bed.import("file", bytes);
    std::fs::remove_file(bed.source("file")).unwrap();
    let partial = bed.partial(content);
    for slot in partial.prepare(&content, 0).unwrap().slots {
        partial.put(slot, &bytes[range(&slot)]).unwrap();
    }
    partial
}

#[test]
fn sealing_makes_no_file() {
    for size in SIZES {
        for durable in [Durable::Now, Durable::Later] {
            let bed = Bed::new();
            let partial = written(&bed, &noise(size));
            let path = bed.path(&partial);
            std::fs::remove_file(&path).unwrap();
            assert!(partial.seal(durable).is_err(), "{size} bytes");
            assert!(!path.exists(), "{size} bytes");
            std::fs::write(&path, vec![0; size]).unwrap();
            assert!(!partial.is_intact().unwrap(), "{size} bytes");
        }
    }
}

#[test]
fn what_is_sealed_is_what_lies_there() {
    for size in SIZES {
        let bed = Bed::new();
        let partial = written(&bed, &noise(size));
        let path = bed.path(&partial);
        partial.seal(Durable::Later).unwrap();
        assert!(partial.is_intact().unwrap());
        let other = File::options().write(true).open(&path).unwrap();
        other.write_all_at(b"other", 17).unwrap();
        assert!(!partial.is_intact().unwrap(), "{size} bytes");
    }
    for size in SIZES.into_iter().filter(|size| *size <= 1 << 20) {
        let bed = Bed::new();
        let partial = written(&bed, &noise(size));
        let path = bed.path(&partial);
        let other = File::options().write(true).open(&path).unwrap();
        other.write_all_at(b"other", 17).unwrap();
        assert!(partial.seal(Durable::Later).is_err(), "{size} bytes");
        assert!(!path.exists(), "{size} bytes");
    }
}

#[test]
fn what_was_not_written_whole_is_not_sealed() {
    let bed = Bed::new();
    let bytes = noise(900_000);
    let content = bed.import("file", &bytes);
    std::fs::remove_file(bed.source("file")).unwrap();
    let partial = bed.partial(content);
    let slots = partial.prepare(&content, 0).unwrap().slots;
    for slot in slots.into_iter().skip(1) {
        partial.put(slot, &bytes[range(&slot)]).unwrap();
    }
    assert!(partial.seal(Durable::Now).is_err());
}

#[test]
fn nothing_is_written_after_the_seal() {
    let bed = Bed::new();
    let bytes = noise(900_000);
    let partial = written(&bed, &bytes);
    partial.seal(Durable::Now).unwrap();
    let slot = bed.store.slots(&partial.want().content).unwrap().next();
    let slot = slot.unwrap().unwrap();
    assert!(
        partial
            .put(slot, &vec![0; slot.chunk.len as usize])
            .is_err()
    );
    assert!(std::fs::read(bed.path(&partial)).unwrap() == bytes);
}

/// Somebody gave one of their files the name of an unfinished one.
#[test]
fn a_file_with_another_name_is_never_written_into() {
    let bed = Bed::new();
    let bytes = noise(3_000);
    let content = bed.import("file", &bytes);
    let name = bed.path(&bed.partial(content));
    std::fs::write(bed.there().join("precious"), "precious").unwrap();
    std::fs::hard_link(bed.there().join("precious"), &name).unwrap();
    assert!(std::fs::read(bed.copied(content)).unwrap() == bytes);
    assert_eq!(
        std::fs::read(bed.there().join("precious")).unwrap(),
        b"precious"
    );
}

/// A device that has a manifest whose root lists one page as often as a root can list pages.
fn bomb(bed: &Bed) -> Content {
    const PAGES: usize = ((1 << 20) - 16) / 40;
    let key = bed.store.key();
    let chunk = noise(1 << 20);
    let mut page = b"WHP1".to_vec();
    for _ in 0..512 {
        page.extend(key.chunk_id(&chunk).as_bytes());
        page.extend((1_u32 << 20).to_le_bytes());
    }
    let covered = 512_u64 << 20;
    let size = PAGES as u64 * covered;
    let mut root = b"WHM1".to_vec();
    root.extend([1, 0, 0, 0]);
    root.extend(size.to_le_bytes());
    for _ in 0..PAGES {
        root.extend(key.chunk_id(&page).as_bytes());
        root.extend(covered.to_le_bytes());
    }
    for blob in [&page, &root] {
        bed.store.put(blob).unwrap();
    }
    let id = key.chunk_id(&root).into();
    Content { id, size }
}

#[test]
fn a_manifest_that_claims_more_than_the_disk_has_is_refused_before_anything_is_fetched() {
    let bed = Bed::new();
    let content = bomb(&bed);
    assert_eq!(bed.store.occupied_bytes(&content).unwrap(), content.size);
    let partial = bed.partial(content);
    let refused = partial.prepare(&content, 0);
    assert!(
        matches!(refused, Err(WriteError::NoSpace { .. })),
        "{refused:?}"
    );
    assert_eq!(partial.fault(), Some(Fault::NoSpace));
}

#[test]
fn however_much_a_manifest_claims_a_part_of_it_is_wanted_at_a_time() {
    let bed = Bed::new();
    let content = bomb(&bed);
    let partial = bed.partial(content);
    // As on a disk that has the room: the part after the first is not asked whether it fits.
    let lack = partial.prepare(&content, 16).unwrap();
    assert_eq!(lack.slots.len(), Lack::MAX_SLOTS);
    assert_eq!(lack.next, Some(32));
    let first = lack.slots.first().unwrap();
    assert_eq!((first.index, first.offset), (16 * 512, 16 * (512 << 20)));
}
