//! Reading: verified bytes of a chunk from wherever it is, and of a content at any offset.
//!
//! Nothing leaves this module that was not compared with its id since it was read from disk. A
//! place that fails is forgotten and the next one is tried: RAM cache, pack, then the newest
//! references. Chunks are read whole (at most 1 MiB, 0.2 ms to hash); there is one copy from the
//! page cache, and cache hits share it. What is read only to be copied or checked goes past the page
//! cache: see `once`.

mod content;
mod once;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

pub use self::content::ContentReader;
use crate::codec::{Codec, Encoded};
use crate::error::{IndexError, ReadError};
use crate::id::ChunkId;
use crate::index::{FilePlace, NodeId, PackPlace, Place};
use crate::reference::open::{Refused, open_below};
use crate::reference::tree::{self, Location};
use crate::stamp::FileStamp;
use crate::store::Store;

/// References that may fail before a chunk counts as unreadable. Only a user who changes many equal
/// files at once makes more than one fail. Files that are not where they were do not count: of many
/// equal ones in a directory that was renamed a moment ago, the only one left may be the oldest.
const MAX_TRIES: usize = 16;

/// References looked up at once, at first; each further time more.
const BATCH: usize = 16;
const BATCH_GROWTH: usize = 4;

/// What becomes of bytes that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Somebody may want them again soon.
    Often,
    /// They are copied or checked, and that is that: they are not worth their room in the page cache.
    Once,
}

/// Why one place did not give the chunk.
pub(crate) enum Miss {
    /// A reference no longer holds.
    Stale,
    /// No file, or another one, is where the reference says; it may have been renamed just now.
    Gone,
    /// The file's bytes are not the chunk, although the file system notes no change of it.
    Rotten { path: PathBuf },
    /// The pack's bytes are not the chunk.
    Damaged,
    /// Out of reach for now.
    Unreachable { path: PathBuf, source: io::Error },
}

impl Store {
    /// Whether the chunk is here, by the index alone: a reference may turn out stale when read.
    ///
    /// An index that cannot be read has nothing; the cause shows at the next call that can say so.
    pub fn has(&self, id: &ChunkId) -> bool {
        let has = self.locate_chunk(id);
        has.inspect_err(|error| tracing::warn!(%id, %error, "index unreadable"))
            .unwrap_or(false)
    }

    pub(crate) fn locate_chunk(&self, id: &ChunkId) -> Result<bool, IndexError> {
        if *id == self.inner.zero.chunk.id {
            return Ok(true);
        }
        let layers = self.inner.index.read();
        if layers.pack_place(id)?.is_some() {
            return Ok(true);
        }
        for place in layers.file_places(id)? {
            if tree::locate(&layers, place?.node)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The verified bytes of a chunk.
    ///
    /// # Errors
    /// See [`ReadError`]. After `Stale` and `Damaged` the chunk counts as absent, unless it has
    /// another place.
    pub fn read(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.at_hand(id) {
            return Ok(bytes);
        }
        let (_, plain) = self.read_places(id, Use::Often)?;
        self.inner.cache.insert(*id, plain.clone());
        Ok(plain)
    }

    /// The verified bytes of a chunk that is not needed again soon: like [`read`](Self::read), but
    /// not cached, so that copying a large file does not drop what others read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_once(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.at_hand(id) {
            return Ok(bytes);
        }
        Ok(self.read_places(id, Use::Once)?.1)
    }

    /// A chunk as it is stored, for sending: compressed if it is so on disk. Verified like
    /// [`read`](Self::read), but not cached: what is served once is seldom served again at once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_encoded(&self, id: &ChunkId) -> Result<Encoded, ReadError> {
        let raw = |bytes: Bytes| {
            let len = u32::try_from(bytes.len()).expect("a chunk is at most 1 MiB");
            Encoded {
                codec: Codec::Raw,
                len,
                bytes,
            }
        };
        if let Some(bytes) = self.at_hand(id) {
            return Ok(raw(bytes));
        }
        let (encoded, plain) = self.read_places(id, Use::Often)?;
        Ok(encoded.unwrap_or_else(|| raw(plain)))
    }

    /// What needs no disk: the chunk of zeros, and what was read of late.
    fn at_hand(&self, id: &ChunkId) -> Option<Bytes> {
        if *id == self.inner.zero.chunk.id {
            return Some(self.inner.zero.bytes.clone());
        }
        self.inner.cache.get(id)
    }

    /// Decodes what another device sent as chunk `id`. Allocates at most 1 MiB, whatever is sent.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if it is not that chunk: blame the sender, nothing is wrong here.
    pub fn decode(&self, id: ChunkId, encoded: &Encoded) -> Result<Bytes, ReadError> {
        let plain = encoded
            .plain()
            .filter(|plain| self.inner.key.chunk_id(plain) == id);
        plain.ok_or(ReadError::Damaged { id })
    }

    /// Tries the places of a chunk in turn. Gives the stored form too if it came from a pack.
    fn read_places(&self, id: &ChunkId, usage: Use) -> Result<(Option<Encoded>, Bytes), ReadError> {
        let mut why = ReadError::Absent { id: *id };
        let pack = self.inner.index.read().pack_place(id)?;
        if let Some(place) = pack {
            match self.read_pack(id, place) {
                Ok((encoded, plain)) => return Ok((Some(encoded), plain)),
                Err(miss) => why = miss.into_error(id),
            }
        }
        let (mut batch, mut below, mut tries) = (BATCH, NodeId::LAST, 0);
        loop {
            let places = self.newest_references(id, below, batch)?;
            let Some(last) = places.last() else {
                return Err(why);
            };
            below = last.node;
            for place in places {
                match self.read_reference(id, place, usage)? {
                    Ok(plain) => return Ok((None, plain)),
                    Err(Miss::Gone) if matches!(why, ReadError::Absent { .. }) => {
                        why = Miss::Gone.into_error(id);
                    }
                    Err(Miss::Gone) => {}
                    Err(miss) => {
                        tries += 1;
                        // A damaged copy is worse news than a file that has changed.
                        if !matches!((&miss, &why), (Miss::Stale, ReadError::Damaged { .. })) {
                            why = miss.into_error(id);
                        }
                    }
                }
                if tries == MAX_TRIES {
                    return Err(why);
                }
            }
            batch *= BATCH_GROWTH;
        }
    }

    /// At most `limit` references of a chunk into files that have a path, newest first, of nodes
    /// below `below`.
    fn newest_references(
        &self,
        id: &ChunkId,
        below: NodeId,
        limit: usize,
    ) -> Result<Vec<FilePlace>, IndexError> {
        let layers = self.inner.index.read();
        let mut places = Vec::new();
        for place in layers.file_places(id)? {
            let place = place?;
            if place.node < below && tree::locate(&layers, place.node)?.is_some() {
                places.push(place);
                if places.len() == limit {
                    break;
                }
            }
        }
        Ok(places)
    }

    /// Reads a record and verifies it. One that is damaged is forgotten.
    pub(crate) fn read_pack(
        &self,
        id: &ChunkId,
        place: PackPlace,
    ) -> Result<(Encoded, Bytes), Miss> {
        let mut place = place;
        loop {
            let read = self.inner.packs.read(&place);
            // Compaction may have moved the record since the index was asked.
            let moved = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            let now = self.inner.index.read().pack_place(id);
            match (read, now) {
                (Ok(encoded), _) => {
                    if let Ok(plain) = self.decode(*id, &encoded) {
                        return Ok((encoded, plain));
                    }
                    break;
                }
                (Err(error), Ok(Some(now))) if moved(&error) && now.pack != place.pack => {
                    place = now;
                }
                (Err(error), _)
                    if moved(&error) || error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    break;
                }
                (Err(source), _) => {
                    let path = self.inner.packs.path(place.pack);
                    return Err(Miss::Unreachable { path, source });
                }
            }
        }
        tracing::error!(%id, pack = %self.inner.packs.path(place.pack).display(), "chunk damaged");
        self.forget_place(id, Place::Pack(place));
        self.inner.found.add(*id, None);
        Err(Miss::Damaged)
    }

    /// Reads a range of a file and verifies it. A reference that does not hold is forgotten.
    pub(crate) fn read_reference(
        &self,
        id: &ChunkId,
        place: FilePlace,
        usage: Use,
    ) -> Result<Result<Bytes, Miss>, IndexError> {
        let location = {
            let layers = self.inner.index.read();
            tree::locate(&layers, place.node)?
        };
        let Some(location) = location else {
            return Ok(Err(Miss::Gone));
        };
        let unreachable = |source| {
            let path = location.full_path();
            Ok(Err(Miss::Unreachable { path, source }))
        };
        let file = match open_below(&location.directory, &location.path) {
            Ok(file) => file,
            // Perhaps it was renamed a moment ago, and its references will follow when the folder says so.
            Err(Refused::Gone(_)) => return Ok(Err(Miss::Gone)),
            Err(refused @ (Refused::Root(_) | Refused::Io(_))) => {
                return unreachable(refused.into_io());
            }
        };
        match read_unchanged(&file, &location, place, usage) {
            Ok(Sight::Unchanged(bytes, _)) if self.inner.key.chunk_id(&bytes) == *id => {
                Ok(Ok(bytes))
            }
            Ok(Sight::Unchanged(_, stamp)) => {
                // The stat says unchanged, the bytes say otherwise: this range only is not to be
                // trusted.
                self.forget_place(id, Place::File(place));
                // A program that sets a file's time back cannot set back when it did so.
                if location.node.stamp != Some(stamp) {
                    return Ok(Err(Miss::Stale));
                }
                let path = location.full_path();
                self.inner.found.add(*id, Some(path.clone()));
                Ok(Err(Miss::Rotten { path }))
            }
            Ok(Sight::Changed) => {
                self.forget_file(place.node, &location)?;
                Ok(Err(Miss::Stale))
            }
            // As if it were gone: ours may stand under another name.
            Ok(Sight::Another) => Ok(Err(Miss::Gone)),
            Err(source) => unreachable(source),
        }
    }

    /// Forgets a place, unless it has been written anew meanwhile.
    pub(crate) fn forget_place(&self, id: &ChunkId, place: Place) {
        let node = match place {
            Place::Pack(_) => NodeId::NONE,
            Place::File(place) => place.node,
        };
        self.inner.cache.remove(id);
        let mut layers = self.inner.index.update();
        let same = match (layers.pack_place(id), place) {
            (Ok(Some(now)), Place::Pack(place)) => {
                (now.pack, now.offset) == (place.pack, place.offset)
            }
            (Ok(None) | Err(_), Place::Pack(_)) => false,
            (_, Place::File(_)) => true,
        };
        if same {
            layers.set_place(*id, node, None);
        }
    }

    /// Forgets a file that has changed, unless it has been imported anew meanwhile.
    pub(crate) fn forget_file(&self, id: NodeId, seen: &Location) -> Result<(), IndexError> {
        let mut layers = self.inner.index.update();
        if layers.node(id)?.as_ref() == Some(&seen.node) {
            tree::forget(&mut layers, id)?;
        }
        Ok(())
    }
}

impl Miss {
    fn into_error(self, id: &ChunkId) -> ReadError {
        match self {
            Self::Stale | Self::Gone | Self::Rotten { .. } => ReadError::Stale { id: *id },
            Self::Damaged => ReadError::Damaged { id: *id },
            Self::Unreachable { path, source } => ReadError::Io { path, source },
        }
    }
}

/// What an opened file turned out to be.
enum Sight {
    /// It looked as it did when it was imported, before and after this was read: so.
    Unchanged(Bytes, FileStamp),
    /// The same file, but written to since.
    Changed,
    /// Another file has its name.
    Another,
}

fn read_unchanged(
    file: &File,
    location: &Location,
    place: FilePlace,
    usage: Use,
) -> io::Result<Sight> {
    let before = file.metadata()?;
    let stamp = FileStamp::of(&before);
    let Some(expected) = location.node.stamp.filter(|_| before.is_file()) else {
        return Ok(Sight::Another);
    };
    if expected.ino != stamp.ino {
        return Ok(Sight::Another);
    }
    if !expected.may_match(&stamp) {
        return Ok(Sight::Changed);
    }
    let mut bytes = vec![0; place.len as usize];
    let read = match usage {
        Use::Often => file.read_exact_at(&mut bytes, place.offset),
        Use::Once => once::read_exact_at(file, &mut bytes, place.offset),
    };
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Sight::Changed),
        outcome => outcome?,
    }
    Ok(if stamp.may_match(&FileStamp::of(&file.metadata()?)) {
        Sight::Unchanged(bytes.into(), stamp)
    } else {
        Sight::Changed
    })
}

#[cfg(test)]
mod tests;
