//! The kernel's hints about what changed. Hints only: they may be late, doubled or missing, and the scan is the truth.
//!
//! One watch per directory, set before the directory is read, so that nothing falls between; ignored directories are not
//! watched, the control directory only for the ignore file and the marker in it. The queue to the actor is bounded: when it is full, or the kernel's is, the actor
//! is told to scan everything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, mpsc};

use super::name;
use super::settle::Hint;

/// Hints that wait for the actor; beyond that a scan is cheaper.
pub(crate) const QUEUED_HINTS: usize = 16_384;

/// Everything is compared at least this often: hints can be missing.
const RESCAN: Duration = Duration::from_secs(3600);
/// And this often when not all directories can be watched.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(60);

/// What the watcher could not tell one by one.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    lost: AtomicBool,
    limit: AtomicBool,
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
        self.limit.load(Ordering::Relaxed)
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
    inner: RecommendedWatcher,
    dir: PathBuf,
    watched: BTreeSet<PathBuf>,
    trouble: Arc<Trouble>,
}

impl Watcher {
    /// Starts with nothing of the tree watched. Paths in hints are relative to `dir`.
    ///
    /// # Errors
    /// When the system has no watcher left; the folder then scans now and then.
    pub(crate) fn start(
        dir: &Path,
        hints: mpsc::Sender<(PathBuf, Hint)>,
        trouble: Arc<Trouble>,
    ) -> notify::Result<Self> {
        let root = dir.to_owned();
        let told = Arc::clone(&trouble);
        let config = notify::Config::default().with_follow_symlinks(false);
        let handler = move |event: notify::Result<Event>| deliver(event, &root, &hints, &told);
        let inner = RecommendedWatcher::new(handler, config)?;
        let mut watcher = Self {
            inner,
            dir: dir.to_owned(),
            watched: BTreeSet::new(),
            trouble,
        };
        // For this device's own rules and the marker: the temporary directory in it is a directory of its own.
        watcher.add(Path::new(name::CONTROL));
        Ok(watcher)
    }

    /// Watches one directory. A limit that is hit is remembered, anything else shows itself in the scan.
    pub(crate) fn add(&mut self, path: &Path) {
        if self.watched.contains(path) {
            return;
        }
        match self
            .inner
            .watch(&self.dir.join(path), RecursiveMode::NonRecursive)
        {
            Ok(()) => {
                self.watched.insert(path.to_owned());
            }
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                self.trouble.limit();
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot watch"),
        }
    }

    /// Stops watching a directory and all below it: it moved, went away or is ignored now.
    pub(crate) fn remove_tree(&mut self, path: &Path) {
        let below: Vec<PathBuf> = self
            .watched
            .range(path.to_owned()..)
            .take_while(|at| at.starts_with(path))
            .cloned()
            .collect();
        for at in below {
            self.watched.remove(&at);
            if let Err(error) = self.inner.unwatch(&self.dir.join(&at)) {
                // The kernel drops the watch of a directory that is gone by itself.
                tracing::trace!(path = %at.display(), %error, "was not watched any more");
            }
        }
    }
}

fn deliver(
    event: notify::Result<Event>,
    root: &Path,
    hints: &mpsc::Sender<(PathBuf, Hint)>,
    trouble: &Trouble,
) {
    let event = match event {
        Ok(event) if event.need_rescan() => {
            trouble.lose();
            return;
        }
        Ok(event) => event,
        Err(error) => {
            match error.kind {
                ErrorKind::MaxFilesWatch => trouble.limit(),
                _ => trouble.lose(),
            }
            return;
        }
    };
    let Some(hint) = meaning(&event.kind) else {
        return;
    };
    for path in &event.paths {
        let Ok(relative) = path.strip_prefix(root) else {
            continue;
        };
        if hint == Hint::Vanished && is_foundation(relative) {
            trouble.doubt();
        }
        if name::is_control(relative) && relative != Path::new(name::LOCAL_IGNORE) {
            continue;
        }
        if hints.try_send((relative.to_owned(), hint)).is_err() {
            trouble.lose();
        }
    }
}

/// What a folder must not be without: itself, its control directory, its marker.
fn is_foundation(relative: &Path) -> bool {
    let control = Path::new(name::CONTROL);
    relative.as_os_str().is_empty()
        || relative == control
        || relative
            .strip_prefix(control)
            .is_ok_and(|below| below == Path::new(name::MARKER))
}

/// Reads and opens say nothing; a rename is told by its two halves.
fn meaning(kind: &EventKind) -> Option<Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(CreateKind::Folder)
        | EventKind::Modify(ModifyKind::Metadata(_) | ModifyKind::Name(RenameMode::To)) => {
            Some(Hint::Complete)
        }
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
            Some(Hint::Vanished)
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) | EventKind::Access(_) => None,
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
            Some(Hint::Growing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::Flag;

    fn told(event: notify::Result<Event>) -> (Trouble, mpsc::Receiver<(PathBuf, Hint)>) {
        let (hints, queue) = mpsc::channel(1);
        let trouble = Trouble::default();
        deliver(event, Path::new("/folder"), &hints, &trouble);
        (trouble, queue)
    }

    #[test]
    fn a_kernel_queue_that_overflowed_asks_for_a_scan_once() {
        let (trouble, _) = told(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert!(trouble.take_lost());
        assert!(!trouble.take_lost());
        assert!(!trouble.is_limited());
    }

    #[test]
    fn a_full_queue_to_the_folder_asks_for_a_scan() {
        let event = Event::new(EventKind::Create(CreateKind::Folder))
            .add_path("/folder/one".into())
            .add_path("/folder/two".into());
        let (trouble, mut queue) = told(Ok(event));
        assert_eq!(
            queue.try_recv().unwrap(),
            (PathBuf::from("one"), Hint::Complete)
        );
        assert!(trouble.take_lost());
    }

    #[test]
    fn a_folder_that_moves_or_loses_its_marker_is_looked_for() {
        let gone = |path: &str| {
            let kind = EventKind::Remove(notify::event::RemoveKind::Any);
            let (trouble, _) = told(Ok(Event::new(kind).add_path(path.into())));
            trouble.take_doubt()
        };
        assert!(gone("/folder"));
        assert!(gone("/folder/.wormhole"));
        assert!(gone("/folder/.wormhole/folder"));
        assert!(!gone("/folder/.wormhole/ignore"));
        assert!(!gone("/folder/file"));
    }

    #[test]
    fn without_enough_watches_everything_is_compared_every_minute() {
        let (trouble, _) = told(Err(notify::Error::new(ErrorKind::MaxFilesWatch)));
        assert!(trouble.is_limited());
        assert_eq!(trouble.rescan_every(), RESCAN_UNWATCHED);
        assert_eq!(Trouble::default().rescan_every(), RESCAN);
    }
}
