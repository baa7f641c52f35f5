//! Deletions that wait for a person: which, and how they are shown. They stay, over restarts, until somebody confirms or
//! undoes this very list, or until what vanished is back. `record/removal` decides, `state` keeps them on disk.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::guard::{Burst, WINDOW};
use super::name::Place;
use super::status::{FolderStatus, HeldDeletions};

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Held {
    places: HashSet<Place>,
    shown: HeldDeletions,
    /// When the last of it vanished, and where. Not known of what was held before a restart.
    burst: Option<(Instant, Burst)>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn contains(&self, place: &Place) -> bool {
        self.places.contains(place)
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        self.places.iter().cloned().collect()
    }

    /// How it is shown.
    pub(crate) fn shown(&self) -> &HeldDeletions {
        &self.shown
    }

    /// Whether it vanished so lately that what is happening there may not be over.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        self.burst
            .as_ref()
            .is_some_and(|(at, _)| now.duration_since(*at) <= WINDOW)
    }

    /// Whether something that vanishes now is of the same burst.
    pub(crate) fn goes_on(&self, burst: &Burst, now: Instant) -> bool {
        self.is_young(now) && self.is_where(&burst.dir)
    }

    /// Whether something that appears now may replace what is held.
    pub(crate) fn may_be_replaced(&self, path: &Path, now: Instant) -> bool {
        self.is_young(now) && self.is_where(path)
    }

    fn is_where(&self, path: &Path) -> bool {
        self.burst
            .as_ref()
            .is_some_and(|(_, burst)| path.starts_with(&burst.dir))
    }

    /// The burst that what waits came with.
    pub(crate) fn since(&mut self, now: Instant, burst: Burst) {
        self.burst = Some((now, burst));
    }

    /// Waits for these, of so many entries. `paths` are theirs, safe to print.
    pub(crate) fn set(&mut self, places: HashSet<Place>, entries: u64, mut paths: Vec<Arc<str>>) {
        paths.sort_unstable();
        paths.truncate(FolderStatus::LISTED);
        self.shown = HeldDeletions {
            entries,
            paths,
            list: list_of(&places),
        };
        if places.is_empty() {
            self.burst = None;
        }
        self.places = places;
    }
}

/// Names a list by what is on it.
fn list_of(places: &HashSet<Place>) -> u64 {
    let mut sorted: Vec<&Place> = places.iter().collect();
    sorted.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for place in sorted {
        hasher.update(place.parent.as_bytes());
        hasher.update(place.name.as_str().as_bytes());
        hasher.update(&[0xff]);
    }
    let hash = hasher.finalize();
    let (first, _rest) = hash
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use wormhole_crdt::{EntryId, EntryName};

    use super::*;

    #[test]
    fn a_list_is_named_by_what_is_on_it() {
        let place = |text: &str| Place::new(EntryId::ROOT, EntryName::parse(text).unwrap());
        let list = |texts: &[&str]| list_of(&texts.iter().copied().map(place).collect());
        assert_eq!(list(&["a", "b"]), list(&["b", "a"]));
        assert_ne!(list(&["a", "b"]), list(&["ab"]));
        assert_ne!(list(&["a"]), list(&[]));
    }
}
