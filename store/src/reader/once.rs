//! Reads a range of a file that is not needed again soon, past the page cache.
//!
//! Copying or checking a large file through the page cache costs more processor time than verifying it,
//! and pushes out what the user works with. Direct reads (`O_DIRECT`) need memory, offsets and lengths at
//! multiples of a block, so they go through one aligned buffer for each thread. Where the system has no
//! direct reads the range is read plainly. Whether a file happens to be cached cannot be asked first: even
//! a read that must not wait (`RWF_NOWAIT`) has the kernel fill its cache. Called by `reader`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads exactly `bytes.len()` bytes at `offset`.
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if direct::read_exact_at(file, bytes, offset).is_ok() {
        return Ok(());
    }
    // Whether an error was about direct reads only, or about the file, the plain read tells.
    file.read_exact_at(bytes, offset)
}

#[cfg(target_os = "linux")]
mod direct {
    use std::cell::RefCell;
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{Mode, OFlags};

    /// What memory, offsets and lengths are multiples of: no usual disk asks for more, and one that does
    /// refuses.
    const BLOCK: u64 = 4096;
    /// The longest chunk (1 MiB), and the rest of the blocks at its ends.
    const CAPACITY: usize = (1 << 20) + 2 * BLOCK as usize;

    thread_local! {
        static BUFFER: RefCell<AlignedBuffer> = RefCell::new(AlignedBuffer::new());
    }

    pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        // By its number and not by its name: nobody can put another file there meanwhile.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        BUFFER.with_borrow_mut(|buffer| {
            let before = offset % BLOCK;
            let first = offset - before;
            let before = usize::try_from(before).map_err(io::Error::other)?;
            let wanted = before + bytes.len();
            let room = buffer.room(wanted.next_multiple_of(BLOCK as usize));
            let room = room.ok_or(io::ErrorKind::InvalidInput)?;
            let mut filled = 0;
            while filled < wanted {
                let (_, rest) = room.split_at_mut(filled);
                match file.read_at(rest, first + filled as u64)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => filled += read,
                }
            }
            let read = room
                .get(before..wanted)
                .ok_or(io::ErrorKind::InvalidInput)?;
            bytes.copy_from_slice(read);
            Ok(())
        })
    }

    /// Memory that begins at a block's border.
    struct AlignedBuffer {
        memory: Vec<u8>,
        /// So many bytes before the border are not used.
        skip: usize,
    }

    impl AlignedBuffer {
        fn new() -> Self {
            let memory = vec![0; CAPACITY + BLOCK as usize];
            let skip = memory.as_ptr().align_offset(BLOCK as usize);
            Self { memory, skip }
        }

        fn room(&mut self, length: usize) -> Option<&mut [u8]> {
            self.memory
                .get_mut(self.skip..self.skip + CAPACITY)?
                .get_mut(..length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges around blocks, at the end of the file, and as long as a chunk gets.
    const RANGES: [(usize, usize); 7] = [
        (0, 1),
        (0, 4096),
        (1, 4096),
        (4095, 2),
        (70_000, 1 << 20),
        (SIZE - 1, 1),
        (SIZE - 5000, 5000),
    ];
    const SIZE: usize = 3_000_001;

    #[test]
    fn a_range_reads_as_its_bytes_whether_it_is_cached_or_not() {
        // Not where temporary files are: these may be in memory, where nothing is read directly.
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let expected: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
        std::fs::write(file.path(), &expected).unwrap();
        let opened = file.reopen().unwrap();
        for cached in [true, false] {
            for (offset, length) in RANGES {
                if !cached {
                    opened.sync_all().unwrap();
                    let all = rustix::fs::Advice::DontNeed;
                    rustix::fs::fadvise(&opened, 0, None, all).unwrap();
                }
                let mut bytes = vec![0; length];
                read_exact_at(&opened, &mut bytes, offset as u64).unwrap();
                assert!(bytes == expected[offset..offset + length], "{offset}");
            }
        }
        let mut beyond = vec![0; 2];
        let error = read_exact_at(&opened, &mut beyond, SIZE as u64 - 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_longer_than_any_chunk_is_read_plainly() {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let expected = vec![7; SIZE];
        std::fs::write(file.path(), &expected).unwrap();
        let opened = file.reopen().unwrap();
        let mut bytes = vec![0; SIZE];
        assert!(direct::read_exact_at(&opened, &mut bytes, 0).is_err());
        read_exact_at(&opened, &mut bytes, 0).unwrap();
        assert!(bytes == expected);
    }
}
