//! What vanished from the folder, gathered until it can be judged as a whole. Pure: places and the time go in, and when
//! nothing more vanishes for a moment, everything that is missing comes out.
//!
//! `rm -rf` of a tree reaches this device as thousands of single deletions. Judged one by one, the first ones would be
//! believed before their number gives them away. The limits themselves are in `guard`; what waits for a person is in `held`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::name::Place;

/// Nothing more has to vanish for this long. With the pause of a hint it keeps a single deletion below a second.
const QUIET: Duration = Duration::from_millis(400);
/// A deletion that goes on is judged this often, with all that vanished so far.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// How much of the folder was looked at for what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Some paths.
    #[default]
    Part,
    /// Everything.
    Whole,
}

/// Places that wait to be judged.
#[derive(Debug, Default)]
pub(crate) struct Vanished {
    places: HashSet<Place>,
    /// The first and the last vanishing since the last judgement.
    burst: Option<(Instant, Instant)>,
    /// Judge even if nothing vanished: what is held may have come back.
    asked: bool,
}

impl Vanished {
    /// These places seem to have lost what stood there.
    pub(crate) fn add(&mut self, places: Vec<Place>, now: Instant) {
        for place in places {
            if self.places.insert(place) {
                let first = self.burst.map_or(now, |(first, _)| first);
                self.burst = Some((first, now));
            }
        }
    }

    /// The kernel says that something vanished; which place that was is not known yet.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Some((_, last)) = &mut self.burst {
            *last = now;
        }
    }

    /// Looks again at what waits for a person.
    pub(crate) fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether something vanished that was not judged yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.burst.is_some() || self.asked
    }

    /// When it is to be judged: at once if it was asked for and nothing vanishes right now.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        match self.burst {
            Some((first, last)) => Some((last + QUIET).min(first + MAX_WAIT)),
            None => self.asked.then_some(now),
        }
    }

    /// Takes everything out, to be judged.
    pub(crate) fn take(&mut self) -> Vec<Place> {
        std::mem::take(self).places.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wormhole_crdt::{EntryId, EntryName};

    fn place(number: u64) -> Place {
        let name = EntryName::parse(&number.to_string()).unwrap();
        Place::new(EntryId::ROOT, name)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_is_judged_as_a_whole_when_it_is_over() {
        let (mut vanished, start) = (Vanished::default(), Instant::now());
        for step in 0..10 {
            vanished.add(vec![place(step)], start + ms(step * 100));
        }
        vanished.heard(start + ms(1_000));
        let due = vanished.due(start).unwrap();
        assert_eq!(due, start + ms(1_400));
        assert_eq!(vanished.take().len(), 10);
        assert!(!vanished.is_pending());
    }

    #[test]
    fn a_single_deletion_waits_less_than_a_second() {
        let (mut vanished, start) = (Vanished::default(), Instant::now());
        vanished.add(vec![place(0)], start);
        assert_eq!(vanished.due(start), Some(start + QUIET));
    }

    #[test]
    fn a_deletion_that_goes_on_is_judged_now_and_then() {
        let (mut vanished, start) = (Vanished::default(), Instant::now());
        for step in 0..100 {
            vanished.add(vec![place(step)], start + ms(step * 100));
        }
        assert_eq!(vanished.due(start), Some(start + MAX_WAIT));
    }

    #[test]
    fn what_is_held_is_looked_at_when_it_is_asked_for() {
        let (mut vanished, start) = (Vanished::default(), Instant::now());
        assert_eq!(vanished.due(start), None);
        vanished.ask();
        assert_eq!(vanished.due(start), Some(start));
        assert_eq!(vanished.take(), []);
        assert_eq!(vanished.due(start), None);
    }
}
