//! How a register's siblings and a bucket's state are packed. One state has exactly one form: whoever
//! holds the same changes holds the same bytes.

use serde::{Deserialize, Serialize};

use super::Actor;

/// The layout that this program writes.
const FORMAT: u8 = 2;

/// A write: by whom, in which of the writer's envelopes. An envelope writes a register once at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct OpRef {
    pub(crate) actor: Actor,
    /// The envelope's number, from 1.
    pub(crate) envelope: u64,
}

/// The beginning of an envelope's hash: tells apart two that an author wrote under one number.
pub(crate) type Mark = [u8; 8];

/// One value of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sibling<'a> {
    /// The write that brought it.
    pub(crate) op: OpRef,
    /// Of its envelope.
    pub(crate) mark: Mark,
    pub(crate) value: &'a [u8],
}

/// A register's row.
pub(crate) fn pack(siblings: &mut [Sibling<'_>]) -> Vec<u8> {
    siblings.sort_unstable_by_key(|sibling| (sibling.op, sibling.mark));
    let row = vec![FORMAT];
    postcard::to_extend(&*siblings, row).expect("memory takes any value")
}

/// The inverse of [`pack`]; `None` for a damaged row.
pub(crate) fn unpack(row: &[u8]) -> Option<Vec<Sibling<'_>>> {
    match row.split_first()? {
        (&FORMAT, packed) => postcard::from_bytes(packed).ok(),
        _ => None,
    }
}

/// A bucket's row: the sum of its registers, their bytes, and how many values were ever written.
pub(crate) type Parts<'a> = (&'a [u8; 32], u64, u64);

/// What a bucket knows beside its registers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// The hashes of the registers' rows, added up as 256-bit numbers: it moves with one row and does not depend on
    /// an order. It finds damage and faults, not forgers: those who write here are members.
    sum: [u8; 32],
    bytes: u64,
    written: u64,
}

impl State {
    pub(crate) fn from_parts((sum, bytes, written): Parts<'_>) -> Self {
        let sum = *sum;
        Self {
            sum,
            bytes,
            written,
        }
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        (&self.sum, self.bytes, self.written)
    }

    /// How many values were ever written. A replica that began with a snapshot knows of fewer.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Counts values that were written, whether they are still shown or not.
    pub(crate) fn count(&mut self, values: usize) {
        self.written = self.written.saturating_add(values as u64);
    }

    /// Counts a register's row in.
    pub(crate) fn add(&mut self, key: &[u8], row: &[u8]) {
        self.move_sum(&hash(key, row), 0);
        self.bytes += (key.len() + row.len()) as u64;
    }

    /// Counts a register's row out.
    pub(crate) fn remove(&mut self, key: &[u8], row: &[u8]) {
        self.move_sum(&hash(key, row).map(|byte| !byte), 1);
        self.bytes = self.bytes.saturating_sub((key.len() + row.len()) as u64);
    }

    fn move_sum(&mut self, by: &[u8; 32], mut carry: u16) {
        for (digit, by) in self.sum.iter_mut().zip(by) {
            let [low, high] = (u16::from(*digit) + u16::from(*by) + carry).to_le_bytes();
            *digit = low;
            carry = u16::from(high);
        }
    }
}

fn hash(key: &[u8], row: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(row);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_forgets_what_was_counted_out() {
        let mut state = State::default();
        for row in 0..200_u8 {
            state.add(b"key", &[row]);
        }
        for row in (0..200_u8).rev() {
            state.remove(b"key", &[row]);
        }
        assert_eq!(state, State::default());
    }

    #[test]
    fn a_row_that_is_cut_or_of_another_layout_is_no_row() {
        let op = OpRef {
            actor: [1; 16],
            envelope: 7,
        };
        let value = b"value".as_slice();
        let siblings = [Sibling {
            op,
            mark: [3; 8],
            value,
        }];
        let mut row = pack(&mut siblings.clone());
        assert_eq!(unpack(&row), Some(siblings.to_vec()));
        assert_eq!(unpack(&row[..row.len() - 1]), None);
        assert_eq!(unpack(&[]), None);
        row[0] = 1;
        assert_eq!(unpack(&row), None);
    }
}
