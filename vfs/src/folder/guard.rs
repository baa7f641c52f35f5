//! The brake on mass deletion: many entries that vanish within a minute wait for a person.
//!
//! It judges what `vanished` has gathered: a burst as a whole. What passed within the last minute counts as well, so that
//! a slow deletion is noticed too, though its beginning has been believed. A burst that is made up for in the smallest
//! directory that holds it (a repository that packs its objects, a build that gives its files new names) is no deletion:
//! it was rewritten. What waits is in `held`.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::config::DeletionGuard;

/// A deletion that takes longer than a burst may last arrives in parts; they count together over this long. What
/// replaces something appears this long before or after.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Of what vanished so much must appear, in number or in bytes, to say that it was rewritten: one in four.
const REWRITTEN: u64 = 4;
/// New entries that are remembered; with more, the brake is only more careful.
const MOST_NEW: usize = 65_536;

/// What vanished at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Burst {
    /// The smallest directory that holds it, relative to the folder.
    pub(crate) dir: PathBuf,
    /// How many entries, those in directories included.
    pub(crate) entries: u64,
    /// The bytes of its files.
    pub(crate) bytes: u64,
}

impl Burst {
    /// Adds what vanished in a directory.
    pub(crate) fn add(&mut self, dir: &Path, entries: u64, bytes: u64) {
        if self.entries == 0 {
            dir.clone_into(&mut self.dir);
        }
        while !dir.starts_with(&self.dir) && self.dir.pop() {}
        self.entries = self.entries.saturating_add(entries);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// How much is in the folder, as far as is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extant {
    /// All entries, those that vanished included.
    pub(crate) entries: u64,
    /// Those of them that wait for a person already.
    pub(crate) held: u64,
}

/// Counts what vanishes and what appears.
#[derive(Debug)]
pub(crate) struct Guard {
    limits: DeletionGuard,
    /// What passed.
    recent: VecDeque<(Instant, u64)>,
    /// When each new path was seen first, in that order; what is not in `new` any more is gone.
    order: VecDeque<(Instant, PathBuf)>,
    /// The bytes at new paths.
    new: BTreeMap<PathBuf, u64>,
    /// What was there when the folder was compared first, though it may be recorded later; and the last such sight.
    old: HashSet<PathBuf>,
    old_at: Option<Instant>,
}

/// The verdict on a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Record it.
    Pass,
    /// Leave it for a person.
    Hold,
}

impl Guard {
    pub(crate) fn new(limits: DeletionGuard) -> Self {
        Self {
            limits,
            recent: VecDeque::new(),
            order: VecDeque::new(),
            new: BTreeMap::new(),
            old: HashSet::new(),
            old_at: None,
        }
    }

    /// Something was there before the folder was: it may be recorded later, and is not new then.
    pub(crate) fn was_there(&mut self, path: &Path, now: Instant) {
        if self.old.len() < MOST_NEW {
            self.old.insert(path.to_owned());
            self.old_at = Some(now);
        }
    }

    /// Something that was not synced before stands at a path.
    pub(crate) fn appeared(&mut self, path: &Path, bytes: u64, now: Instant) {
        self.forget_old(now);
        if self.old.contains(path) {
            return;
        }
        if self.new.insert(path.to_owned(), bytes).is_some() {
            return;
        }
        self.order.push_back((now, path.to_owned()));
        if self.order.len() > MOST_NEW
            && let Some((_, path)) = self.order.pop_front()
        {
            self.new.remove(&path);
        }
    }

    /// Nothing stands at a path and below it any more: that makes up for nothing.
    pub(crate) fn vanished(&mut self, path: &Path) {
        let below: Vec<PathBuf> = self
            .new
            .range(path.to_owned()..)
            .map(|(at, _)| at)
            .take_while(|at| at.starts_with(path))
            .cloned()
            .collect();
        for at in below {
            self.new.remove(&at);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let is_old = |at: Instant| now.duration_since(at) > WINDOW;
        if self.old_at.is_some_and(is_old) {
            self.old.clear();
            self.old_at = None;
        }
        while self.recent.front().is_some_and(|(at, _)| is_old(*at)) {
            self.recent.pop_front();
        }
        while self.order.front().is_some_and(|(at, _)| is_old(*at)) {
            if let Some((_, path)) = self.order.pop_front() {
                self.new.remove(&path);
            }
        }
    }

    /// Whether what vanished is made up for where it was.
    pub(crate) fn is_rewritten(&mut self, burst: &Burst, now: Instant) -> bool {
        self.forget_old(now);
        let there = self
            .new
            .range(burst.dir.clone()..)
            .take_while(|(path, _)| path.starts_with(&burst.dir));
        let (entries, bytes) = there.fold((0_u64, 0_u64), |(entries, sum), (_, bytes)| {
            (entries + 1, sum.saturating_add(*bytes))
        });
        let enough =
            |new: u64, old: u64| old > 0 && new > 0 && new.saturating_mul(REWRITTEN) >= old;
        enough(entries, burst.entries) || enough(bytes, burst.bytes)
    }

    /// Judges a burst.
    pub(crate) fn judge(&mut self, burst: &Burst, extant: Extant, now: Instant) -> Verdict {
        self.forget_old(now);
        let before: u64 = self.recent.iter().map(|(_, count)| count).sum();
        let gone = before.saturating_add(burst.entries);
        // What the folder held when the window opened, as far as deletions tell.
        let all = extant.entries.saturating_add(before);
        let many = gone >= self.limits.min_entries
            && gone.saturating_mul(100) >= all.saturating_mul(self.limits.percent);
        let emptied = burst.entries.saturating_add(extant.held) >= extant.entries
            && all >= self.limits.emptied_entries;
        if (many || emptied) && !self.is_rewritten(burst, now) {
            return Verdict::Hold;
        }
        if !(many || emptied) {
            self.recent.push_back((now, burst.entries));
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(entries: u64) -> Burst {
        let mut burst = Burst::default();
        burst.add(Path::new(""), entries, entries * 1_000);
        burst
    }

    fn of(entries: u64) -> Extant {
        Extant { entries, held: 0 }
    }

    fn guard() -> (Guard, Instant) {
        (Guard::new(DeletionGuard::default()), Instant::now())
    }

    #[test]
    fn an_ordinary_clean_up_passes() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(&burst(90), of(200), now), Verdict::Pass);
        let later = now + WINDOW * 2;
        assert_eq!(guard.judge(&burst(1), of(2), later), Verdict::Pass);
        let later = now + WINDOW * 4;
        assert_eq!(
            guard.judge(&burst(1_000), of(100_000), later),
            Verdict::Pass
        );
    }

    #[test]
    fn a_tree_deleted_in_small_batches_is_held() {
        let (mut guard, now) = guard();
        let mut left = 1_000;
        let passed = (0..100).take_while(|_| {
            let verdict = guard.judge(&burst(10), of(left), now);
            left -= 10;
            verdict == Verdict::Pass
        });
        assert_eq!(
            passed.count(),
            24,
            "the batch that reaches a quarter is held"
        );
    }

    #[test]
    fn an_emptied_folder_is_held_though_some_of_it_is_held_already() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(&burst(12), of(12), now), Verdict::Hold);
        let rest = Extant {
            entries: 12,
            held: 10,
        };
        assert_eq!(guard.judge(&burst(2), rest, now), Verdict::Hold);
    }

    /// The figures of `git gc` in a clone of a real repository: 2,249 loose objects of 4,078,174 bytes in 256 directories
    /// became five files of 1,331,292 bytes. The work tree has 422 files.
    #[test]
    fn a_repository_that_packs_its_objects_is_rewritten() {
        let (mut guard, now) = guard();
        let objects = Path::new(".git/objects");
        for (name, bytes) in [
            ("pack/pack-ed02.pack", 1_246_414),
            ("pack/pack-ed02.idx", 64_044),
            ("pack/pack-ed02.rev", 9_048),
            ("info/commit-graph", 11_732),
            ("info/packs", 54),
        ] {
            guard.appeared(&objects.join(name), bytes, now);
        }
        let mut packed = Burst::default();
        for number in 0..=255_u8 {
            let (entries, bytes) = (2_249 / 256 + 2, 4_078_174 / 256 + 1);
            let dir = objects.join(format!("{number:02x}"));
            packed.add(&dir, entries, bytes);
        }
        assert_eq!(packed.dir, objects);
        let later = now + WINDOW / 2;
        assert_eq!(guard.judge(&packed, of(3_000), later), Verdict::Pass);
        // The same with nothing to make up for it.
        let later = now + WINDOW * 2;
        assert_eq!(guard.judge(&packed, of(3_000), later), Verdict::Hold);
    }

    /// The figures of a real build: the compiler keeps 365 files of 64,246,617 bytes in a directory with a hash for its
    /// name, writes as many into another one and removes the first.
    #[test]
    fn a_build_with_hashed_names_is_rewritten() {
        let (mut guard, now) = guard();
        let dir = Path::new("target/incremental/vfs-3uk5");
        let mut old = Burst::default();
        old.add(dir, 366, 64_246_617);
        assert_eq!(guard.judge(&old, of(1_000), now), Verdict::Hold);
        for number in 0..365 {
            let new = dir.join(format!("s-hok9-new/{number}.o"));
            guard.appeared(&new, 176_018, now);
        }
        assert_eq!(guard.judge(&old, of(1_000), now), Verdict::Pass);
    }

    #[test]
    fn what_came_and_went_makes_up_for_nothing() {
        let (mut guard, now) = guard();
        for number in 0..300 {
            guard.appeared(Path::new(&format!("dir/{number}")), 1_000, now);
        }
        let mut gone = Burst::default();
        gone.add(Path::new(""), 301, 300_000);
        assert!(guard.is_rewritten(&gone, now));
        guard.vanished(Path::new("dir"));
        assert!(!guard.is_rewritten(&gone, now));
    }

    #[test]
    fn no_number_of_bytes_makes_up_for_empty_files() {
        let (mut guard, now) = guard();
        guard.appeared(Path::new("film.mp4"), 1 << 30, now);
        let mut empty = Burst::default();
        empty.add(Path::new(""), 300, 0);
        assert_eq!(guard.judge(&empty, of(400), now), Verdict::Hold);
    }

    #[test]
    fn what_appears_elsewhere_makes_up_for_nothing() {
        let (mut guard, now) = guard();
        for number in 0..1_000 {
            guard.appeared(Path::new(&format!("music/{number}")), 1 << 20, now);
        }
        let mut photos = Burst::default();
        photos.add(Path::new("photos/2024"), 300, 1 << 20);
        photos.add(Path::new("photos/2025"), 300, 1 << 20);
        assert_eq!(guard.judge(&photos, of(2_000), now), Verdict::Hold);
    }
}
