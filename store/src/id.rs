//! Names of bytes: chunk and content ids, the key they are made with, and the root of references.
//!
//! A [`ChunkId`] is BLAKE3 keyed with the mesh's [`ContentKey`], so that a stranger who stores or
//! sees ids cannot confirm which known files a mesh holds. Every room uses these types; nothing
//! here touches a disk.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::chunker::MIN_CHUNK;

/// A text that is not the hex form of an id of this length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Error)]
#[error("expected {digits} hex digits")]
pub struct ParseIdError {
    /// How many hex digits the id has.
    pub digits: usize,
}

/// Defines an id: a newtype over bytes that prints as hex and is compact in binary encodings.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps the raw bytes of an id.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Returns the raw bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (short, _) = self.0.split_at(5);
                write!(f, concat!(stringify!($name), "({}..)"), HEXLOWER.encode(short))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = ParseIdError { digits: 2 * $len };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| error)?;
                bytes.try_into().map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

byte_id!(
    /// Names a chunk (or a manifest blob, which is stored like one): keyed BLAKE3 of its bytes.
    ChunkId,
    32
);
byte_id!(
    /// Names one version of a file's bytes; see [`Content`] for what it is the id of.
    ContentId,
    32
);
byte_id!(
    /// Names a directory that references point into: the id of a binding.
    RootId,
    16
);

impl ContentId {
    /// The blob to ask for first: the manifest root, or the only chunk of a small content.
    pub const fn first_blob(&self) -> ChunkId {
        ChunkId(self.0)
    }
}

impl From<ChunkId> for ContentId {
    fn from(id: ChunkId) -> Self {
        Self(id.0)
    }
}

/// One version of a file's bytes.
///
/// Contents of up to [`MIN_CHUNK`] bytes are exactly one chunk and have no manifest: their id *is*
/// the chunk's id. Larger ones have a manifest, and their id is the id of its root blob. The size
/// tells which. An empty content has no chunk at all and is always present.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// The chunk's or the manifest root's id.
    pub id: ContentId,
    /// Length in bytes.
    pub size: u64,
}

impl Content {
    /// The content of an empty file.
    pub const EMPTY: Self = Self {
        id: ContentId([0; 32]),
        size: 0,
    };

    /// Whether the content is one chunk without a manifest.
    pub const fn is_single(&self) -> bool {
        self.size > 0 && self.size <= MIN_CHUNK as u64
    }

    /// Whether the content has no bytes, hence nothing to store or to fetch.
    pub const fn is_empty(&self) -> bool {
        self.size == 0
    }
}

/// The secret of a mesh that turns bytes into ids.
///
/// Whoever has it can check that bytes belong to an id; whoever has not can only store them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// Wraps 32 secret bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the secret, to be sealed or handed to a new member; never logged.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Names `bytes`. Costs about 0.2 CPU seconds a GiB.
    pub fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.0, bytes).as_bytes())
    }

    /// Eight bytes that tell two keys apart without revealing either.
    pub(crate) fn fingerprint(&self) -> [u8; 8] {
        let hash = blake3::keyed_hash(&self.0, b"wormhole store key fingerprint v1");
        let mut short = [0; 8];
        short.copy_from_slice(hash.as_bytes().split_at(8).0);
        short
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_through_text_and_refuses_what_is_not_one() {
        let id = ContentKey::from_bytes([7; 32]).chunk_id(b"hello");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        for text in ["", "zz", "00", &id.to_string()[1..], &format!("{id}00")] {
            assert_eq!(
                text.parse::<ChunkId>(),
                Err(ParseIdError { digits: 64 }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_same_bytes_have_another_name_in_another_mesh() {
        let one = ContentKey::from_bytes([1; 32]);
        let two = ContentKey::from_bytes([2; 32]);
        assert_ne!(one.chunk_id(b"same"), two.chunk_id(b"same"));
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert_eq!(format!("{one:?}"), "ContentKey(..)");
    }

    #[test]
    fn the_size_tells_what_a_content_id_names() {
        let content = |size| Content {
            size,
            ..Content::EMPTY
        };
        assert!(content(0).is_empty() && !content(0).is_single());
        assert!(content(1).is_single() && content(65_536).is_single());
        assert!(!content(65_537).is_single() && !content(65_537).is_empty());
    }

    #[test]
    fn ids_are_compact_in_binary_form() {
        let id = ChunkId::from_bytes([3; 32]);
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(bytes, [3; 32]);
        assert_eq!(postcard::from_bytes::<ChunkId>(&bytes).unwrap(), id);
    }
}
