//! The brake on mass deletion: many entries that vanish within a minute wait for a person.
//!
//! It judges what `vanished` has gathered: a burst as a whole, with all that is held already. What passed within the last
//! minute counts as well, so that a slow deletion is noticed too, though its beginning has been believed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::config::DeletionGuard;

/// A deletion that takes longer than a burst may last arrives in parts; they count together over this long.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts deletions and holds them back.
#[derive(Debug)]
pub(crate) struct Guard {
    limits: DeletionGuard,
    recent: VecDeque<(Instant, u64)>,
    /// A person confirmed; holds until the folder has been scanned once more.
    confirmed: bool,
}

/// The verdict on one batch of deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Record them.
    Pass,
    /// Leave them for a person.
    Hold,
}

impl Guard {
    pub(crate) fn new(limits: DeletionGuard) -> Self {
        Self {
            limits,
            recent: VecDeque::new(),
            confirmed: false,
        }
    }

    /// Lets everything pass until [`Guard::scanned`].
    pub(crate) fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// A full scan is over.
    pub(crate) fn scanned(&mut self) {
        self.confirmed = false;
    }

    /// Judges `deletions` in a folder that holds `entries`, those included.
    pub(crate) fn judge(&mut self, deletions: u64, entries: u64, now: Instant) -> Verdict {
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            self.recent.pop_front();
        }
        let before: u64 = self.recent.iter().map(|(_, count)| count).sum();
        let gone = before.saturating_add(deletions);
        // What the folder held when the window opened, as far as deletions tell.
        let held = entries.saturating_add(before);
        let many = gone >= self.limits.min_entries
            && gone.saturating_mul(100) >= held.saturating_mul(self.limits.percent);
        let emptied = deletions >= entries && held >= self.limits.emptied_entries;
        if (many || emptied) && !self.confirmed {
            return Verdict::Hold;
        }
        if !self.confirmed {
            self.recent.push_back((now, deletions));
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_clean_up_passes() {
        let mut guard = Guard::new(DeletionGuard::default());
        let now = Instant::now();
        assert_eq!(guard.judge(90, 200, now), Verdict::Pass);
        assert_eq!(guard.judge(1, 2, now + WINDOW * 2), Verdict::Pass);
        assert_eq!(guard.judge(1_000, 100_000, now + WINDOW * 4), Verdict::Pass);
    }

    #[test]
    fn a_tree_deleted_in_small_batches_is_held() {
        let mut guard = Guard::new(DeletionGuard::default());
        let now = Instant::now();
        let mut left = 1_000;
        let passed = (0..100).take_while(|_| {
            let verdict = guard.judge(10, left, now);
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
    fn an_emptied_folder_is_held_until_confirmed() {
        let mut guard = Guard::new(DeletionGuard::default());
        let now = Instant::now();
        assert_eq!(guard.judge(12, 12, now), Verdict::Hold);
        guard.confirm();
        assert_eq!(guard.judge(12, 12, now), Verdict::Pass);
    }
}
