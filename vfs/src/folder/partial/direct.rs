//! Writes a large file front to back past the page cache.
//!
//! Filling a gigabyte of page cache can cost more processor time than everything else about a copy, and it pushes out
//! what the user works with. Direct writes (`O_DIRECT`) need memory, offsets and lengths at multiples of a block, so
//! bytes are gathered in one aligned buffer; what does not fill a block at either end of a run is written plainly. A file
//! system that refuses gets plain writes for everything. Called by `copy` only.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::Opened;
use crate::folder::beneath;

/// What memory, offsets and lengths are multiples of: no usual disk asks for more, and one that does refuses.
const BLOCK: usize = 4096;
/// Bytes of one direct write: each waits for the disk, and smaller ones wait more (1 MiB: twice as long for the whole).
const CAPACITY: usize = 4 << 20;

/// Gathers runs of bytes and writes them directly.
pub(super) struct SequentialWriter<'a> {
    opened: &'a Opened,
    /// The same file, opened for direct writes, and where the bytes for it are gathered.
    direct: Option<(File, AlignedBuffer)>,
    /// Where in the file the buffer begins: at a block's border.
    base: u64,
    /// The part of the buffer that is filled. It begins within the first block.
    from: usize,
    to: usize,
}

impl<'a> SequentialWriter<'a> {
    pub(super) fn new(opened: &'a Opened) -> Self {
        let direct = beneath::reopen_direct(opened.file.as_fd());
        let direct = direct.inspect_err(|error| tracing::debug!(%error, "no direct writes here"));
        Self::with(opened, direct.ok())
    }

    fn with(opened: &'a Opened, direct: Option<File>) -> Self {
        Self {
            opened,
            direct: direct.map(|file| (file, AlignedBuffer::new())),
            base: 0,
            from: 0,
            to: 0,
        }
    }

    /// Writes bytes, sooner or later: [`flush`](Self::flush) in the end. Fast where offsets follow on one another.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.opened.is_hole(bytes) {
            return Ok(());
        }
        if offset != self.end() {
            self.flush()?;
            self.begin(offset);
        }
        let mut rest = bytes;
        while let Some((_, buffer)) = &mut self.direct
            && !rest.is_empty()
        {
            let taken = buffer.fill(self.to, rest);
            self.to += taken;
            rest = rest.split_at(taken).1;
            if self.to == CAPACITY {
                self.flush()?;
            }
        }
        if !rest.is_empty() {
            let end = self.end();
            self.opened.write(end, rest)?;
            self.begin(end + rest.len() as u64);
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some((file, buffer)) = &self.direct else {
            return Ok(());
        };
        let first = self.from.next_multiple_of(BLOCK).min(self.to);
        let last = (self.to - self.to % BLOCK).max(first);
        let at = |place: usize| self.base + place as u64;
        self.opened
            .write(at(self.from), buffer.part(self.from, first))?;
        let refused = file.write_all_at(buffer.part(first, last), at(first)).err();
        if let Some(error) = &refused {
            // Whether it was about direct writes only, or about the disk, the plain write tells.
            tracing::debug!(%error, "a direct write was refused");
            self.opened.write(at(first), buffer.part(first, last))?;
        }
        self.opened.write(at(last), buffer.part(last, self.to))?;
        self.begin(self.end());
        if refused.is_some() {
            self.direct = None;
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.base + self.to as u64
    }

    /// Goes on at an offset; nothing is gathered.
    fn begin(&mut self, offset: u64) {
        self.base = offset - offset % BLOCK as u64;
        self.from = usize::try_from(offset - self.base).expect("less than a block");
        self.to = self.from;
    }
}

/// Memory that begins at a block's border.
struct AlignedBuffer {
    memory: Vec<u8>,
    /// So many bytes before the border are not used.
    skip: usize,
}

impl AlignedBuffer {
    fn new() -> Self {
        let memory = vec![0; CAPACITY + BLOCK];
        let skip = memory.as_ptr().align_offset(BLOCK);
        Self { memory, skip }
    }

    fn part(&self, from: usize, to: usize) -> &[u8] {
        let part = self.memory.get(self.skip + from..self.skip + to);
        part.expect("the filled part is within the buffer")
    }

    /// Copies as much of `bytes` to `at` as there is room for; says how much.
    fn fill(&mut self, at: usize, bytes: &[u8]) -> usize {
        let room = self.memory.get_mut(self.skip + at..self.skip + CAPACITY);
        let room = room.expect("a full buffer is flushed");
        let length = room.len().min(bytes.len());
        let (room, bytes) = (room.split_at_mut(length).0, bytes.split_at(length).0);
        room.copy_from_slice(bytes);
        length
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Runs that begin and end around blocks and around the buffer's end, with gaps between them.
    const RUNS: [(usize, usize); 9] = [
        (0, 1),
        (2, 4094),
        (8_193, 10),
        (12_000, 4_289),
        (20_480, CAPACITY),
        (20_480 + CAPACITY, CAPACITY - 1),
        (20_480 + 2 * CAPACITY, 4_097),
        (40_960 + 2 * CAPACITY, 2 * CAPACITY + 5),
        (40_960 + 4 * CAPACITY + 5, 4_096),
    ];

    fn opened() -> (tempfile::NamedTempFile, Opened) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = Opened {
            file: file.reopen().unwrap(),
            fresh: true,
            dirty: Mutex::default(),
        };
        (file, opened)
    }

    /// Writes the runs in pieces of odd lengths and says what should be there.
    fn write_runs(writer: &mut SequentialWriter<'_>) -> Vec<u8> {
        let mut expected = Vec::new();
        for (at, length) in RUNS {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251 + 1) as u8).collect();
            expected.resize(at, 0);
            expected.extend_from_slice(&bytes);
            let mut offset = at as u64;
            for piece in bytes.chunks(300_001) {
                writer.write(offset, piece).unwrap();
                offset += piece.len() as u64;
            }
        }
        writer.flush().unwrap();
        expected
    }

    #[test]
    fn runs_land_where_they_belong() {
        let (file, opened) = opened();
        let expected = write_runs(&mut SequentialWriter::new(&opened));
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }

    #[test]
    fn without_direct_writes_they_land_there_too() {
        let (file, opened) = opened();
        let expected = write_runs(&mut SequentialWriter::with(&opened, None));
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }

    /// The first direct write is refused: a file that is open for reading takes none.
    #[test]
    fn what_is_refused_is_written_plainly() {
        let (file, opened) = opened();
        let refuses = File::open(file.path()).unwrap();
        let mut writer = SequentialWriter::with(&opened, Some(refuses));
        let expected = write_runs(&mut writer);
        assert!(writer.direct.is_none());
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }

    #[test]
    fn a_disk_that_refuses_both_is_an_error() {
        let (file, mut opened) = opened();
        opened.file = File::open(file.path()).unwrap();
        let refuses = File::open(file.path()).unwrap();
        let mut writer = SequentialWriter::with(&opened, Some(refuses));
        assert!(writer.write(0, &[1; 2 * CAPACITY]).is_err());
    }
}
