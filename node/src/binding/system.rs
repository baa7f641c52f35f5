//! Directories in which the system shows itself: processes, devices, settings of the kernel. What looks like files there
//! is made when it is read, has no end, or does something when it is written.

use std::path::Path;

use rustix::io::Errno;

/// File systems that the kernel fills, by the number that `statfs` gives (see `linux/magic.h`).
const OF_THE_KERNEL: [(u64, &str); 18] = [
    (0x9fa0, "the system's processes"),
    (0x6265_6572, "the system's devices"),
    (0x1cd1, "the system's terminals"),
    (0x0027_e0eb, "the system's control groups"),
    (0x6367_7270, "the system's control groups"),
    (0x6462_6720, "the kernel's inside"),
    (0x7472_6163, "the kernel's inside"),
    (0x7363_6673, "the kernel's inside"),
    (0x6265_6570, "the kernel's settings"),
    (0xcafe_4a11, "the kernel's programs"),
    (0x4249_4e4d, "the kernel's programs"),
    (0x6165_676c, "the kernel's last words"),
    (0xde5e_81e4, "the firmware's settings"),
    (0x1980_0202, "message queues"),
    (0x9584_58f6, "memory in large pages"),
    (0xf97c_ff8c, "the kernel's settings"),
    (0x4341_5d53, "the kernel's settings"),
    (0x6e73_6673, "the system's namespaces"),
];

/// Device files live in memory like other temporary files; only the place tells.
const DEVICES: &str = "/dev";
/// The one directory there that is for files.
const SHARED_MEMORY: &str = "/dev/shm";

/// What of the system a directory shows, or the one that it would be made in.
pub(super) fn shown_in(dir: &Path) -> Result<Option<&'static str>, Errno> {
    if dir.starts_with(DEVICES) && !dir.starts_with(SHARED_MEMORY) {
        return Ok(Some("the system's devices"));
    }
    let found = match (rustix::fs::statfs(dir), dir.parent()) {
        (Err(Errno::NOENT), Some(parent)) => rustix::fs::statfs(parent),
        (found, _) => found,
    };
    let kind = match found {
        Ok(found) => u64::try_from(found.f_type).unwrap_or_default(),
        // `find` says what is wrong with the path.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error),
    };
    let known = OF_THE_KERNEL.iter().find(|(number, _)| *number == kind);
    Ok(known.map(|(_, shows)| *shows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_shows_is_told_from_files() {
        for dir in [
            "/proc",
            "/proc/self",
            "/proc/none",
            "/sys",
            "/dev",
            "/dev/none",
            "/dev/pts",
        ] {
            assert!(shown_in(Path::new(dir)).unwrap().is_some(), "{dir}");
        }
        let files = tempfile::tempdir().unwrap();
        for dir in [
            files.path(),
            &files.path().join("new"),
            Path::new("/none/none"),
        ] {
            assert_eq!(shown_in(dir), Ok(None), "{}", dir.display());
        }
    }
}
