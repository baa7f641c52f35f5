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
    /// Closed after writing: complete as it is. Who wrote through a mapping moved no time, so its stamp says nothing.
    Written,
    /// Renamed here, made as a directory or changed in its attributes: complete as it is.
    Complete,
    /// Created or written, not closed yet.
    Growing,
    /// Removed or renamed away. What stands there afterwards is another, whatever its stamp and number say.
    Vanished,
}

/// How long files that are being written are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// For so long nothing must have happened to a file that was not closed. It doubles each time the file goes on growing
    /// afterwards, up to a minute.
    pub growing: Duration,
    /// A file that never comes to rest is looked at this often all the same.
    pub longest: Duration,
}

impl Default for Quiet {
    /// A second, and five minutes.
    fn default() -> Self {
        Self {
            growing: Duration::from_secs(1),
            longest: Duration::from_secs(300),
        }
    }
}

/// Long enough for "write a temporary file, rename it over" to be one change.
const COMPLETE: Duration = Duration::from_millis(50);
/// Long enough for the other half of a rename.
const VANISHED: Duration = Duration::from_millis(150);
/// A copy that pauses longer than this is taken for done.
const LONGEST_QUIET: Duration = Duration::from_secs(60);
/// More paths than this are not remembered one by one; the folder is scanned instead.
const MAX_PATHS: usize = 65_536;
/// Files of which it is known that they went on growing.
const MAX_RESTLESS: usize = 1_024;

/// A path that came to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) path: PathBuf,
    pub(crate) doubt: Doubt,
}

/// What of a stamp must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// All of it may be.
    Nothing,
    /// That it is the same directory: numbers are given again.
    Identity,
    /// Nor that its bytes are the same.
    Bytes,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    since: Instant,
    doubt: Doubt,
    /// How long it has to be quiet, if it was not closed.
    growing: Option<Duration>,
}

/// A file that was taken for done while somebody still wrote it.
#[derive(Debug)]
struct Restless {
    quiet: Duration,
    until: Instant,
}

/// Paths that wait for quiet.
#[derive(Debug, Default)]
pub(crate) struct Settle {
    quiet: Quiet,
    waiting: HashMap<PathBuf, Waiting>,
    order: BTreeSet<(Instant, PathBuf)>,
    restless: HashMap<PathBuf, Restless>,
    overflowed: bool,
}

impl Settle {
    pub(crate) fn new(quiet: Quiet) -> Self {
        Self {
            quiet,
            ..Self::default()
        }
    }

    /// Takes a hint.
    pub(crate) fn hint(&mut self, path: PathBuf, hint: Hint, now: Instant) {
        let (quiet, growing) = match hint {
            Hint::Written | Hint::Complete => {
                self.restless.remove(&path);
                (COMPLETE, false)
            }
            Hint::Growing => (self.growing(&path, now), true),
            Hint::Vanished => (VANISHED, false),
        };
        let doubt = match hint {
            Hint::Written => Doubt::Bytes,
            Hint::Vanished => Doubt::Identity,
            Hint::Complete | Hint::Growing => Doubt::Nothing,
        };
        self.wait(path, now, quiet, doubt, growing.then_some(quiet));
    }

    /// Looks at a path again after `delay`: it was busy or could not be read.
    pub(crate) fn again(&mut self, path: PathBuf, now: Instant, delay: Duration) {
        self.wait(path, now, delay, Doubt::Nothing, None);
    }

    /// How long a file has to be quiet that somebody writes.
    fn growing(&self, path: &Path, now: Instant) -> Duration {
        let restless = self.restless.get(path).filter(|file| now <= file.until);
        restless.map_or(self.quiet.growing, |file| file.quiet)
    }

    fn wait(
        &mut self,
        path: PathBuf,
        now: Instant,
        quiet: Duration,
        doubt: Doubt,
        growing: Option<Duration>,
    ) {
        let old = self.waiting.remove(&path);
        if old.is_none() && self.waiting.len() >= MAX_PATHS {
            self.overflowed = true;
            return;
        }
        let (since, before) = old
            .as_ref()
            .map_or((now, Doubt::Nothing), |old| (old.since, old.doubt));
        if let Some(old) = old {
            self.order.remove(&(old.due, path.clone()));
        }
        let due = (now + quiet).min(since + self.quiet.longest.max(quiet));
        self.order.insert((due, path.clone()));
        let waiting = Waiting {
            due,
            since,
            doubt: doubt.max(before),
            growing,
        };
        self.waiting.insert(path, waiting);
    }

    /// When the next path is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes up to `limit` paths that are due.
    pub(crate) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((at, _)) = self.order.first()
            && *at <= now
            && let Some((_, path)) = self.order.pop_first()
        {
            let Some(waited) = self.waiting.remove(&path) else {
                continue;
            };
            if let Some(quiet) = waited.growing {
                self.remember_restless(&path, quiet, now);
            }
            due.push(Due {
                path,
                doubt: waited.doubt,
            });
        }
        due
    }

    /// It is taken for done. If it goes on growing, it is given more time.
    fn remember_restless(&mut self, path: &Path, quiet: Duration, now: Instant) {
        if self.restless.len() >= MAX_RESTLESS {
            self.restless.retain(|_, file| now <= file.until);
        }
        if self.restless.len() < MAX_RESTLESS || self.restless.contains_key(path) {
            let file = Restless {
                quiet: (quiet * 2).min(LONGEST_QUIET.max(quiet)),
                until: now + self.quiet.longest,
            };
            self.restless.insert(path.to_owned(), file);
        }
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

    fn paths(due: Vec<Due>) -> Vec<PathBuf> {
        due.into_iter().map(|due| due.path).collect()
    }

    /// A copy that pauses for 1.8 s after each MB, ten times, and is closed then: one partial version, not ten.
    #[test]
    fn the_quiet_time_grows_with_a_file_that_keeps_growing() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        let mut taken = 0;
        for pause in 0..10 {
            let now = start + ms(1_800 * pause);
            settle.hint("copy".into(), Hint::Growing, now);
            taken += settle.take_due(now + ms(1_799), 10).len();
        }
        assert_eq!(taken, 1);
        settle.hint("copy".into(), Hint::Written, start + ms(18_000));
        assert_eq!(settle.take_due(start + ms(18_050), 10).len(), 1);
        // It is done: what is written to it later is a new story.
        settle.hint("copy".into(), Hint::Growing, start + ms(20_000));
        assert_eq!(settle.next_due(), Some(start + ms(21_000)));
    }

    #[test]
    fn what_was_closed_or_vanished_is_doubted_whatever_is_heard_afterwards() {
        let (mut settle, start) = (Settle::default(), Instant::now());
        for (path, hint) in [
            ("closed", Hint::Written),
            ("gone", Hint::Vanished),
            ("touched", Hint::Complete),
        ] {
            settle.hint(path.into(), hint, start);
            settle.hint(path.into(), Hint::Complete, start);
        }
        let due = settle.take_due(start + ms(50), 10);
        let doubts = due
            .iter()
            .map(|due| (due.path.to_str().unwrap(), due.doubt));
        let expected = [
            ("closed", Doubt::Bytes),
            ("gone", Doubt::Identity),
            ("touched", Doubt::Nothing),
        ];
        assert_eq!(doubts.collect::<Vec<_>>(), expected);
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
        assert_eq!(paths(due), [Path::new("saved")]);
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
        assert_eq!(settle.next_due(), Some(start + Quiet::default().longest));
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
