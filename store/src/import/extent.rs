//! Where a sparse file has holes.
//!
//! Asked only for files that occupy fewer blocks than their length; file systems that know no
//! holes report one extent of data, and the file is then read in full.

use std::fs::File;
use std::io;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Walks the extents of a file from front to back.
pub(super) struct Extents<'a> {
    file: Option<&'a File>,
    size: u64,
    /// The extent asked about last: where it ends, and whether it is a hole.
    end: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Hole,
    Data,
}

impl<'a> Extents<'a> {
    /// `blocks` is the number of 512-byte blocks that the file occupies.
    pub(super) fn new(file: &'a File, size: u64, blocks: u64) -> Self {
        let sparse = blocks.saturating_mul(512) < size;
        Self {
            file: sparse.then_some(file),
            size,
            end: 0,
            kind: Kind::Data,
        }
    }

    /// How many bytes from `offset` on are hole. Offsets must not decrease.
    pub(super) fn hole_at(&mut self, offset: u64) -> io::Result<u64> {
        let Some(file) = self.file else { return Ok(0) };
        if offset >= self.size {
            return Ok(0);
        }
        if offset >= self.end {
            let data = match seek(file, SeekFrom::Data(offset)) {
                Ok(data) => data,
                Err(Errno::NXIO) => self.size, // no data up to the end
                Err(Errno::INVAL) => {
                    self.file = None; // this file system does not tell
                    return Ok(0);
                }
                Err(error) => return Err(error.into()),
            };
            (self.end, self.kind) = if data > offset {
                (data.min(self.size), Kind::Hole)
            } else {
                (seek(file, SeekFrom::Hole(offset))?, Kind::Data)
            };
        }
        Ok(match self.kind {
            Kind::Hole => self.end.saturating_sub(offset),
            Kind::Data => 0,
        })
    }
}
