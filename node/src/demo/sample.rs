//! The folder that the demo shares: a little of everything that folders hold.
//!
//! Always the same bytes, so that two runs can be compared. With `--from` a copy of somebody's
//! own directory takes its place; the original is only read.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const SEED: u64 = 7;
const MIB: usize = 1 << 20;

/// Makes the sample in `dir`, which must not exist.
pub(super) fn make(dir: &Path) -> io::Result<()> {
    let mut rng = SmallRng::seed_from_u64(SEED);
    fs::create_dir(dir)?;
    fs::write(
        dir.join("README.txt"),
        "A folder on three devices at once.\n".repeat(40),
    )?;
    for number in 0..40 {
        let module = dir.join(format!("source/module-{number:02}"));
        fs::create_dir_all(&module)?;
        for part in 0..25 {
            let text =
                format!("// part {part} of module {number}\n").repeat(rng.random_range(8..400));
            fs::write(module.join(format!("part-{part:02}.rs")), text)?;
        }
    }
    fs::create_dir(dir.join("photos"))?;
    for number in 1..=12 {
        let size = rng.random_range(MIB..2 * MIB);
        noise(
            &dir.join(format!("photos/IMG_{number:04}.raw")),
            size,
            &mut rng,
        )?;
    }
    fs::create_dir(dir.join("Entwürfe"))?;
    fs::write(
        dir.join("Entwürfe/図面 – план ☕.txt"),
        "Names of all languages.\n",
    )?;
    fs::create_dir(dir.join("an empty directory"))?;
    fs::write(dir.join("an empty file"), "")?;
    fs::write(dir.join("build.sh"), "#!/bin/sh\necho built\n")?;
    fs::set_permissions(dir.join("build.sh"), fs::Permissions::from_mode(0o755))?;
    symlink("source/module-00", dir.join("latest"))?;
    noise(&dir.join("film.bin"), 64 * MIB, &mut rng)
}

/// Writes `size` bytes that no compressor can shrink.
pub(super) fn noise(path: &Path, size: usize, rng: &mut SmallRng) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    let mut piece = vec![0; MIB];
    let mut left = size;
    while left > 0 {
        rng.fill(piece.as_mut_slice());
        let part = piece.get(..left.min(MIB)).unwrap_or_default();
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

/// A generator for what is written later in the story.
pub(super) fn chance() -> SmallRng {
    SmallRng::seed_from_u64(SEED + 1)
}

/// Copies a directory: files, directories, links and modes; devices and sockets are left out.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let mut directories = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = directories.pop() {
        for item in fs::read_dir(&from)? {
            let item = item?;
            let (source, target) = (item.path(), to.join(item.file_name()));
            let kind = item.file_type()?;
            if kind.is_dir() {
                fs::create_dir(&target)?;
                directories.push((source, target));
            } else if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                fs::copy(&source, &target)?;
            }
        }
    }
    Ok(())
}
