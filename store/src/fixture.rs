//! What unit tests of this crate stand on: a store in a temporary directory with one root, and
//! bytes that are the same in every run.

use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::index::Node;
use crate::reference::tree;
use crate::{Content, ContentKey, FilePath, RootId, Store, StoreOptions};

pub(crate) const ROOT: RootId = RootId::from_bytes([1; 16]);

/// A directory with a store (`home`) and a synced folder (`folder`) in it.
pub(crate) struct Bed {
    directory: TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("folder")).unwrap();
        // Keeps the folder from looking like a mount point without its disk.
        fs::write(directory.path().join("folder/.marker"), "").unwrap();
        Self { directory }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.directory.path().join("folder")
    }

    pub(crate) fn open(&self) -> Store {
        self.open_with(StoreOptions::default())
    }

    pub(crate) fn open_with(&self, options: StoreOptions) -> Store {
        let store = Store::open(&self.home(), key(), options).unwrap();
        store.add_root(&ROOT, &self.folder()).unwrap();
        store
    }

    /// Writes a file into the folder and returns its name for the store.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> FilePath {
        let full = self.folder().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, bytes).unwrap();
        file(path)
    }

    /// Gives a file's node the stamp that the file has now, as if it had not been written to.
    pub(crate) fn pretend_unchanged(&self, store: &Store, path: &str) {
        let metadata = fs::metadata(self.folder().join(path)).unwrap();
        let mut layers = store.inner.index.update();
        let id = tree::find(&layers, &ROOT, Path::new(path))
            .unwrap()
            .unwrap();
        let node = layers.node(id).unwrap().unwrap();
        let stamp = Some(crate::FileStamp::of(&metadata));
        layers.set_node(id, Some(Node { stamp, ..node }));
    }

    /// The pack files, in order.
    pub(crate) fn packs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home().join("packs")).unwrap();
        let mut packs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    }
}

pub(crate) fn key() -> ContentKey {
    ContentKey::from_bytes([42; 32])
}

pub(crate) fn file(path: &str) -> FilePath {
    FilePath::new(ROOT, path)
}

/// Random bytes, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Puts bytes as a content of their own.
pub(crate) fn copy(store: &Store, mut bytes: &[u8]) -> Content {
    store.import_copy(&mut bytes).unwrap()
}

/// Everything a content consists of, read at once.
pub(crate) fn read_all(store: &Store, content: Content) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
    let read = store
        .reader(content)
        .unwrap()
        .read_at(0, &mut bytes)
        .unwrap();
    assert_eq!(read, bytes.len());
    bytes
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}
