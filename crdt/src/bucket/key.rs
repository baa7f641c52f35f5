//! The names of registers: in a change as text (`p`, `c` or `a`, then the entry's id in unpadded
//! base64url; nothing else may stand there), in the database as the bytes of the id, then the letter.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;

use crate::id::{BucketId, EntryId};
use crate::register::Register;

/// Which register of which entry.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct RegisterKey {
    pub(crate) id: EntryId,
    pub(crate) register: Register,
}

impl RegisterKey {
    /// The inverse of `Display`; refuses any other spelling of the same id.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (&kind, id) = text.as_bytes().split_first()?;
        let register = register(kind)?;
        let id = BASE64URL_NOPAD.decode(id).ok()?;
        Some(Self {
            id: EntryId::from_bytes(id.try_into().ok()?),
            register,
        })
    }

    /// The key in the database: all registers of an entry, and all entries of a bucket, are neighbours.
    pub(crate) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [letter(self.register); 17];
        let (id, _) = bytes.split_at_mut(16);
        id.copy_from_slice(self.id.as_bytes());
        bytes
    }

    /// The inverse of [`RegisterKey::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8; 17]) -> Option<Self> {
        let (&kind, _) = bytes.split_last()?;
        Some(Self {
            id: EntryId::from_bytes(*bytes.first_chunk::<16>()?),
            register: register(kind)?,
        })
    }

    /// The least and the greatest key that a register of the bucket can have.
    pub(crate) fn range(bucket: BucketId) -> ([u8; 17], [u8; 17]) {
        let [high, low] = (bucket.number() << 4).to_be_bytes();
        let (mut first, mut last) = ([0; 17], [0xff; 17]);
        [first[0], first[1]] = [high, low];
        [last[0], last[1]] = [high, low | 0x0f];
        (first, last)
    }
}

fn letter(register: Register) -> u8 {
    match register {
        Register::Placement => b'p',
        Register::Content => b'c',
        Register::Attributes => b'a',
    }
}

fn register(letter: u8) -> Option<Register> {
    match letter {
        b'p' => Some(Register::Placement),
        b'c' => Some(Register::Content),
        b'a' => Some(Register::Attributes),
        _ => None,
    }
}

impl fmt::Display for RegisterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(letter(self.register));
        write!(f, "{letter}{}", BASE64URL_NOPAD.encode(self.id.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_from_text_and_from_bytes_and_lies_in_its_buckets_range() {
        for (first, number) in [(0, 0), (0x12, 0x123), (0xff, 0xfff)] {
            let bucket = BucketId::new(number).unwrap();
            let mut id = [first; 16];
            id[1] = (number << 4).to_le_bytes()[0] | 7;
            let id = EntryId::from_bytes(id);
            assert_eq!(id.bucket(), bucket);
            for register in [Register::Placement, Register::Content, Register::Attributes] {
                let key = RegisterKey { id, register };
                assert_eq!(RegisterKey::parse(&key.to_string()), Some(key));
                assert_eq!(RegisterKey::from_bytes(&key.to_bytes()), Some(key));
                let (first, last) = RegisterKey::range(bucket);
                assert!((first..=last).contains(&key.to_bytes()));
            }
        }
    }
}
