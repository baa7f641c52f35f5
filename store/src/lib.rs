//! Bytes: chunks, packs, manifests, and references into synced files.
//!
//! The room that knows neither names nor peers. A file's bytes are cut into chunks by content,
//! each named by a keyed hash; the list of chunks is a manifest, stored in pages like chunks; the
//! whole is a [`Content`]. Chunks lie in append-only packs, or stay where they are, in the files of
//! a synced folder, and are referred to. Every byte that comes out was compared with its name.
//!
//! [`Store`] is the handle; [`ContentReader`] reads a content at any offset; [`ChunkSink`] is where
//! a fetcher delivers. All of it is synchronous and may be called from any thread.
//!
//! What a store promises:
//! * After [`Store::commit`] returned, a power cut loses nothing that was kept before the call.
//! * Bytes are kept once, however often they occur.
//! * Damage on disk is found when it is read, reported, and never passed on.
//! * Memory does not grow with the size of a file.
//!
//! ```
//! use wormhole_store::{Content, ContentKey, FilePath, RootId, Store, StoreOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let home = tempfile::tempdir()?;
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("song.flac"), vec![7; 3_000_000])?;
//!
//! let key = ContentKey::from_bytes([42; 32]);
//! let store = Store::open(home.path(), key, StoreOptions::default())?;
//! let root = RootId::from_bytes([1; 16]);
//! store.add_root(&root, folder.path())?;
//!
//! // The file is cut, hashed and referred to; nothing is copied.
//! let song = store.import_reference(&FilePath::new(root, "song.flac"))?;
//! // The same bytes from anywhere have the same name.
//! let copy: Content = store.import_copy(&mut &vec![7; 3_000_000][..])?;
//! assert_eq!(song.content, copy);
//! store.commit()?; // durable from here on
//!
//! let mut bytes = [0; 10];
//! let reader = store.reader(song.content)?;
//! assert_eq!(reader.read_at(2_999_995, &mut bytes)?, 5);
//! assert_eq!(bytes[..5], [7; 5]);
//! # Ok(())
//! # }
//! ```

#[cfg(test)]
#[path = "../../tests/bend.rs"]
mod bend;
mod cache;
mod chunker;
mod codec;
mod damage;
mod error;
mod evict;
#[cfg(test)]
mod fixture;
mod holding;
mod id;
mod import;
mod index;
mod manifest;
mod pack;
mod reader;
mod reference;
mod sink;
mod stamp;
mod store;
mod verify;

pub use self::chunker::{AVG_CHUNK, MAX_CHUNK, MIN_CHUNK};
pub use self::codec::{Codec, Encoded};
pub use self::damage::Damage;
pub use self::error::{ImportError, IndexError, OpenError, PathError, ReadError, WriteError};
pub use self::evict::Swept;
pub use self::holding::{Bitmap, Holding, Slots};
pub use self::id::{ChunkId, Content, ContentId, ContentKey, ParseIdError, RootId};
pub use self::import::Imported;
pub use self::manifest::{
    ChunkRef, Manifest, ManifestError, PAGE_CHUNKS, PageRef, Slot, decode_page,
};
pub use self::reader::ContentReader;
pub use self::reference::FilePath;
pub use self::sink::{ChunkSink, FetchJob, Lack};
pub use self::stamp::FileStamp;
pub use self::store::{Recovery, Store, StoreOptions, Usage};
pub use self::verify::{ScrubPosition, ScrubReport, ScrubScope};
