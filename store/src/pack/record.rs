//! One record of a pack: a header of 52 bytes, then the chunk as encoded.
//!
//! ```text
//! "WHR1"  codec u8  0 x 3  stored u32  len u32  chunk id 32  checksum 4     integers LE
//! ```
//! The checksum is the start of BLAKE3 over the 48 bytes before it: it tells a header from bytes
//! that look like one while scanning. The payload needs none, its id is one.

use crate::chunker::MAX_CHUNK;
use crate::codec::Codec;
use crate::id::ChunkId;

/// Length of a header.
pub(crate) const HEADER_BYTES: u64 = HEADER as u64;
const HEADER: usize = 52;
const CHECKED: usize = 48;
/// What every record begins with.
pub(super) const MAGIC: [u8; 4] = *b"WHR1";

/// What the header of a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) id: ChunkId,
    pub(crate) codec: Codec,
    /// Length of the payload.
    pub(crate) stored: u32,
    /// Length of the plain bytes.
    pub(crate) len: u32,
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[self.codec.to_byte(), 0, 0, 0]);
        bytes.extend_from_slice(&self.stored.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&checksum(&bytes));
        bytes
            .try_into()
            .expect("the fields add up to the header's length")
    }

    /// Decodes a header, if these bytes are one.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (checked, sum) = bytes.split_first_chunk::<CHECKED>()?;
        if sum != checksum(checked) {
            return None;
        }
        let (magic, rest) = checked.split_first_chunk::<4>()?;
        let ([codec, zeros @ ..], rest) = rest.split_first_chunk::<4>()?;
        let (stored, rest) = rest.split_first_chunk::<4>()?;
        let (len, id) = rest.split_first_chunk::<4>()?;
        let record = Self {
            id: ChunkId::from_bytes(id.try_into().ok()?),
            codec: Codec::from_byte(*codec)?,
            stored: u32::from_le_bytes(*stored),
            len: u32::from_le_bytes(*len),
        };
        let plausible = *magic == MAGIC
            && *zeros == [0; 3]
            && (1..=MAX_CHUNK).contains(&(record.len as usize))
            && (1..=record.len).contains(&record.stored);
        plausible.then_some(record)
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut sum = [0; 4];
    sum.copy_from_slice(blake3::hash(bytes).as_bytes().split_at(4).0);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record = Record {
        id: ChunkId::from_bytes([5; 32]),
        codec: Codec::Zstd,
        stored: 10,
        len: 20,
    };

    #[test]
    fn a_header_round_trips() {
        assert_eq!(Record::decode(&RECORD.encode()), Some(RECORD));
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_no_header() {
        for bit in 0..HEADER * 8 {
            let mut bytes = RECORD.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused_even_with_a_right_checksum() {
        for (stored, len) in [
            (0, 1),
            (2, 1),
            (1, 0),
            (1, (1 << 20) + 1),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(
                Record::decode(
                    &Record {
                        stored,
                        len,
                        ..RECORD
                    }
                    .encode()
                ),
                None
            );
        }
    }
}
