//! What later programs say in a value beside what this one knows: bytes under numbers.
//!
//! A program keeps the extensions that it does not know when it writes a value anew. The lowest bit of
//! a number says what they belong to: those with an even number to the entry, so that they go over to
//! the value that replaces this one; those with an odd number to this value alone, so that they stay
//! only where the same value is written once more.

use serde::{Deserialize, Serialize};

/// How many extensions one value may have.
pub(crate) const MAX_EXTENSIONS: usize = 16;

/// How long they may be together: with two full lists of versions and the longest target of a symlink
/// the biggest value still fits. What is longer is a content of its own.
pub(crate) const MAX_EXTENSION_BYTES: usize = 384;

/// Extensions by ascending number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Extensions(Vec<(u32, Vec<u8>)>);

impl Extensions {
    /// Those that go over to the value that replaces this one.
    pub(crate) fn of_entry(&self) -> Self {
        let lasting = self.0.iter().filter(|(number, _)| number % 2 == 0);
        Self(lasting.cloned().collect())
    }

    /// Whether they are within the limits and can be written in one way only.
    pub(super) fn are_in_order(&self) -> bool {
        let bytes: usize = self.0.iter().map(|(_, bytes)| bytes.len()).sum();
        self.0.len() <= MAX_EXTENSIONS
            && bytes <= MAX_EXTENSION_BYTES
            && self.0.is_sorted_by(|(one, _), (other, _)| one < other)
    }
}

#[cfg(test)]
impl Extensions {
    pub(crate) fn new(all: &[(u32, &[u8])]) -> Self {
        Self(
            all.iter()
                .map(|(number, bytes)| (*number, bytes.to_vec()))
                .collect(),
        )
    }

    /// As long as they may be.
    pub(crate) fn filled() -> Self {
        let last = u32::MAX - u32::try_from(MAX_EXTENSIONS).unwrap();
        let share = vec![7; MAX_EXTENSION_BYTES / MAX_EXTENSIONS];
        Self(
            (last..u32::MAX)
                .map(|number| (number, share.clone()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_extensions_of_an_entry_go_over_to_its_next_value() {
        let all = Extensions::new(&[(1, b"of the value"), (4, b"of the entry")]);
        assert_eq!(all.of_entry(), Extensions::new(&[(4, b"of the entry")]));
    }

    #[test]
    fn extensions_that_are_too_many_too_long_or_not_in_order_are_refused() {
        assert!(Extensions::filled().are_in_order());
        let long = vec![0; MAX_EXTENSION_BYTES + 1];
        let many: Vec<(u32, &[u8])> = (0..17).map(|number| (number, b"".as_slice())).collect();
        for bad in [
            Extensions::new(&[(2, b""), (1, b"")]),
            Extensions::new(&[(2, b""), (2, b"")]),
            Extensions::new(&[(2, &long)]),
            Extensions::new(&many),
        ] {
            assert!(!bad.are_in_order(), "{bad:?}");
        }
    }
}
