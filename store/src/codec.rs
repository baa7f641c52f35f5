//! How a chunk's bytes are encoded: as they are, or zstd.
//!
//! Compression never stands between a write and its acknowledgement: at 2.6 CPU s/GiB on text zstd
//! is ten times dearer than hashing. Packs are written raw and compressed later, by a sweep
//! (`evict`); a sender may compress what it serves with [`Encoded::compressed`]. An lz4 probe of two
//! samples (0.01-0.06 CPU s/GiB) tells first whether zstd is worth its time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chunker::MAX_CHUNK;

/// Encoding of a chunk's bytes, on disk and on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum Codec {
    /// The bytes themselves.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// The byte that stands for the codec on disk and on the wire.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec a byte stands for, if it is one this version knows.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A chunk as it is stored or sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encoded {
    /// How `bytes` are encoded.
    pub codec: Codec,
    /// Length of the plain bytes, 1 byte to 1 MiB.
    pub len: u32,
    /// The encoded bytes; never longer than the plain ones.
    pub bytes: Bytes,
}

impl Encoded {
    /// Compresses raw bytes for the wire if that is likely to pay; anything else stays as it is.
    ///
    /// Costs 2.1 CPU s/GiB on text and 0.06 on what the probe finds incompressible, so it is for
    /// links slower than about 3 Gbit/s, where it saves more time than it takes.
    #[must_use]
    pub fn compressed(self) -> Self {
        match self.codec {
            Codec::Zstd => self,
            Codec::Raw => match compress(&self.bytes, WIRE_LEVEL) {
                Some(packed) => Self {
                    codec: Codec::Zstd,
                    bytes: packed.into(),
                    ..self
                },
                None => self,
            },
        }
    }

    /// The plain bytes, not yet compared with any id; `None` if they do not decode to exactly
    /// `len` bytes. Never allocates more than `len`, which is at most 1 MiB.
    pub(crate) fn plain(&self) -> Option<Bytes> {
        let len = usize::try_from(self.len)
            .ok()
            .filter(|len| (1..=MAX_CHUNK).contains(len))?;
        match self.codec {
            Codec::Raw => (self.bytes.len() == len).then(|| self.bytes.clone()),
            Codec::Zstd => {
                // A frame that is no shorter than its content is never written by us.
                if self.bytes.len() >= len {
                    return None;
                }
                let plain = zstd::bulk::decompress(&self.bytes, len).ok()?;
                (plain.len() == len).then(|| plain.into())
            }
        }
    }
}

/// zstd level for what stays on disk: 0.176 of source text at 2.6 CPU s/GiB.
pub(crate) const DISK_LEVEL: i32 = 3;
/// zstd level for the wire: 0.186 of source text at 2.1 CPU s/GiB.
const WIRE_LEVEL: i32 = 1;

/// Bytes of each of the two samples that the probe compresses.
const SAMPLE: usize = 4 * 1024;

/// Compresses `plain`, or returns `None` when it would save less than 5 %.
pub(crate) fn compress(plain: &[u8], level: i32) -> Option<Vec<u8>> {
    if !looks_compressible(plain) {
        return None;
    }
    // An error of the compressor only means that the bytes stay raw.
    let packed = zstd::bulk::compress(plain, level).ok()?;
    (packed.len() < plain.len() - plain.len() / 20).then_some(packed)
}

/// Probes two samples, at a third and two thirds, with lz4. Random bytes give a ratio of 1.004,
/// text at most 0.7.
fn looks_compressible(plain: &[u8]) -> bool {
    let sample = SAMPLE.min(plain.len() / 2);
    let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(sample)];
    let mut total = 0;
    for third in [1, 2] {
        let start = (plain.len() / 3 * third).min(plain.len() - sample);
        let Some(piece) = plain.get(start..start + sample) else {
            return false;
        };
        match lz4_flex::block::compress_into(piece, &mut packed) {
            Ok(length) => total += length,
            Err(_) => return false, // cannot be: the buffer has the documented size
        }
    }
    total * 100 <= sample * 2 * 95
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::bend::{Budget, bend};

    fn raw(bytes: Vec<u8>) -> Encoded {
        let len = u32::try_from(bytes.len()).unwrap();
        Encoded {
            codec: Codec::Raw,
            len,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn text_is_compressed_and_comes_back() {
        let text = raw("the quick brown fox jumps over the lazy dog\n"
            .repeat(4000)
            .into_bytes());
        let packed = text.clone().compressed();
        assert_eq!(packed.codec, Codec::Zstd);
        assert!(packed.bytes.len() < text.bytes.len() / 2);
        assert_eq!(packed.plain(), Some(text.bytes));
    }

    #[test]
    fn random_and_tiny_bytes_stay_raw() {
        let mut noise = vec![0; 100_000];
        rand_chacha::ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
        for bytes in [noise, vec![1], vec![1, 2], b"short".to_vec()] {
            let raw = raw(bytes);
            assert_eq!(raw.clone().compressed(), raw);
        }
    }

    #[test]
    fn a_lie_about_the_length_is_refused_without_allocating_it() {
        let packed = raw(vec![b'a'; 500_000]).compressed();
        assert_eq!(packed.codec, Codec::Zstd);
        for len in [0, 1, 499_999, 500_001, u32::MAX] {
            assert_eq!(
                Encoded {
                    len,
                    ..packed.clone()
                }
                .plain(),
                None,
                "{len}"
            );
        }
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let bomb = Encoded {
            codec: Codec::Zstd,
            len: 1 << 20,
            bytes: bomb.into(),
        };
        assert_eq!(bomb.plain(), None);
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused() {
        let garbage = Encoded {
            codec: Codec::Zstd,
            len: 100,
            bytes: Bytes::from_static(b"xx"),
        };
        assert_eq!(garbage.plain(), None);
        assert_eq!(Codec::from_byte(2), None);
        for codec in [Codec::Raw, Codec::Zstd] {
            assert_eq!(Codec::from_byte(codec.to_byte()), Some(codec));
        }
    }

    #[test]
    fn bent_chunks_do_no_harm() {
        let plain = b"so it goes, ".repeat(20_000);
        let packed = compress(&plain, DISK_LEVEL).unwrap();
        let wire = |codec: Codec, bytes: &[u8]| {
            let length = u32::try_from(plain.len()).unwrap().to_le_bytes();
            [&[codec.to_byte()][..], &length, bytes].concat()
        };
        let right = [wire(Codec::Zstd, &packed), wire(Codec::Raw, &plain)];
        // What comes out is at most a whole chunk, and zstd has tables of its own.
        let budget = Budget {
            fixed: 2 * MAX_CHUNK as u64,
            per_byte: 8,
        };
        bend("chunks", &right, "", budget, |bytes| {
            let Some((head, bytes)) = bytes.split_first_chunk::<5>() else {
                return;
            };
            let [codec, len @ ..] = *head;
            if let Some(codec) = Codec::from_byte(codec) {
                let (len, bytes) = (u32::from_le_bytes(len), Bytes::copy_from_slice(bytes));
                let _plain = Encoded { codec, len, bytes }.plain();
            }
        });
    }
}
