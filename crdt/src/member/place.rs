//! Sets of records, by their places in this device's list of them.
//!
//! Parents come first in that list, and most of it is a chain: nearly every set is "all up to here". So a set is a
//! number of full words and the words after them, and the past of a record costs next to nothing.

const BITS: usize = u64::BITS as usize;

/// A set of places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// So many words are full.
    full: usize,
    /// The words after them; the first is not full, the last not empty.
    rest: Vec<u64>,
}

impl Places {
    pub(super) fn contains(&self, place: usize) -> bool {
        let word = place / BITS;
        word < self.full
            || self
                .rest
                .get(word - self.full)
                .is_some_and(|bits| bits & (1 << (place % BITS)) != 0)
    }

    pub(super) fn insert(&mut self, place: usize) {
        let Some(word) = (place / BITS).checked_sub(self.full) else {
            return;
        };
        if word >= self.rest.len() {
            self.rest.resize(word + 1, 0);
        }
        if let Some(bits) = self.rest.get_mut(word) {
            *bits |= 1 << (place % BITS);
        }
        self.tidy();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let rest = self.rest.iter().map(|bits| bits.count_ones() as usize);
        self.full * BITS + rest.sum::<usize>()
    }

    /// Words that it takes beside those that are full.
    #[cfg(test)]
    pub(super) fn words(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn add(&mut self, other: &Self) {
        if other.full > self.full {
            let gone = (other.full - self.full).min(self.rest.len());
            self.rest.drain(..gone);
            self.full = other.full;
        }
        let skipped = self.full - other.full;
        let words = other.rest.get(skipped..).unwrap_or_default();
        if words.len() > self.rest.len() {
            self.rest.resize(words.len(), 0);
        }
        for (bits, more) in self.rest.iter_mut().zip(words) {
            *bits |= more;
        }
        self.tidy();
    }

    /// The places that are in both.
    pub(super) fn shared(&self, other: &Self) -> Self {
        let full = self.full.min(other.full);
        let ends = |places: &Self| places.full + places.rest.len();
        let end = ends(self).min(ends(other));
        let mut shared = Self {
            full,
            rest: (full..end)
                .map(|at| self.word(at) & other.word(at))
                .collect(),
        };
        shared.tidy();
        shared
    }

    fn word(&self, at: usize) -> u64 {
        match at.checked_sub(self.full) {
            None => u64::MAX,
            Some(at) => self.rest.get(at).copied().unwrap_or(0),
        }
    }

    fn tidy(&mut self) {
        let full = self.rest.iter().take_while(|bits| **bits == u64::MAX);
        let full = full.count();
        self.rest.drain(..full);
        self.full += full;
        while self.rest.last() == Some(&0) {
            self.rest.pop();
        }
    }
}

impl Extend<usize> for Places {
    fn extend<T: IntoIterator<Item = usize>>(&mut self, places: T) {
        for place in places {
            self.insert(place);
        }
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<T: IntoIterator<Item = usize>>(places: T) -> Self {
        let mut set = Self::default();
        set.extend(places);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn of(places: &BTreeSet<usize>) -> Places {
        places.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn places_are_a_set(
            head in 0_usize..300,
            one in btree_set(0_usize..300, 0..300),
            two in btree_set(0_usize..300, 0..40),
        ) {
            let one: BTreeSet<usize> = one.into_iter().chain(0..head).collect();
            let (a, b) = (of(&one), of(&two));
            prop_assert!((0..310).all(|at| a.contains(at) == one.contains(&at)));
            let mut both = a.clone();
            both.add(&b);
            let mut other = b.clone();
            other.add(&a);
            prop_assert_eq!(&both, &of(&(&one | &two)));
            prop_assert_eq!(&both, &other);
            prop_assert_eq!(a.shared(&b), of(&(&one & &two)));
        }
    }
}
