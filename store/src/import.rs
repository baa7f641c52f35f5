//! Taking files in: cut, hash, and record where the chunks are.
//!
//! [`Store::import_reference`] copies nothing: the file itself is where its chunks are.
//! [`Store::import_copy`] puts the bytes into packs. Both stream; memory is one window of at most
//! 4 MiB (three, where a large file is read and hashed on two threads: `segment`) and one manifest
//! page, whatever the size. Holes cost nothing (`extent`). Nothing here is durable until `commit`.

mod extent;
mod segment;
mod tree;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use self::extent::Extents;
use crate::chunker::{MAX_CHUNK, Window};
use crate::error::{ImportError, WriteError};
use crate::id::{ChunkId, Content};
use crate::index::{FilePlace, NodeId, Place};
use crate::manifest::{Builder, ChunkRef, TooManyPages};
use crate::reference::open::open_below;
use crate::reference::{FilePath, components, tree as files};
use crate::stamp::FileStamp;
use crate::store::{Store, Ticket};

/// What became of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Imported {
    /// Its bytes' name.
    pub content: Content,
    /// What the file looked like, before and after it was read.
    pub stamp: FileStamp,
}

/// A file that is open for import.
struct Source {
    file: File,
    path: PathBuf,
    stamp: FileStamp,
    blocks: u64,
}

impl Source {
    fn failed(&self, source: io::Error) -> ImportError {
        ImportError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

impl Store {
    /// Cuts and hashes a file and records its chunks as references into it. Nothing is copied;
    /// only the manifest of a file over 64 KiB goes into a pack.
    ///
    /// Costs 0.75 to 1.1 CPU s/GiB. Holes are not read. Not durable until
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`ImportError::Changed`] if the file's stamp is not the same before and after. Nothing
    /// refers to the file then.
    pub fn import_reference(&self, file: &FilePath) -> Result<Imported, ImportError> {
        self.check_writable()?;
        let source = self.open_source(file)?;
        let ticket = self.inner.in_flight.begin(&self.inner.index);
        let node = self.node_for(file, &source.stamp)?;
        let content = self.cut_source(&source, node)?;
        self.bind(file, &source, node, ticket)?;
        Ok(Imported {
            content,
            stamp: source.stamp,
        })
    }

    /// Cuts, hashes and copies everything that `reader` gives into packs.
    ///
    /// # Errors
    /// Reading failed ([`ImportError::Io`] with an empty path), or writing did.
    pub fn import_copy(&self, reader: &mut dyn Read) -> Result<Content, ImportError> {
        self.check_writable()?;
        let _ticket = self.inner.in_flight.begin(&self.inner.index);
        let failed = |source| ImportError::Io {
            path: PathBuf::new(),
            source,
        };
        let mut window = Window::new(None, |_, buffer: &mut [u8]| reader.read(buffer));
        let mut builder = Builder::default();
        loop {
            let bytes = window.chunk().map_err(failed)?;
            if bytes.is_empty() {
                break;
            }
            let chunk = ChunkRef {
                id: self.put(bytes)?,
                len: length(bytes),
            };
            window.advance(chunk.len as usize);
            builder.push(chunk, |blob| self.keep(blob))?;
        }
        builder.finish(|blob| self.keep(blob))
    }

    /// Records a file that was written from the chunks of `content` as one more place of them.
    /// Their pack copies become evictable at a later sweep.
    ///
    /// Trusts the caller that the bytes were verified while they were written; a lie is found
    /// when the chunks are read.
    ///
    /// # Errors
    /// The manifest is not here, or the file is not there or has another size.
    pub fn adopt(&self, file: &FilePath, content: &Content) -> Result<FileStamp, ImportError> {
        self.check_writable()?;
        let source = self.open_source(file)?;
        if source.stamp.size != content.size {
            return Err(ImportError::Changed { path: source.path });
        }
        let ticket = self.inner.in_flight.begin(&self.inner.index);
        let node = self.node_for(file, &source.stamp)?;
        self.renew_manifest(content)?;
        for slot in self.slots(content)? {
            let slot = slot?;
            self.refer(node, slot.chunk, slot.offset)?;
        }
        self.bind(file, &source, node, ticket)?;
        Ok(source.stamp)
    }

    /// Copies into packs what is here of `content` only as references, because the file that
    /// holds it is about to be replaced or removed. Chunks that are not here stay missing.
    ///
    /// The copies survive at least the next sweep.
    ///
    /// # Errors
    /// A chunk could not be written, or (other than gone) not be read.
    pub fn preserve(&self, content: &Content) -> Result<(), WriteError> {
        use crate::error::ReadError::{Absent, Damaged, Stale};
        self.check_writable()?;
        let _ticket = self.inner.in_flight.begin(&self.inner.index);
        for slot in self.slots(content)? {
            let id = slot?.chunk.id;
            match self.read(&id) {
                Ok(bytes) => self.append(id, &bytes)?,
                Err(Absent { .. } | Stale { .. } | Damaged { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn open_source(&self, file: &FilePath) -> Result<Source, ImportError> {
        use crate::error::PathError::UnknownRoot;
        use std::os::unix::fs::MetadataExt;
        components(&file.path)?;
        let root = self
            .inner
            .index
            .read()
            .root(&file.root)
            .map_err(WriteError::from)?;
        let directory = root.ok_or(UnknownRoot { root: file.root })?.directory;
        let path = directory.join(&file.path);
        let opened = open_below(&directory, &file.path);
        let failed = |source| ImportError::Io {
            path: path.clone(),
            source,
        };
        let opened = opened.map_err(|refused| failed(refused.into_io()))?;
        let metadata = opened.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(ImportError::NotAFile { path });
        }
        let (stamp, blocks) = (FileStamp::of(&metadata), metadata.blocks());
        Ok(Source {
            file: opened,
            path,
            stamp,
            blocks,
        })
    }

    /// The number for the file at a path: that of the last import if the file looks the same, so
    /// that its rows are written over, else a new one, so that they count as gone.
    fn node_for(&self, file: &FilePath, stamp: &FileStamp) -> Result<NodeId, ImportError> {
        let layers = self.inner.index.read();
        let known = files::find(&layers, &file.root, &file.path)?;
        let known = known.filter(|&id| {
            // A row that cannot be read is replaced.
            let node = layers.node(id).ok().flatten();
            node.and_then(|node| node.stamp)
                .is_some_and(|known| known.may_match(stamp))
        });
        Ok(known.unwrap_or_else(|| self.inner.index.new_node()))
    }

    fn cut_source(&self, source: &Source, node: NodeId) -> Result<Content, ImportError> {
        let size = source.stamp.size;
        let mut builder = Builder::default();
        let mut take = |offset, chunk| {
            self.refer(node, chunk, offset)?;
            builder.push(chunk, |blob| self.keep(blob))
        };
        let end = if segment::is_worth_it(source) {
            segment::each_chunk(source, |offset, bytes| take(offset, self.name(bytes)))
        } else {
            self.each_chunk(source, take)
        };
        let content = end.and_then(|end| match end {
            end if end == size => builder.finish(|blob| self.keep(blob)),
            _cut_short => Err(ImportError::Changed {
                path: source.path.clone(),
            }),
        });
        content.map_err(|error| match error {
            ImportError::TooLarge { .. } => ImportError::TooLarge {
                path: source.path.clone(),
            },
            other => other,
        })
    }

    /// Hands every chunk of a file with its offset to `take`, in order. Returns where the last ends.
    fn each_chunk(
        &self,
        source: &Source,
        mut take: impl FnMut(u64, ChunkRef) -> Result<(), ImportError>,
    ) -> Result<u64, ImportError> {
        let failed = |error| source.failed(error);
        let size = source.stamp.size;
        let mut extents = Extents::new(&source.file, size, source.blocks);
        let mut window = Window::new(Some(size), |at, buffer: &mut [u8]| {
            let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
            let wanted = buffer.len().min(left);
            source
                .file
                .read_at(buffer.get_mut(..wanted).unwrap_or_default(), at)
        });
        loop {
            let offset = window.position();
            // Where at least a whole window is hole, the cut is known without looking.
            let hole = extents.hole_at(offset).map_err(failed)?;
            let chunk = if hole >= MAX_CHUNK as u64 {
                let zero = self.inner.zero.chunk;
                window.skip(u64::from(zero.len));
                zero
            } else {
                let bytes = window.chunk().map_err(failed)?;
                if bytes.is_empty() {
                    return Ok(offset);
                }
                let chunk = self.name(bytes);
                window.advance(chunk.len as usize);
                chunk
            };
            take(offset, chunk)?;
        }
    }

    fn name(&self, bytes: &[u8]) -> ChunkRef {
        ChunkRef {
            id: self.inner.key.chunk_id(bytes),
            len: length(bytes),
        }
    }

    /// Records one range of a file. It counts once the file's node is bound.
    fn refer(&self, node: NodeId, chunk: ChunkRef, offset: u64) -> Result<(), WriteError> {
        let ChunkRef { id, len } = chunk;
        if id == self.inner.zero.chunk.id {
            return Ok(());
        }
        let place = Place::File(FilePlace { node, offset, len });
        self.inner.index.update().set_place(id, node, Some(place));
        self.commit_if_large()
    }

    fn bind(
        &self,
        file: &FilePath,
        source: &Source,
        node: NodeId,
        ticket: Ticket<'_>,
    ) -> Result<(), ImportError> {
        let after = source.file.metadata();
        let after = after.map_err(|error| source.failed(error))?;
        if FileStamp::of(&after) != source.stamp {
            return Err(ImportError::Changed {
                path: source.path.clone(),
            });
        }
        let index = &self.inner.index;
        files::bind(&mut index.update(), index, file, node, source.stamp)?;
        drop(ticket); // the rows hang from a live node now
        self.commit_if_large()?;
        Ok(())
    }

    fn keep(&self, blob: &[u8]) -> Result<ChunkId, ImportError> {
        Ok(self.put(blob)?)
    }
}

impl From<TooManyPages> for ImportError {
    fn from(_: TooManyPages) -> Self {
        Self::TooLarge {
            path: PathBuf::new(),
        }
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the chunker cuts at 1 MiB")
}

#[cfg(test)]
mod tests;
