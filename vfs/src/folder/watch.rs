//! The kernel's hints about what changed. Hints only: they may be late, doubled or missing, and the scan is the truth.
//!
//! One watch per directory, set on the very directory that is read next, so that nothing falls between; ignored directories
//! are not watched, the control directory only for the ignore file and the marker in it. A watch is the kernel's and
//! belongs to an inode: where that is, is said again each time it is listed, and [`Watcher::audit`] finds directories that
//! became others unnoticed. The queue to the actor is bounded: when it is full, or the kernel's is, the actor is told to
//! scan everything.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::sync::{Notify, mpsc};

use super::beneath::{self, Root, Seen};
use super::name;
use super::settle::Hint;
use super::stamp::same_inode;

/// Hints that wait for the actor; beyond that a scan is cheaper.
pub(crate) const QUEUED_HINTS: usize = 16_384;

/// What is asked of the kernel for each directory.
const MASK: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);
/// Events taken from the kernel at once: some thousand.
const BUFFER: usize = 64 << 10;

/// Everything is compared at least this often: hints can be missing.
const RESCAN: Duration = Duration::from_secs(3600);
/// And this often when not all directories can be watched.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(60);

/// What the watcher could not tell one by one.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    lost: AtomicBool,
    limit: AtomicBool,
    deaf: AtomicBool,
    doubt: AtomicBool,
    news: Notify,
}

impl Trouble {
    /// Hints were lost: scan everything.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// The system's limit of watches is reached: scan now and then.
    pub(crate) fn limit(&self) {
        self.limit.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Nothing is heard at all any more: scan now and then.
    pub(crate) fn deafen(&self) {
        self.deaf.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// Every directory is going to be watched anew: if the limit is still reached, it is said again.
    pub(crate) fn try_again(&self) {
        self.limit.store(false, Ordering::Relaxed);
    }

    /// The folder itself may have moved, or its marker may be gone: look.
    pub(crate) fn doubt(&self) {
        self.doubt.store(true, Ordering::Relaxed);
        self.news.notify_one();
    }

    /// True once after there was doubt.
    pub(crate) fn take_doubt(&self) -> bool {
        self.doubt.swap(false, Ordering::Relaxed)
    }

    /// True once after hints were lost.
    pub(crate) fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limit.load(Ordering::Relaxed) || self.deaf.load(Ordering::Relaxed)
    }

    /// How often everything is compared, whatever the hints say.
    pub(crate) fn rescan_every(&self) -> Duration {
        if self.is_limited() {
            RESCAN_UNWATCHED
        } else {
            RESCAN
        }
    }

    /// Waits for news of any kind. Cancel-safe.
    pub(crate) async fn wait(&self) {
        self.news.notified().await;
    }
}

/// The watches of one folder.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

/// What the reading thread needs.
#[derive(Debug)]
struct Shared {
    kernel: OwnedFd,
    places: Mutex<Places>,
    hints: mpsc::Sender<(PathBuf, Hint)>,
    trouble: Arc<Trouble>,
    stopping: AtomicBool,
}

/// Which watch is where. The kernel never gives a number twice.
#[derive(Debug, Default)]
struct Places {
    by_number: HashMap<i32, PathBuf>,
    by_path: BTreeMap<PathBuf, Watched>,
}

/// A directory, as it was when it was last listed.
#[derive(Clone, Copy, Debug)]
struct Watched {
    number: i32,
    seen: Seen,
}

impl Watcher {
    /// Starts with nothing of the tree watched but the folder itself and its control directory. Paths in hints are
    /// relative to the folder.
    ///
    /// # Errors
    /// When the system has no watch left; the folder then scans now and then.
    pub(crate) fn start(
        root: &Root,
        hints: mpsc::Sender<(PathBuf, Hint)>,
        trouble: Arc<Trouble>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            kernel: inotify::init(CreateFlags::CLOEXEC)?,
            places: Mutex::default(),
            hints,
            trouble,
            stopping: AtomicBool::new(false),
        });
        let reading = Arc::clone(&shared);
        for path in ["", name::CONTROL] {
            let dir = root.open_dir(Path::new(path))?;
            shared.add(Path::new(path), &dir)?;
        }
        let reader = std::thread::Builder::new()
            .name("folder watch".into())
            .spawn(move || reading.read())?;
        Ok(Self {
            shared,
            reader: Some(reader),
        })
    }

    /// Watches one directory, which is about to be listed. A limit that is hit is remembered, anything else shows itself in
    /// the scan.
    pub(crate) fn add(&mut self, path: &Path, dir: &OwnedFd) {
        match self.shared.add(path, dir) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                self.shared.trouble.limit();
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot watch"),
        }
    }

    /// Stops watching a directory and all below it: it moved, went away or is ignored now.
    pub(crate) fn remove_tree(&mut self, path: &Path) {
        let mut places = self.shared.places();
        let below: Vec<PathBuf> = places
            .by_path
            .range(path.to_owned()..)
            .take_while(|(at, _)| at.starts_with(path))
            .map(|(at, _)| at.clone())
            .collect();
        for at in below {
            if let Some(watched) = places.by_path.remove(&at) {
                self.shared.end(&mut places, watched.number);
            }
        }
    }

    /// How many directories are watched.
    pub(crate) fn len(&self) -> usize {
        self.shared.places().by_path.len()
    }

    /// Looks at some of the directories that are watched, from `after` on: those that are others than the ones that were
    /// listed, and those whose names changed since. Answers how far it came, `None` at the end.
    pub(crate) fn audit(
        &self,
        root: &Root,
        after: Option<PathBuf>,
        limit: usize,
    ) -> (Vec<PathBuf>, Vec<PathBuf>, Option<PathBuf>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<(PathBuf, Seen)> = self
            .shared
            .places()
            .by_path
            .range((start, Bound::Unbounded))
            .take(limit)
            .map(|(path, watched)| (path.clone(), watched.seen))
            .collect();
        let last = if some.len() == limit {
            some.last().map(|(path, _)| path.clone())
        } else {
            None
        };
        let (mut others, mut changed) = (Vec::new(), Vec::new());
        for (path, seen) in some {
            let now = root.open_dir(&path);
            let now = now.and_then(|dir| beneath::look_at(dir.as_fd()));
            // What is gone, its own directory tells.
            let Ok(now) = now else { continue };
            if name::is_control(&path) {
                continue;
            }
            if !same_inode(&now, &seen) {
                others.push(path);
            } else if now.stamp != seen.stamp {
                changed.push(path);
            }
        }
        (others, changed, last)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if !self.shared.wake() {
            // It ends with the next thing that happens in the folder.
            tracing::warn!("the watch of a folder does not hear that it is over");
        } else if let Some(Err(panic)) = self.reader.take().map(JoinHandle::join) {
            tracing::error!(?panic, "the watch of a folder panicked");
        }
        // With the last handle the kernel's watches go.
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: &Path, dir: &OwnedFd) -> io::Result<()> {
        let seen = beneath::look_at(dir.as_fd())?;
        let mut places = self.places();
        // By its number and not by its name: it is this directory that is going to be listed.
        let open = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let number = inotify::add_watch(&self.kernel, open, MASK)?;
        if let Some(other) = places.by_number.insert(number, path.to_owned())
            && other != path
        {
            places.by_path.remove(&other);
        }
        let watched = Watched { number, seen };
        if let Some(old) = places.by_path.insert(path.to_owned(), watched)
            && old.number != number
        {
            self.end(&mut places, old.number);
        }
        Ok(())
    }

    /// Makes the kernel say something: it tells when a watch was removed.
    fn wake(&self) -> bool {
        let numbers: Vec<i32> = self.places().by_number.keys().copied().collect();
        let removed = |number| inotify::remove_watch(&self.kernel, number).is_ok();
        // Those of directories that are gone are removed already, and the word of that may have been lost.
        numbers.into_iter().any(removed)
            || inotify::add_watch(&self.kernel, "/", MASK).is_ok_and(removed)
    }

    fn end(&self, places: &mut Places, number: i32) {
        places.by_number.remove(&number);
        if let Err(error) = inotify::remove_watch(&self.kernel, number) {
            // The kernel drops the watch of a directory that is gone by itself.
            tracing::trace!(number, %error, "was not watched any more");
        }
    }

    /// Reads events until the watcher stops.
    fn read(&self) {
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); BUFFER];
        let mut reader = Reader::new(&self.kernel, &mut buffer);
        while !self.stopping.load(Ordering::Relaxed) {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(CStr::to_bytes);
                    self.took(event.wd(), event.events(), name);
                }
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot read what changes in a folder");
                    self.trouble.deafen();
                    return;
                }
            }
        }
    }

    fn took(&self, number: i32, events: ReadFlags, name: Option<&[u8]>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.trouble.lose();
            return;
        }
        let mut places = self.places();
        let Some(place) = places.by_number.get(&number).cloned() else {
            return;
        };
        if events.contains(ReadFlags::IGNORED) {
            places.by_number.remove(&number);
            let watched = places.by_path.get(&place);
            if watched.is_some_and(|watched| watched.number == number) {
                places.by_path.remove(&place);
            }
            return;
        }
        drop(places);
        if events.contains(ReadFlags::UNMOUNT) {
            self.trouble.doubt();
        }
        let Some(hint) = meaning(events) else { return };
        let path = match name {
            Some(name) => place.join(OsStr::from_bytes(name)),
            None => place,
        };
        deliver(path, hint, &self.hints, &self.trouble);
    }
}

fn deliver(path: PathBuf, hint: Hint, hints: &mpsc::Sender<(PathBuf, Hint)>, trouble: &Trouble) {
    if is_foundation(&path) && (hint == Hint::Vanished || is_marker(&path)) {
        trouble.doubt();
    }
    let ours = name::is_control(&path) && path != Path::new(name::LOCAL_IGNORE);
    if ours || path.as_os_str().is_empty() {
        return;
    }
    if hints.try_send((path, hint)).is_err() {
        trouble.lose();
    }
}

/// What a folder must not be without: itself, its control directory, its marker.
fn is_foundation(relative: &Path) -> bool {
    let control = Path::new(name::CONTROL);
    relative.as_os_str().is_empty() || relative == control || is_marker(relative)
}

/// The marker may not even become another: one of an older copy may have been put there.
fn is_marker(relative: &Path) -> bool {
    relative
        .strip_prefix(name::CONTROL)
        .is_ok_and(|below| below == Path::new(name::MARKER))
}

/// A rename is told by its two halves.
fn meaning(events: ReadFlags) -> Option<Hint> {
    let any = |flags: ReadFlags| events.intersects(flags);
    let gone = ReadFlags::DELETE | ReadFlags::DELETE_SELF;
    let away = ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF;
    if any(gone | away) {
        Some(Hint::Vanished)
    } else if any(ReadFlags::CLOSE_WRITE) {
        Some(Hint::Written)
    } else if any(ReadFlags::MOVED_TO | ReadFlags::ATTRIB)
        || events.contains(ReadFlags::CREATE | ReadFlags::ISDIR)
    {
        Some(Hint::Complete)
    } else if any(ReadFlags::CREATE | ReadFlags::MODIFY) {
        Some(Hint::Growing)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
