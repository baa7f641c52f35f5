//! Where bytes are cut: FastCDC (v2020, normalisation level 1), 64 KiB / 256 KiB / 1 MiB.
//!
//! The parameters are frozen: changing one breaks deduplication against everything that is already
//! stored, so any change needs a new [`CDC_VERSION`]. Measured mean chunk: about 309 KiB.
//! Called by `import` only. Source of the algorithm: Xia et al., "The Design of Fast Content-Defined
//! Chunking for Data Deduplication Based Storage Systems", IEEE TPDS 2020.

use std::io;

/// No cut is made before this many bytes; a file up to this size is one chunk.
pub const MIN_CHUNK: usize = 64 * 1024;
/// The size that cuts are normalised around.
pub const AVG_CHUNK: usize = 256 * 1024;
/// A cut is forced here. Also the limit of every blob in the store.
pub const MAX_CHUNK: usize = 1024 * 1024;

/// Says in a manifest which parameters cut it.
pub(crate) const CDC_VERSION: u8 = 1;

/// Masks for the bytes before and after the average size: entries 19 and 17 of the published table.
const MASK_STRICT: u64 = 0x0000_d917_0753_7000;
const MASK_LOOSE: u64 = 0x0000_d907_0353_7000;

/// Returns how many bytes of `window` the next chunk has.
///
/// `window` starts at a chunk's start and holds at least [`MAX_CHUNK`] bytes, or all that is left.
pub(crate) fn cut(window: &[u8]) -> usize {
    let (_, length) = fastcdc::v2020::cut(
        window,
        MIN_CHUNK,
        AVG_CHUNK,
        MAX_CHUNK,
        MASK_STRICT,
        MASK_LOOSE,
        MASK_STRICT << 1,
        MASK_LOOSE << 1,
    );
    length
}

/// A sliding window over a source of bytes that always shows enough for the next cut.
///
/// Memory is the buffer it was made with, whatever the size of the source.
pub(crate) struct Window<F> {
    fill: F,
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
    base: u64,
    ended: bool,
}

impl<F: FnMut(u64, &mut [u8]) -> io::Result<usize>> Window<F> {
    /// Four chunks of the largest size: the tail that is moved to the front stays a small part.
    const CAPACITY: usize = 4 * MAX_CHUNK;

    /// Makes a window over `fill(offset, buffer)`, which returns 0 at the end of the source.
    ///
    /// A source of known size allocates no more than it needs; it must not give more than that.
    pub(crate) fn new(size: Option<u64>, fill: F) -> Self {
        let capacity = size.map_or(Self::CAPACITY, |size| {
            usize::try_from(size).map_or(Self::CAPACITY, |size| size.min(Self::CAPACITY))
        });
        Self {
            fill,
            buffer: vec![0; capacity],
            head: 0,
            tail: 0,
            base: 0,
            ended: false,
        }
    }

    /// Offset in the source of the first byte of [`chunk`](Self::chunk).
    pub(crate) const fn position(&self) -> u64 {
        self.base
    }

    /// The next chunk; empty at the end. Shows the same one again until [`advance`](Self::advance).
    ///
    /// # Errors
    /// What the source returned; the window then stays where it was.
    pub(crate) fn chunk(&mut self) -> io::Result<&[u8]> {
        while self.tail - self.head < MAX_CHUNK && !self.ended {
            if self.tail == self.buffer.len() {
                if self.head == 0 {
                    break; // the buffer holds all of a source of known size
                }
                self.buffer.copy_within(self.head..self.tail, 0);
                self.tail -= self.head;
                self.head = 0;
            }
            let at = self.base + (self.tail - self.head) as u64;
            let room = self.buffer.get_mut(self.tail..).unwrap_or_default();
            match (self.fill)(at, room) {
                Ok(0) => self.ended = true,
                Ok(read) => self.tail += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let window = self.buffer.get(self.head..self.tail).unwrap_or_default();
        let length = cut(window);
        Ok(window.get(..length).unwrap_or_default())
    }

    /// Moves past `length` bytes of what [`chunk`](Self::chunk) showed.
    pub(crate) fn advance(&mut self, length: usize) {
        self.head = (self.head + length).min(self.tail);
        self.base += length as u64;
    }

    /// Moves past `length` bytes without reading them (a hole). What was buffered is dropped.
    pub(crate) fn skip(&mut self, length: u64) {
        match usize::try_from(length) {
            Ok(length) if length <= self.tail - self.head => self.head += length,
            Ok(_) | Err(_) => (self.head, self.tail) = (0, 0),
        }
        self.base += length;
    }
}

#[cfg(test)]
mod tests;
