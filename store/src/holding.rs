//! What of a content is here: its manifest, its slots, and a bitmap to tell other devices.
//!
//! Answers come from the index alone and may be optimistic about references; reading decides.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};

use crate::error::ReadError;
use crate::id::{ChunkId, Content};
use crate::manifest::{ChunkRef, Manifest, ManifestError, PAGE_CHUNKS, PageRef, Slot};
use crate::sink::Lack;
use crate::store::Store;

/// How much of a content is here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Holding {
    /// Every chunk.
    All,
    /// The manifest, but no chunk.
    None,
    /// Some chunks: one bit for each slot.
    Some(Bitmap),
    /// Not even the whole manifest, so nothing can be said about chunks. A content without a
    /// manifest (a single chunk) is `None` instead.
    NoManifest,
}

/// One bit for each slot of a content, slot 0 in the lowest bit of the first byte.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Bitmap {
    bits: Vec<u8>,
}

impl Bitmap {
    /// Takes a bitmap as it came over the wire. Slots beyond it count as missing.
    pub const fn from_bytes(bits: Vec<u8>) -> Self {
        Self { bits }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Whether the slot is held.
    pub fn get(&self, slot: u64) -> bool {
        let byte = usize::try_from(slot / 8)
            .ok()
            .and_then(|at| self.bits.get(at));
        byte.is_some_and(|byte| byte & (1 << (slot % 8)) != 0)
    }

    /// How many slots are held.
    pub fn count(&self) -> u64 {
        self.bits
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum()
    }

    /// Appends the next slot. Slots come in order, so its number tells where it goes.
    fn push(&mut self, slot: u64, held: Held) {
        if slot.is_multiple_of(8) {
            self.bits.push(0);
        }
        if let (Held::Yes, Some(last)) = (held, self.bits.last_mut()) {
            *last |= 1 << (slot % 8);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    Yes,
    No,
}

/// The slots of a content, in order; reads one page of the manifest at a time.
#[derive(Debug)]
pub struct Slots<'a> {
    store: &'a Store,
    content: Content,
    manifest: Option<Manifest>,
    next_page: usize,
    /// Nothing beyond this page is given.
    end_page: usize,
    chunks: std::vec::IntoIter<ChunkRef>,
    index: u64,
    offset: u64,
}

impl Store {
    /// The manifest of a content that has one.
    ///
    /// # Errors
    /// Its root blob is absent, unreadable, or not the root of such a content. A content of up to
    /// 64 KiB has none and gives [`ReadError::Manifest`].
    pub fn manifest(&self, content: &Content) -> Result<Manifest, ReadError> {
        let invalid = |source| ReadError::Manifest {
            id: content.id,
            source,
        };
        if content.is_empty() || content.is_single() {
            return Err(invalid(ManifestError::Kind));
        }
        let root = self.read(&content.id.first_blob())?;
        let manifest = Manifest::decode(&root).map_err(invalid)?;
        if manifest.size() != content.size {
            let (expected, found) = (content.size, manifest.size());
            return Err(invalid(ManifestError::Sum { expected, found }));
        }
        Ok(manifest)
    }

    /// The chunks of page `number` of a manifest.
    pub(crate) fn page(
        &self,
        content: &Content,
        manifest: &Manifest,
        number: usize,
    ) -> Result<Vec<ChunkRef>, ReadError> {
        let invalid = |source| ReadError::Manifest {
            id: content.id,
            source,
        };
        let Some(page) = manifest.pages().get(number) else {
            return Ok(Vec::new());
        };
        let blob = self.read(&page.id)?;
        manifest.decode_page(number, &blob).map_err(invalid)
    }

    /// Streams the slots of a content: one for a single chunk, none for an empty content.
    ///
    /// # Errors
    /// The manifest's root is absent or invalid; each page may be so too, when it is reached.
    pub fn slots(&self, content: &Content) -> Result<Slots<'_>, ReadError> {
        let (manifest, chunks) = if content.is_empty() {
            (None, Vec::new())
        } else if content.is_single() {
            let len = u32::try_from(content.size).expect("a single content is at most 64 KiB");
            (
                None,
                vec![ChunkRef {
                    id: content.id.first_blob(),
                    len,
                }],
            )
        } else {
            (Some(self.manifest(content)?), Vec::new())
        };
        Ok(Slots {
            store: self,
            content: *content,
            manifest,
            next_page: 0,
            end_page: usize::MAX,
            chunks: chunks.into_iter(),
            index: 0,
            offset: 0,
        })
    }

    /// The slots of one part of a content; the first is part 0, [`Slots::next_part`] tells the others.
    ///
    /// # Errors
    /// As [`Store::slots`].
    pub fn parts(&self, content: &Content, part: u64) -> Result<Slots<'_>, ReadError> {
        let mut slots = self.slots(content)?;
        let first = usize::try_from(part).unwrap_or(usize::MAX);
        if let Some(manifest) = &slots.manifest {
            let before = manifest.pages().iter().take(first);
            slots.offset = before.map(|page| page.bytes).sum();
            slots.index = part.saturating_mul(PAGE_CHUNKS as u64);
            slots.next_page = first;
            slots.end_page = first.saturating_add(Lack::PAGES);
        }
        Ok(slots)
    }

    /// Bytes that a file of this content takes on a disk that keeps holes.
    ///
    /// # Errors
    /// The manifest is absent or invalid.
    pub fn occupied_bytes(&self, content: &Content) -> Result<u64, ReadError> {
        let zero = self.zero_chunk().id;
        let mut bytes = 0_u64;
        self.each_page_once(content, |chunks, times| {
            let chunks = chunks.iter().filter(|chunk| chunk.id != zero);
            let page: u64 = chunks.map(|chunk| u64::from(chunk.len)).sum();
            bytes = bytes.saturating_add(page.saturating_mul(times));
        })?;
        Ok(bytes)
    }

    /// Shows every page of a content once, with how often it occurs: a page can be listed many thousand
    /// times, and work is to be in proportion to the bytes of a manifest, not to what it claims.
    pub(crate) fn each_page_once(
        &self,
        content: &Content,
        mut look: impl FnMut(&[ChunkRef], u64),
    ) -> Result<(), ReadError> {
        if content.is_empty() || content.is_single() {
            for slot in self.slots(content)? {
                look(&[slot?.chunk], 1);
            }
            return Ok(());
        }
        let manifest = self.manifest(content)?;
        let mut times: HashMap<ChunkId, (usize, u64)> = HashMap::new();
        for (number, page) in manifest.pages().iter().enumerate() {
            times.entry(page.id).or_insert((number, 0)).1 += 1;
        }
        for (number, times) in times.into_values() {
            look(&self.page(content, &manifest, number)?, times);
        }
        Ok(())
    }

    /// The blobs of the manifest that must be fetched before the slots are known: the root alone
    /// if it is missing, else the missing pages. Empty when the manifest is whole.
    ///
    /// # Errors
    /// The root is here, but unreadable or invalid.
    pub fn missing_manifest(&self, content: &Content) -> Result<Vec<ChunkId>, ReadError> {
        if content.is_empty() || content.is_single() {
            return Ok(Vec::new());
        }
        let root = content.id.first_blob();
        if !self.has(&root) {
            return Ok(vec![root]);
        }
        let manifest = match self.manifest(content) {
            // Found out only now: the copy was bad and is forgotten.
            Err(ReadError::Absent { id } | ReadError::Stale { id } | ReadError::Damaged { id }) => {
                return Ok(vec![id]);
            }
            other => other?,
        };
        let missing = |page: &&PageRef| !self.has(&page.id);
        let mut ids: Vec<_> = manifest
            .pages()
            .iter()
            .filter(missing)
            .map(|page| page.id)
            .collect();
        // A sparse file's pages are all the same blob.
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Lets a content's manifest, which is here, outlive the sweep that is under way, and the next one: see `renew`.
    ///
    /// # Errors
    /// The root is absent or invalid, or the index could not be read.
    pub(crate) fn renew_manifest(&self, content: &Content) -> Result<(), ReadError> {
        if content.is_empty() || content.is_single() {
            return Ok(());
        }
        self.renew(&content.id.first_blob())?;
        for page in self.manifest(content)?.pages() {
            self.renew(&page.id)?;
        }
        Ok(())
    }

    /// How much of a content is here, by the index. Costs about 2 µs a chunk.
    ///
    /// # Errors
    /// The manifest is here, but unreadable or invalid.
    pub fn holding(&self, content: &Content) -> Result<Holding, ReadError> {
        if !self.missing_manifest(content)?.is_empty() {
            return Ok(Holding::NoManifest);
        }
        let (mut bitmap, mut slots) = (Bitmap::default(), 0);
        let look = |chunk: &ChunkRef| {
            self.locate_chunk(&chunk.id)
                .map(|held| if held { Held::Yes } else { Held::No })
        };
        if content.is_empty() || content.is_single() {
            for slot in self.slots(content)? {
                bitmap.push(slots, look(&slot?.chunk)?);
                slots += 1;
            }
        } else {
            // A page that occurs again is not looked at again.
            let mut pages: HashMap<ChunkId, Vec<Held>> = HashMap::new();
            let manifest = self.manifest(content)?;
            for (number, page) in manifest.pages().iter().enumerate() {
                if let Entry::Vacant(place) = pages.entry(page.id) {
                    let chunks = self.page(content, &manifest, number)?;
                    place.insert(chunks.iter().map(look).collect::<Result<_, _>>()?);
                }
                for held in pages.get(&page.id).into_iter().flatten() {
                    bitmap.push(slots, *held);
                    slots += 1;
                }
            }
        }
        Ok(match bitmap.count() {
            held if held == slots => Holding::All,
            0 => Holding::None,
            _ => Holding::Some(bitmap),
        })
    }
}

impl Slots<'_> {
    /// The part after this one; to be asked at its end.
    pub fn next_part(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref()?;
        (self.end_page < manifest.pages().len()).then_some(self.end_page as u64)
    }
}

impl Iterator for Slots<'_> {
    type Item = Result<Slot, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.chunks.next() {
                let slot = Slot {
                    index: self.index,
                    offset: self.offset,
                    chunk,
                };
                self.index += 1;
                self.offset += u64::from(chunk.len);
                return Some(Ok(slot));
            }
            let manifest = self.manifest.as_ref()?;
            if self.next_page >= manifest.pages().len().min(self.end_page) {
                return None;
            }
            match self.store.page(&self.content, manifest, self.next_page) {
                Ok(chunks) => {
                    self.chunks = chunks.into_iter();
                    self.next_page += 1;
                }
                Err(error) => {
                    self.manifest = None; // what comes after has no known place
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
