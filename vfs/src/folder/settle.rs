//! Waits until a path is quiet. Pure: hints and the time go in, paths that are due come out.
//!
//! A file that was closed is due almost at once; one that is still being written waits until nothing has happened for a
//! while; a name that vanished waits a little longer than one that appeared, so that a rename is seen as a whole.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What happened to a path, as far as the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Closed after writing, renamed here, made as a directory or changed in its attributes: complete as it is.
    Complete,
    /// Created or written, not closed yet.
    Growing,
    /// Removed or renamed away.
    Vanished,
}

impl Hint {
    /// How long it has to be quiet afterwards.
    fn quiet(self) -> Duration {
        match self {
            // Long enough for "write a temporary file, rename it over" to be one change.
            Self::Complete => Duration::from_millis(50),
            Self::Growing => GROWING_PAUSE,
            Self::Vanished => Duration::from_millis(150),
        }
    }
}

/// How long a file that is being written has to be left alone.
pub(crate) const GROWING_PAUSE: Duration = Duration::from_secs(1);
/// A file that never comes to rest is looked at this often all the same.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// More paths than this are not remembered one by one; the folder is scanned instead.
const MAX_PATHS: usize = 65_536;

#[derive(Debug)]
struct Waiting {
    due: Instant,
    since: Instant,
}

/// Paths that wait for quiet.
#[derive(Debug, Default)]
pub(crate) struct Settle {
    waiting: HashMap<PathBuf, Waiting>,
    order: BTreeSet<(Instant, PathBuf)>,
    overflowed: bool,
}

impl Settle {
    /// Takes a hint.
    pub(crate) fn hint(&mut self, path: PathBuf, hint: Hint, now: Instant) {
        self.wait(path, now, hint.quiet());
    }

    /// Looks at a path again after `delay`: it was busy or could not be read.
    pub(crate) fn again(&mut self, path: PathBuf, now: Instant, delay: Duration) {
        self.wait(path, now, delay);
    }

    fn wait(&mut self, path: PathBuf, now: Instant, quiet: Duration) {
        let since = match self.waiting.remove(&path) {
            Some(old) => {
                self.order.remove(&(old.due, path.clone()));
                old.since
            }
            None if self.waiting.len() >= MAX_PATHS => {
                self.overflowed = true;
                return;
            }
            None => now,
        };
        let due = (now + quiet).min(since + MAX_WAIT.max(quiet));
        self.order.insert((due, path.clone()));
        self.waiting.insert(path, Waiting { due, since });
    }

    /// When the next path is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes up to `limit` paths that are due.
    pub(crate) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<PathBuf> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((at, _)) = self.order.first()
            && *at <= now
            && let Some((_, path)) = self.order.pop_first()
        {
            if self.waiting.remove(&path).is_some() {
                due.push(path);
            }
        }
        due
    }

    /// True once after more paths changed than are remembered.
    pub(crate) fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Whether a path or something below it is waiting.
    pub(crate) fn is_waiting(&self, path: &Path) -> bool {
        self.waiting.contains_key(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_closed_file_is_due_soon_and_a_growing_one_waits_for_quiet() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        settle.hint("saved".into(), Hint::Growing, start);
        settle.hint("saved".into(), Hint::Complete, start + ms(1));
        for step in 0..20 {
            settle.hint("growing".into(), Hint::Growing, start + ms(step * 500));
        }
        let due = settle.take_due(start + ms(9_600), 10);
        assert_eq!(due, [Path::new("saved")]);
        assert_eq!(settle.next_due(), Some(start + ms(9_500) + ms(1_000)));
    }

    #[test]
    fn a_file_that_never_rests_is_looked_at_in_the_end() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        for second in 0..=300 {
            settle.hint(
                "log".into(),
                Hint::Growing,
                start + Duration::from_secs(second),
            );
        }
        assert_eq!(settle.next_due(), Some(start + MAX_WAIT));
    }

    #[test]
    fn too_many_paths_ask_for_a_scan() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        for number in 0..=MAX_PATHS {
            settle.hint(number.to_string().into(), Hint::Complete, start);
        }
        assert!(settle.take_overflow());
        assert!(!settle.take_overflow());
    }
}
