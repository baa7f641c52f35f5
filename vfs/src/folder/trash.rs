//! What a change from elsewhere removed or replaced, kept for a while: `.wormhole/trash/<when>/<where it stood>`.
//!
//! Nothing is copied: a file is renamed on its own disk, and the store's references follow it. The directories say all
//! there is to know, so no database can lose it and people can look with their own tools. The oldest goes first: after
//! its time, when everything is more than may be kept, and whenever the disk is short. Here are the disk's side and the
//! limits; `apply` puts things in, the actor has them cleared out.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::beneath::{self, Audience, Root, SeenKind};
use super::config::TrashLimit;
use super::name;

pub(crate) mod when;

use self::when::When;

/// Deeper trees than can be opened by path are not walked.
const MAX_DEPTH: usize = 2_048;
/// Things that stood at one path and were removed in one second.
const MAX_TWINS: u32 = 100;

/// Something that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// Where it stood, relative to the folder.
    pub path: PathBuf,
    /// 1 for the last that stood there, 2 for the one before.
    pub version: u64,
    /// When it was removed or replaced, in seconds since 1970.
    pub at: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is, below the trash.
    pub(crate) kept: PathBuf,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrashSize {
    /// Files and links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl TrashSize {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, bytes: u64) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A free place in the trash, made before anything is taken away.
#[derive(Debug)]
pub(crate) struct Berth {
    dir: OwnedFd,
    name: OsString,
    /// Relative to the folder.
    path: PathBuf,
    size: u64,
    /// What may be kept in all.
    budget: u64,
}

impl Berth {
    /// Where in the folder it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn at(&self) -> (std::os::fd::BorrowedFd<'_>, &OsStr) {
        (self.dir.as_fd(), &self.name)
    }
}

/// The trash of one folder.
#[derive(Debug)]
pub(crate) struct Trash {
    limit: TrashLimit,
    /// As far as is known: what was there before the first clearing is not.
    size: TrashSize,
    /// More is kept than may be.
    over: bool,
}

impl Trash {
    pub(crate) fn new(limit: TrashLimit) -> Self {
        Self {
            limit,
            size: TrashSize::default(),
            over: false,
        }
    }

    pub(crate) fn size(&self) -> TrashSize {
        self.size
    }

    /// Whether more is kept than may be.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Finds room for something that stands at `path`. `None` when nothing is to be kept: the disk is short, it is larger
    /// than everything that may be kept, or people do not want it.
    pub(crate) fn berth(
        &self,
        root: &Root,
        path: &Path,
        size: u64,
        now: When,
    ) -> io::Result<Option<Berth>> {
        let space = beneath::space(root)?;
        let budget = self.limit.budget(space.total);
        if size > budget || self.limit.days == 0 || space.is_short() {
            return Ok(None);
        }
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let above = path.parent().unwrap_or(Path::new(""));
        for twin in 1..MAX_TWINS {
            let place = Path::new(name::TRASH).join(now.name(twin)).join(above);
            // Where it stood may have been closed to others.
            let dir = beneath::make_dirs(root, &place, Audience::Owner)?;
            if beneath::look(dir.as_fd(), name)?.is_none() {
                let (name, path) = (name.to_owned(), place.join(name));
                return Ok(Some(Berth {
                    dir,
                    name,
                    path,
                    size,
                    budget,
                }));
            }
        }
        Ok(None)
    }

    /// Something was put there.
    pub(crate) fn took(&mut self, berth: &Berth) {
        self.size.add(berth.size);
        self.over = self.size.bytes > berth.budget;
    }

    /// Everything that is kept: the last of each path first, paths in order.
    pub(crate) fn list(root: &Root) -> io::Result<Vec<Trashed>> {
        let mut all = Vec::new();
        for (when, day) in days(root)? {
            walk(root, &day, &mut |kept, path, seen| {
                all.push((
                    when,
                    Trashed {
                        path,
                        version: 0,
                        at: when.seconds(),
                        size: seen.stamp.size,
                        kept,
                    },
                ));
            })?;
        }
        all.sort_by(|(one_at, one), (other_at, other)| {
            (&one.path, std::cmp::Reverse(one_at)).cmp(&(&other.path, std::cmp::Reverse(other_at)))
        });
        let mut all: Vec<Trashed> = all.into_iter().map(|(_, trashed)| trashed).collect();
        let mut before: Option<(PathBuf, u64)> = None;
        for trashed in &mut all {
            trashed.version = match &before {
                Some((path, version)) if *path == trashed.path => version + 1,
                Some(_) | None => 1,
            };
            before = Some((trashed.path.clone(), trashed.version));
        }
        Ok(all)
    }

    /// Removes what is too old or too much. Answers what went, relative to the folder.
    pub(crate) fn clear_out(&mut self, root: &Root, now: When) -> io::Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        let mut total = TrashSize::default();
        for (when, day) in days(root)? {
            let mut size = TrashSize::default();
            let walked = walk(root, &day, &mut |_, _, seen| size.add(seen.stamp.size));
            if let Err(error) = walked {
                tracing::warn!(path = %name::display(&day), %error, "cannot be looked through");
            }
            total.files += size.files;
            total.bytes = total.bytes.saturating_add(size.bytes);
            kept.push((when, day, size));
        }
        let mut gone = Vec::new();
        for (when, day, size) in kept {
            let keep = Duration::from_secs(self.limit.days * 24 * 3600);
            let old = when.seconds().saturating_add(keep.as_secs()) < now.seconds();
            if !old && size.files > 0 && !self.is_too_much(root, total)? {
                break;
            }
            let mut enough = |total: TrashSize| -> io::Result<bool> {
                Ok(!old && !self.is_too_much(root, total)?)
            };
            // The others go all the same.
            if let Err(error) = clear_day(root, &day, &mut total, &mut enough, &mut gone) {
                tracing::warn!(path = %name::display(&day), %error, "cannot be removed from the trash");
            }
        }
        self.size = total;
        self.over = false;
        Ok(gone)
    }

    /// Whether more is kept than may be, or the disk is short.
    fn is_too_much(&self, root: &Root, total: TrashSize) -> io::Result<bool> {
        let space = beneath::space(root)?;
        Ok(total.bytes > self.limit.budget(space.total) || space.is_short())
    }

    /// Something was taken out again.
    pub(crate) fn gave(&mut self, trashed: &Trashed) {
        self.size.take(trashed.size);
    }
}

/// The directories by time, the oldest first. Others are not ours.
fn days(root: &Root) -> io::Result<Vec<(When, PathBuf)>> {
    let trash = match root.open_dir(Path::new(name::TRASH)) {
        Ok(trash) => trash,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut days = Vec::new();
    beneath::list(trash.as_fd(), &mut |name| {
        if let Some(when) = name.to_str().and_then(When::parse) {
            days.push((when, Path::new(name::TRASH).join(name)));
        }
    })?;
    days.sort();
    Ok(days)
}

/// Visits every file and link below: where it is kept, and where it stood.
fn walk(
    root: &Root,
    day: &Path,
    visit: &mut dyn FnMut(PathBuf, PathBuf, beneath::Seen),
) -> io::Result<()> {
    let mut directories = vec![(day.to_owned(), PathBuf::new(), 0)];
    while let Some((kept, stood, depth)) = directories.pop() {
        let dir = root.open_dir(&kept)?;
        let mut names = Vec::new();
        beneath::list(dir.as_fd(), &mut |name| names.push(name.to_owned()))?;
        for name in names {
            let (kept, stood) = (kept.join(&name), stood.join(&name));
            let Some(seen) = beneath::look(dir.as_fd(), &name)? else {
                continue;
            };
            if seen.kind != SeenKind::Directory {
                visit(kept, stood, seen);
            } else if depth < MAX_DEPTH {
                directories.push((kept, stood, depth + 1));
            }
        }
    }
    Ok(())
}

/// Removes file after file of what was put there at one time, until what is left in all is `enough`; with the last of them
/// the directory goes. Tells what went.
fn clear_day(
    root: &Root,
    day: &Path,
    total: &mut TrashSize,
    enough: &mut dyn FnMut(TrashSize) -> io::Result<bool>,
    gone: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let mut directories = vec![day.to_owned()];
    let mut emptied = Vec::new();
    while let Some(path) = directories.pop() {
        let dir = root.open_dir(&path)?;
        let mut names = Vec::new();
        beneath::list(dir.as_fd(), &mut |name| names.push(name.to_owned()))?;
        for name in names {
            let Some(seen) = beneath::look(dir.as_fd(), &name)? else {
                continue;
            };
            let path = path.join(&name);
            if seen.kind == SeenKind::Directory {
                directories.push(path);
                continue;
            }
            if enough(*total)? {
                return Ok(());
            }
            beneath::remove_file(dir.as_fd(), &name)?;
            total.take(seen.stamp.size);
            gone.push(path);
        }
        emptied.push(path);
    }
    for path in emptied.into_iter().rev() {
        if let (Some(above), Some(name)) = (path.parent(), path.file_name()) {
            beneath::remove_dir(root.open_dir(above)?.as_fd(), name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Root) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(name::CONTROL)).unwrap();
        let root = Root::open(home.path()).unwrap();
        (home, root)
    }

    fn limit(bytes: u64) -> TrashLimit {
        TrashLimit {
            days: 30,
            bytes: Some(bytes),
        }
    }

    fn put(trash: &mut Trash, root: &Root, home: &Path, path: &str, text: &str, at: u64) {
        std::fs::write(home.join("taken"), text).unwrap();
        let size = text.len() as u64;
        let berth = trash.berth(root, Path::new(path), size, When::at(at));
        let berth = berth.unwrap().expect("there is room");
        let top = root.open_dir(Path::new("")).unwrap();
        beneath::rename_new((top.as_fd(), OsStr::new("taken")), berth.at()).unwrap();
        trash.took(&berth);
    }

    fn listed(root: &Root) -> Vec<(String, u64, u64)> {
        let all = Trash::list(root).unwrap();
        let one = |one: Trashed| (one.path.display().to_string(), one.version, one.at);
        all.into_iter().map(one).collect()
    }

    #[test]
    fn versions_of_a_path_are_numbered_from_the_last() {
        let (home, root) = folder();
        let mut trash = Trash::new(limit(1_000));
        for at in [100, 200, 200] {
            put(&mut trash, &root, home.path(), "a/b", "text", at);
        }
        put(&mut trash, &root, home.path(), "a/c", "text", 150);
        let expected = [
            ("a/b", 1, 200),
            ("a/b", 2, 200),
            ("a/b", 3, 100),
            ("a/c", 1, 150),
        ];
        assert_eq!(
            listed(&root),
            expected.map(|(path, n, at)| (path.into(), n, at))
        );
        assert_eq!(
            trash.size(),
            TrashSize {
                files: 4,
                bytes: 16
            }
        );
    }

    #[test]
    fn the_oldest_goes_when_there_is_too_much_and_when_its_time_is_over() {
        let (home, root) = folder();
        let mut trash = Trash::new(limit(10));
        for at in [100, 200, 300] {
            put(&mut trash, &root, home.path(), "file", "text", at);
        }
        assert!(trash.is_over());
        trash.clear_out(&root, When::at(301)).unwrap();
        assert!(!trash.is_over());
        assert_eq!(
            listed(&root),
            [("file".into(), 1, 300), ("file".into(), 2, 200)]
        );
        trash
            .clear_out(&root, When::at(250 + 30 * 24 * 3600))
            .unwrap();
        assert_eq!(listed(&root), [("file".into(), 1, 300)]);
        assert_eq!(trash.size(), TrashSize { files: 1, bytes: 4 });
    }

    #[test]
    fn of_what_went_at_once_as_much_stays_as_may_be_kept() {
        let (home, root) = folder();
        let mut trash = Trash::new(limit(10));
        put(&mut trash, &root, home.path(), "older", "text", 90);
        for name in ["a", "dir/b", "dir/c"] {
            put(&mut trash, &root, home.path(), name, "text", 100);
        }
        let gone = trash.clear_out(&root, When::at(101)).unwrap();
        assert_eq!(gone.len(), 2, "{gone:?}");
        let left = listed(&root);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.iter().all(|(path, ..)| path != "older"), "{left:?}");
        assert_eq!(trash.size(), TrashSize { files: 2, bytes: 8 });
    }

    #[test]
    fn what_is_larger_than_all_that_may_be_kept_is_not_kept() {
        let (_home, root) = folder();
        let trash = Trash::new(limit(10));
        let berth = trash.berth(&root, Path::new("file"), 11, When::at(1));
        assert!(berth.unwrap().is_none());
    }

    #[test]
    fn what_is_in_the_trash_but_not_ours_stays() {
        let (home, root) = folder();
        let foreign = home.path().join(name::TRASH).join("my notes");
        std::fs::create_dir_all(&foreign).unwrap();
        let mut trash = Trash::new(limit(0));
        trash
            .clear_out(&root, When::at(u64::from(u32::MAX)))
            .unwrap();
        assert!(foreign.exists());
        assert_eq!(listed(&root), []);
    }
}
