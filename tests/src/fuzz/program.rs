//! What users' programs do in a folder. Each says in the ledger what it put and what it took away.
//!
//! A program that replaces or deletes looks first, as a person does: what it saw may be missing
//! afterwards, what it did not see may not.

mod tree;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::act::Act;
use super::device::{Device, Held};
use super::ledger::Ledger;

const DIRECTORIES: [&str; 6] = ["", "d0", "d1", "d0/e", "d1/e", "d2"];
const FILES: [&str; 5] = ["a.txt", "b.txt", "c.txt", "F.bin", "g.ign"];
const LINKS: [&str; 2] = ["l0", "l1"];

/// A program at work: the folder, the ledger, chance.
struct Hand<'a> {
    root: PathBuf,
    who: String,
    ledger: &'a mut Ledger,
    rng: &'a mut ChaCha8Rng,
}

/// Whether an error only says that the folder is not what it was a moment ago.
pub(super) fn is_expected(error: &anyhow::Error) -> bool {
    let kind = error.chain().find_map(|cause| {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let errno = cause.downcast_ref::<rustix::io::Errno>();
        io.or(errno.map(|errno| errno.kind()))
    });
    matches!(
        kind,
        Some(
            ErrorKind::NotFound
                | ErrorKind::AlreadyExists
                | ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::DirectoryNotEmpty
                | ErrorKind::InvalidInput
        )
    )
}

/// A new file with bytes of its own.
pub(super) fn save_new(
    device: &Device,
    path: &str,
    ledger: &mut Ledger,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    let mut hand = Hand::of(device, ledger, rng);
    hand.save_in_place(path)
}

/// Does one act in the folder.
pub(super) fn perform(
    device: &mut Device,
    act: Act,
    ledger: &mut Ledger,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    let mut hand = Hand::of(device, ledger, rng);
    let path = hand.some_path();
    match act {
        Act::SaveInPlace => hand.save_in_place(&path),
        Act::SaveByRename => hand.save_by_rename(&path),
        Act::SaveWithBackup => hand.save_with_backup(&path),
        Act::Append => hand.append(&path),
        Act::SaveKeepingTime => hand.save_keeping_time(&path).map(drop),
        Act::SaveKeepingTimeAndRename => hand.save_keeping_time_and_rename(&path),
        Act::Touch => hand.touch(&path),
        Act::SetMode => hand.set_mode(&path),
        Act::Copy => hand.copy(&path),
        Act::Delete => hand.delete(&path),
        Act::Rename => hand.rename(&path),
        Act::Swap => hand.swap(&path),
        Act::MakeDirectory => hand.make_directory(),
        Act::RemoveTree => hand.remove_some_tree(),
        Act::Rebuild => hand.rebuild(),
        Act::MoveTree => hand.move_tree(),
        Act::ReplaceTree => hand.replace_tree(),
        Act::Link => hand.link(),
        Act::ChangeKind => hand.change_kind(&path),
        Act::ChangeCase => hand.change_case(&path),
        Act::Ignore => hand.ignore(),
        Act::Hold if device.held.is_none() => {
            device.held = hand.hold(&path)?;
            Ok(())
        }
        Act::Release => match device.held.take() {
            Some(held) => hand.release(held),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

impl<'a> Hand<'a> {
    fn of(device: &Device, ledger: &'a mut Ledger, rng: &'a mut ChaCha8Rng) -> Self {
        Self {
            root: device.root(),
            who: device.shown(),
            ledger,
            rng,
        }
    }

    fn full(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn tell(&mut self, line: &str) {
        let line = format!("{}: {line}", self.who);
        self.ledger.tell(&line);
    }

    fn some<'b>(&mut self, of: &[&'b str]) -> &'b str {
        let index = self.rng.random_range(0..of.len().max(1));
        of.get(index).copied().unwrap_or_default()
    }

    fn some_directory(&mut self) -> String {
        self.some(&DIRECTORIES).to_owned()
    }

    /// A file that is there, mostly; else a name that may be.
    fn some_path(&mut self) -> String {
        let there: Vec<String> = paths(&self.root)
            .into_iter()
            .filter(|path| self.full(path).is_file() && !path.contains("ignore"))
            .collect();
        if self.rng.random_range(0..10) < 7
            && let Some(path) = there.get(self.rng.random_range(0..there.len().max(1)))
        {
            return path.clone();
        }
        self.some_name(&FILES)
    }

    /// A place that may be free; spelled as what is there, because names that differ only in case are
    /// one name to the mesh.
    fn some_name(&mut self, of: &[&str]) -> String {
        let (directory, name) = (self.some_directory(), self.some(of));
        let listing = fs::read_dir(self.full(&directory)).into_iter().flatten();
        let mut names = listing.flatten().map(|item| item.file_name());
        let spelled = names.find(|other| other.eq_ignore_ascii_case(name));
        match spelled {
            Some(spelled) => join(&directory, &spelled.to_string_lossy()),
            None => join(&directory, name),
        }
    }

    /// Bytes that nobody wrote before: mostly few.
    fn fresh(&mut self) -> Vec<u8> {
        let length = match self.rng.random_range(0..20) {
            0..=11 => self.rng.random_range(30..4_000),
            12..=15 => self.rng.random_range(4_000..80_000),
            16..=18 => self.rng.random_range(80_000..900_000),
            _ => self.rng.random_range(900_000..4_000_000),
        };
        self.ledger.bytes(length, self.rng)
    }

    /// What stands at `path` is seen and taken away.
    fn take(&mut self, path: &str) -> String {
        let full = self.full(path);
        if let Ok(target) = fs::read_link(&full) {
            let target = target.to_string_lossy().into_owned();
            self.ledger.take_link(&target);
            return format!("link to {target}");
        }
        match fs::read(&full) {
            Ok(bytes) => {
                self.ledger.take(&bytes);
                self.ledger.name(&bytes)
            }
            Err(_) => "nothing".to_owned(),
        }
    }

    fn save_in_place(&mut self, path: &str) -> Result<()> {
        let full = self.full(path);
        make_parent(&full)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&full)?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        let bytes = self.fresh();
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        let line = format!(
            "save {path} {} over {}",
            self.closed(&file, path, &seen, &bytes)?,
            self.ledger.name(&seen)
        );
        drop(file);
        self.tell(&line);
        Ok(())
    }

    /// A program is done with `file`, in which it saw `seen` and wrote `bytes`. A file that has no name
    /// any more was replaced or deleted under the program's hand; its bytes are lost on every system.
    fn closed(&mut self, file: &File, path: &str, seen: &[u8], bytes: &[u8]) -> Result<String> {
        let has_name = file.metadata()?.nlink() > 0;
        if has_name {
            self.ledger.take(seen);
        }
        let at = format!("{} {path}", self.who);
        self.ledger.put(bytes, &at, has_name);
        let name = self.ledger.name(bytes);
        Ok(if has_name {
            name
        } else {
            format!("{name} (into an unlinked file)")
        })
    }

    fn save_by_rename(&mut self, path: &str) -> Result<()> {
        let full = self.full(path);
        make_parent(&full)?;
        let beside = full.with_file_name(format!(".{}.part", self.rng.random_range(0..1000)));
        let bytes = self.fresh();
        fs::write(&beside, &bytes)?;
        if full.is_dir() {
            fs::remove_file(&beside)?;
            return Ok(());
        }
        let over = self.take(path);
        fs::rename(&beside, &full)?;
        self.put(&bytes, path);
        let name = self.ledger.name(&bytes);
        self.tell(&format!("save by rename {path} {name} over {over}"));
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], path: &str) {
        let at = format!("{} {path}", self.who);
        self.ledger.put(bytes, &at, true);
    }

    fn save_with_backup(&mut self, path: &str) -> Result<()> {
        let full = self.full(path);
        let backup = format!("{path}~");
        let old = fs::read(&full)?;
        let over = self.take(&backup);
        fs::rename(&full, self.full(&backup))?;
        let bytes = self.fresh();
        let mut file = File::create_new(&full)?;
        file.write_all(&bytes)?;
        drop(file);
        self.put(&bytes, path);
        let (new, old) = (self.ledger.name(&bytes), self.ledger.name(&old));
        self.tell(&format!(
            "save {path} {new} , its old {old} as {backup} over {over}"
        ));
        Ok(())
    }

    fn append(&mut self, path: &str) -> Result<()> {
        let full = self.full(path);
        let mut file = OpenOptions::new().read(true).append(true).open(&full)?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        let more = self.ledger.bytes(200, self.rng);
        file.write_all(&more)?;
        let bytes = [seen.as_slice(), &more].concat();
        let name = self.closed(&file, path, &seen, &bytes)?;
        drop(file);
        let seen = self.ledger.name(&seen);
        self.tell(&format!("append {path} {name} over {seen}"));
        Ok(())
    }

    /// Gives what it is called, when there was something to save over.
    fn save_keeping_time(&mut self, path: &str) -> Result<Option<String>> {
        let full = self.full(path);
        let mut file = OpenOptions::new().read(true).write(true).open(&full)?;
        let modified = file.metadata()?.modified()?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        let mut bytes = self.ledger.bytes(seen.len(), self.rng);
        bytes.truncate(seen.len());
        if seen.len() < 60 {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.set_modified(modified)?;
        let name = self.closed(&file, path, &seen, &bytes)?;
        drop(file);
        let seen = self.ledger.name(&seen);
        self.tell(&format!(
            "save {path} {name} over {seen} , same length, time put back"
        ));
        Ok(Some(name))
    }

    fn save_keeping_time_and_rename(&mut self, path: &str) -> Result<()> {
        if self.save_keeping_time(path)?.is_some() {
            self.rename(path)?;
        }
        Ok(())
    }

    fn hold(&mut self, path: &str) -> Result<Option<Held>> {
        let full = self.full(path);
        make_parent(&full)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&full)?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        let half = self.ledger.bytes(3_000, self.rng);
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&half)?;
        self.ledger.take(&seen);
        let at = format!("{} {path}", self.who);
        self.ledger.put(&half, &at, false);
        let (name, seen) = (self.ledger.name(&half), self.ledger.name(&seen));
        self.tell(&format!("hold {path} open with {name} over {seen}"));
        Ok(Some(Held {
            file,
            path: path.to_owned(),
            half,
        }))
    }

    fn release(&mut self, held: Held) -> Result<()> {
        let Held {
            mut file,
            path,
            half,
        } = held;
        // Somebody else may have written into the same file meanwhile.
        file.seek(SeekFrom::Start(0))?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        let rest = self.ledger.bytes(2_000, self.rng);
        file.write_all(&rest)?;
        let bytes = [seen.as_slice(), &rest].concat();
        let name = self.closed(&file, &path, &seen, &bytes)?;
        drop(file);
        let half = self.ledger.name(&half);
        self.tell(&format!("close {path} with {name} , was {half}"));
        Ok(())
    }

    fn touch(&mut self, path: &str) -> Result<()> {
        let file = OpenOptions::new().write(true).open(self.full(path))?;
        file.set_modified(std::time::SystemTime::now())?;
        self.tell(&format!("touch {path}"));
        Ok(())
    }

    fn set_mode(&mut self, path: &str) -> Result<()> {
        let mode = if self.rng.random() { 0o755 } else { 0o644 };
        fs::set_permissions(self.full(path), fs::Permissions::from_mode(mode))?;
        self.tell(&format!("chmod {mode:o} {path}"));
        Ok(())
    }

    fn copy(&mut self, path: &str) -> Result<()> {
        let bytes = fs::read(self.full(path))?;
        let to = self.some_name(&FILES);
        let full = self.full(&to);
        make_parent(&full)?;
        let mut file = File::create_new(&full)?;
        file.write_all(&bytes)?;
        drop(file);
        self.put(&bytes, &to);
        let name = self.ledger.name(&bytes);
        self.tell(&format!("copy {path} {to} {name}"));
        Ok(())
    }

    fn delete(&mut self, path: &str) -> Result<()> {
        let gone = self.take(path);
        fs::remove_file(self.full(path))?;
        self.tell(&format!("delete {path} {gone}"));
        Ok(())
    }

    fn rename(&mut self, path: &str) -> Result<()> {
        let to = self.some_name(&FILES);
        let (full, target) = (self.full(path), self.full(&to));
        if to == path || !full.is_file() || target.is_dir() {
            return Ok(());
        }
        make_parent(&target)?;
        let moved = self.ledger.name(&fs::read(&full)?);
        let over = self.take(&to);
        fs::rename(full, target)?;
        self.tell(&format!("mv {path} {to} {moved} over {over}"));
        Ok(())
    }

    fn swap(&mut self, path: &str) -> Result<()> {
        let other = self.some_path();
        exchange(&self.full(path), &self.full(&other))?;
        self.tell(&format!("swap {path} {other}"));
        Ok(())
    }

    fn link(&mut self) -> Result<()> {
        let path = join(&self.some_directory(), self.some(&LINKS));
        let full = self.full(&path);
        make_parent(&full)?;
        let target = format!("to-{}", self.rng.random_range(0..u32::MAX));
        let beside = full.with_file_name(format!(".{target}"));
        symlink(&target, &beside)?;
        let over = self.take(&path);
        fs::rename(beside, full)?;
        let at = format!("{} {path}", self.who);
        self.ledger.put_link(&target, &at);
        self.tell(&format!("ln -sfn {target} {path} over {over}"));
        Ok(())
    }

    fn change_kind(&mut self, path: &str) -> Result<()> {
        self.delete(path)?;
        fs::create_dir(self.full(path))?;
        self.tell(&format!("mkdir {path}"));
        self.save_in_place(&join(path, "b.txt"))
    }

    fn change_case(&mut self, path: &str) -> Result<()> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let turned = if name.chars().any(char::is_uppercase) {
            name.to_lowercase()
        } else {
            name.to_uppercase()
        };
        let to = join(directory, &turned);
        if self.full(&to).exists() || turned.ends_with(".IGN") {
            return Ok(());
        }
        fs::rename(self.full(path), self.full(&to))?;
        self.tell(&format!("mv {path} {to}"));
        Ok(())
    }

    /// Only names that end in `.ign` are ever ignored, so that the end knows what may differ.
    fn ignore(&mut self) -> Result<()> {
        let rules = if self.rng.random() {
            "*.ign\n"
        } else {
            "# nothing\n"
        };
        fs::write(self.full(".wormhole/ignore"), rules)?;
        self.tell(&format!("ignore {}", rules.trim()));
        Ok(())
    }
}

/// Everything below `root` but what is Wormhole's, directories before what is in them.
fn paths(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        let Ok(listing) = fs::read_dir(root.join(&directory)) else {
            continue;
        };
        let mut names: Vec<String> = listing
            .flatten()
            .map(|item| item.file_name().to_string_lossy().into_owned())
            .filter(|name| name != ".wormhole" && !name.ends_with(".part"))
            .collect();
        names.sort();
        for name in names {
            let path = join(&directory, &name);
            let is_dir = fs::symlink_metadata(root.join(&path)).is_ok_and(|meta| meta.is_dir());
            if is_dir {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn exchange(one: &Path, other: &Path) -> Result<()> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a path inside the folder")?;
    Ok(fs::create_dir_all(parent)?)
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}
