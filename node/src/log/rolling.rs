//! A log file that stops growing: when it is full it becomes `<name>.old`, in place of the one before.
//!
//! A node runs for years, and a fault that repeats may write a line every second. So at most twice
//! [`LARGEST_BYTES`] are on disk. docs/config.md names the size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file is put aside before it grows beyond this.
const LARGEST_BYTES: u64 = 16 << 20;

/// The writer; one for each process.
#[derive(Debug)]
pub(super) struct Rolling {
    path: PathBuf,
    file: File,
    written: u64,
    largest: u64,
}

impl Rolling {
    /// Goes on at the end of the file, or makes it, for this user alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_largest(path, LARGEST_BYTES)
    }

    fn with_largest(path: &Path, largest: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self {
            path: path.to_owned(),
            written: file.metadata()?.len(),
            file,
            largest,
        })
    }

    fn roll(&mut self) -> io::Result<()> {
        let mut old = self.path.as_os_str().to_owned();
        old.push(".old");
        fs::rename(&self.path, old)?;
        self.file = append_to(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for Rolling {
    /// Writes a line as a whole: it is never parted between two files.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + line.len() as u64 > self.largest {
            self.roll()?;
        }
        self.file.write_all(line)?;
        self.written += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_written_for_ever_takes_bounded_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        let mut log = Rolling::with_largest(&path, 100).unwrap();
        for number in 0..1000 {
            let line = format!("line {number:04}\n");
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let (now, old) = (read("node.log"), read("node.log.old"));
        assert!(
            now.len() <= 100 && old.len() <= 100,
            "{} {}",
            now.len(),
            old.len()
        );
        assert!(now.ends_with("line 0999\n"), "{now}");
        assert!(old.lines().chain(now.lines()).all(|line| line.len() == 9));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_log_goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        for _ in 0..3 {
            let mut log = Rolling::with_largest(&path, 20).unwrap();
            log.write_all(b"123456789\n").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap().len(), 10);
        assert_eq!(fs::read(dir.path().join("node.log.old")).unwrap().len(), 20);
    }
}
