//! Manifests: what a content larger than one chunk is made of.
//!
//! A root blob lists pages, a page lists up to 512 chunks; both are stored and fetched like chunks,
//! so a 1 MiB edit of a 4 GiB file changes one page and the root. Decoding checks every limit,
//! because these bytes come from other devices. Written by `import`, read by everybody.
//!
//! ```text
//! root  "WHM1"  cdc u8  0 u8  0 u16  size u64 | (page id 32, bytes u64) x pages      integers LE
//! page  "WHP1"                                | (chunk id 32, len u32) x 1..=512
//! ```

use std::sync::Arc;

use thiserror::Error;

use crate::chunker::{CDC_VERSION, MAX_CHUNK, MIN_CHUNK};
use crate::id::{ChunkId, Content};

const ROOT_MAGIC: [u8; 4] = *b"WHM1";
const PAGE_MAGIC: [u8; 4] = *b"WHP1";
const ROOT_HEADER: usize = 16;
const PAGE_HEADER: usize = 4;
const PAGE_REF: usize = 40;
const CHUNK_REF: usize = 36;

/// Chunks in every page but the last: a page is then 18 KiB and stands for about 150 MiB.
pub const PAGE_CHUNKS: usize = 512;

/// The root is a blob, hence at most [`MAX_CHUNK`] bytes long.
const MAX_PAGES: usize = (MAX_CHUNK - ROOT_HEADER) / PAGE_REF;

/// A chunk as a manifest lists it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ChunkRef {
    /// Its id.
    pub id: ChunkId,
    /// Its length in bytes, 1 byte to 1 MiB.
    pub len: u32,
}

/// Where a chunk stands in a content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    /// Counts the content's chunks from 0.
    pub index: u64,
    /// Offset of the chunk's first byte in the content.
    pub offset: u64,
    /// The chunk.
    pub chunk: ChunkRef,
}

/// A page as the root lists it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageRef {
    /// The page blob's id.
    pub id: ChunkId,
    /// How many bytes of the content its chunks cover.
    pub bytes: u64,
}

/// Why a blob is not a valid manifest root or page. Whoever sent it as one misbehaved.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Error)]
pub enum ManifestError {
    /// It does not begin as this kind of blob does.
    #[error("not a manifest of a known version")]
    Kind,
    /// It was cut with parameters this version does not know.
    #[error("unknown chunking parameters {version}")]
    Chunking {
        /// The version named.
        version: u8,
    },
    /// Its length does not fit its entries, or there are none or too many.
    #[error("{len} bytes is no valid length")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// An entry covers no bytes, or more than it can.
    #[error("entry {entry} covers an impossible number of bytes")]
    Entry {
        /// Which entry.
        entry: usize,
    },
    /// The entries do not add up to what was promised.
    #[error("the entries cover {found} bytes instead of {expected}")]
    Sum {
        /// What was promised.
        expected: u64,
        /// What they add up to.
        found: u64,
    },
    /// A page that is not the last has fewer than 512 chunks.
    #[error("a page in the middle has only {found} chunks")]
    ShortPage {
        /// How many it has.
        found: usize,
    },
}

/// The decoded root of a manifest. Cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    size: u64,
    pages: Arc<[PageRef]>,
}

impl Manifest {
    /// Decodes a root blob and checks every limit.
    ///
    /// # Errors
    /// The bytes are not a root; see [`ManifestError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let length = ManifestError::Length { len: bytes.len() };
        let (header, entries) = bytes.split_at_checked(ROOT_HEADER).ok_or(length)?;
        let (magic, header) = header.split_first_chunk::<4>().ok_or(length)?;
        let (kind, header) = header.split_first_chunk::<4>().ok_or(length)?;
        let (size, _) = header.split_first_chunk::<8>().ok_or(length)?;
        let [cdc, zeros @ ..] = *kind;
        if *magic != ROOT_MAGIC || zeros != [0; 3] {
            return Err(ManifestError::Kind);
        }
        if cdc != CDC_VERSION {
            return Err(ManifestError::Chunking { version: cdc });
        }
        let size = u64::from_le_bytes(*size);
        let (entries, rest) = entries.as_chunks::<PAGE_REF>();
        if !rest.is_empty() || entries.is_empty() || entries.len() > MAX_PAGES {
            return Err(length);
        }
        let mut found = 0_u64;
        let mut pages = Vec::with_capacity(entries.len());
        for (entry, row) in entries.iter().enumerate() {
            let (id, bytes) = split_entry::<PAGE_REF, 8>(row);
            let bytes = u64::from_le_bytes(bytes);
            if bytes == 0 || bytes > (PAGE_CHUNKS * MAX_CHUNK) as u64 {
                return Err(ManifestError::Entry { entry });
            }
            found += bytes;
            pages.push(PageRef { id, bytes });
        }
        // A content of up to MIN_CHUNK bytes has no manifest: there is one way to say anything.
        if found != size || size <= MIN_CHUNK as u64 {
            return Err(ManifestError::Sum {
                expected: size,
                found,
            });
        }
        Ok(Self {
            size,
            pages: pages.into(),
        })
    }

    /// Length of the content in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The pages in order.
    pub fn pages(&self) -> &[PageRef] {
        &self.pages
    }

    /// Decodes the blob of page `number` and checks it against what the root says of it.
    ///
    /// # Errors
    /// The bytes are not that page; see [`ManifestError`].
    pub fn decode_page(&self, number: usize, bytes: &[u8]) -> Result<Vec<ChunkRef>, ManifestError> {
        let chunks = decode_page(bytes)?;
        let found = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let expected = self.pages.get(number).map_or(0, |page| page.bytes);
        if found != expected {
            return Err(ManifestError::Sum { expected, found });
        }
        if number + 1 < self.pages.len() && chunks.len() != PAGE_CHUNKS {
            return Err(ManifestError::ShortPage {
                found: chunks.len(),
            });
        }
        Ok(chunks)
    }
}

/// Decodes a page blob by itself. [`Manifest::decode_page`] also checks it against its root.
///
/// # Errors
/// The bytes are not a page; see [`ManifestError`].
pub fn decode_page(bytes: &[u8]) -> Result<Vec<ChunkRef>, ManifestError> {
    let length = ManifestError::Length { len: bytes.len() };
    let (magic, entries) = bytes.split_first_chunk::<PAGE_HEADER>().ok_or(length)?;
    if *magic != PAGE_MAGIC {
        return Err(ManifestError::Kind);
    }
    let (entries, rest) = entries.as_chunks::<CHUNK_REF>();
    if !rest.is_empty() || entries.is_empty() || entries.len() > PAGE_CHUNKS {
        return Err(length);
    }
    let decode = |(entry, row): (usize, &[u8; CHUNK_REF])| {
        let (id, len) = split_entry::<CHUNK_REF, 4>(row);
        let len = u32::from_le_bytes(len);
        if len == 0 || len as usize > MAX_CHUNK {
            return Err(ManifestError::Entry { entry });
        }
        Ok(ChunkRef { id, len })
    };
    entries.iter().enumerate().map(decode).collect()
}

/// Splits an entry into its id and its little-endian number.
fn split_entry<const ENTRY: usize, const NUMBER: usize>(
    row: &[u8; ENTRY],
) -> (ChunkId, [u8; NUMBER]) {
    const { assert!(ENTRY == 32 + NUMBER) };
    let (mut id, mut number) = ([0; 32], [0; NUMBER]);
    let (left, right) = row.split_at(32);
    id.copy_from_slice(left);
    number.copy_from_slice(right);
    (ChunkId::from_bytes(id), number)
}

/// The content has more chunks than one manifest can list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooManyPages;

/// Builds a manifest chunk by chunk; holds one page and the list of pages, never the whole.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    size: u64,
    first: Option<ChunkRef>,
    page: Vec<u8>,
    page_bytes: u64,
    page_chunks: usize,
    pages: Vec<PageRef>,
}

impl Builder {
    /// Adds the next chunk. A page that is full is handed to `keep`, which returns its id.
    pub(crate) fn push<E: From<TooManyPages>>(
        &mut self,
        chunk: ChunkRef,
        keep: impl FnOnce(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.first.get_or_insert(chunk);
        if self.page.is_empty() {
            self.page.extend_from_slice(&PAGE_MAGIC);
        }
        self.page.extend_from_slice(chunk.id.as_bytes());
        self.page.extend_from_slice(&chunk.len.to_le_bytes());
        self.page_chunks += 1;
        self.page_bytes += u64::from(chunk.len);
        self.size += u64::from(chunk.len);
        if self.page_chunks == PAGE_CHUNKS {
            self.flush(keep)
        } else {
            Ok(())
        }
    }

    /// Ends the content: hands the last page and the root to `keep`.
    pub(crate) fn finish<E: From<TooManyPages>>(
        mut self,
        keep: impl Fn(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<Content, E> {
        let size = self.size;
        let Some(first) = self.first else {
            return Ok(Content::EMPTY);
        };
        if size <= MIN_CHUNK as u64 {
            return Ok(Content {
                id: first.id.into(),
                size,
            });
        }
        if self.page_chunks > 0 {
            self.flush(&keep)?;
        }
        let mut root = Vec::with_capacity(ROOT_HEADER + PAGE_REF * self.pages.len());
        root.extend_from_slice(&ROOT_MAGIC);
        root.extend_from_slice(&[CDC_VERSION, 0, 0, 0]);
        root.extend_from_slice(&size.to_le_bytes());
        for page in &self.pages {
            root.extend_from_slice(page.id.as_bytes());
            root.extend_from_slice(&page.bytes.to_le_bytes());
        }
        Ok(Content {
            id: keep(&root)?.into(),
            size,
        })
    }

    fn flush<E: From<TooManyPages>>(
        &mut self,
        keep: impl FnOnce(&[u8]) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        if self.pages.len() == MAX_PAGES {
            return Err(TooManyPages.into());
        }
        let id = keep(&self.page)?;
        self.pages.push(PageRef {
            id,
            bytes: self.page_bytes,
        });
        self.page.clear();
        (self.page_bytes, self.page_chunks) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
