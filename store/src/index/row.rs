//! The rows of the index and their bytes.
//!
//! ```text
//! places  chunk id 32, node u64 BE        -> pack u32, offset u32, stored u32, len u32, generation u32, codec u8
//!         (node 0: the copy in a pack)    or, for a node: offset u64, len u32                      values LE
//! nodes   node u64                        -> parent u64, kind u8, [stamp 5 x u64], name
//! names   parent u64 BE, name             -> node u64
//! roots   root id 16                      -> node u64, directory
//! packs   pack u32                        -> accounted length u64
//! ```
//! Decoding never trusts a length; a malformed row is an error, not a panic.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::chunker::MAX_CHUNK;
use crate::codec::Codec;
use crate::error::IndexError;
use crate::id::ChunkId;
use crate::stamp::FileStamp;

/// Numbers a file or directory that references hang from; never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct NodeId(pub(crate) u64);

impl NodeId {
    /// No node: stands for "in a pack", and for the parent of a root.
    pub(crate) const NONE: Self = Self(0);
    /// At or below every node.
    pub(crate) const FIRST: Self = Self(1);
    /// Above every node.
    pub(crate) const LAST: Self = Self(u64::MAX);
}

/// Numbers a pack file; never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct PackId(pub(crate) u32);

/// One place where a chunk's bytes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// A record of a pack.
    Pack(PackPlace),
    /// A range of a file in a synced folder.
    File(FilePlace),
}

/// A record of a pack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PackPlace {
    pub(crate) pack: PackId,
    /// Where the record's header begins.
    pub(crate) offset: u32,
    /// Length of the payload as stored.
    pub(crate) stored: u32,
    /// Length of the plain bytes.
    pub(crate) len: u32,
    /// When it was last put; protects it from sweeps that began before.
    pub(crate) generation: u32,
    pub(crate) codec: Codec,
}

/// A range of a referenced file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FilePlace {
    pub(crate) node: NodeId,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// A file or directory that references hang from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Node {
    pub(crate) parent: NodeId,
    /// Its name in the parent; a root's node has the root's id here.
    pub(crate) name: Box<[u8]>,
    /// What the file looked like when its chunks were recorded; `None` for a directory.
    pub(crate) stamp: Option<FileStamp>,
}

/// A registered root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Root {
    pub(crate) node: NodeId,
    pub(crate) directory: PathBuf,
}

impl Place {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(21);
        match self {
            Self::Pack(place) => {
                let PackPlace {
                    pack,
                    offset,
                    stored,
                    len,
                    generation,
                    codec,
                } = place;
                for number in [pack.0, *offset, *stored, *len, *generation] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                bytes.push(codec.to_byte());
            }
            Self::File(FilePlace {
                node: _,
                offset,
                len,
            }) => {
                bytes.extend_from_slice(&offset.to_le_bytes());
                bytes.extend_from_slice(&len.to_le_bytes());
            }
        }
        bytes
    }

    pub(crate) fn decode(node: NodeId, bytes: &[u8]) -> Result<Self, IndexError> {
        let mut input = Input(bytes);
        let place = if node == NodeId::NONE {
            input.pack()
        } else {
            input.file(node)
        };
        let whole = input.0.is_empty();
        place
            .filter(|place| whole && place.is_plausible())
            .ok_or_else(|| IndexError::row("places"))
    }
}

impl Place {
    /// Whether the lengths are those of a chunk; buffers are allocated by them.
    const fn is_plausible(&self) -> bool {
        match self {
            Self::Pack(PackPlace { stored, len, .. }) => {
                *stored > 0 && *stored <= *len && *len as usize <= MAX_CHUNK
            }
            Self::File(FilePlace { len, .. }) => *len > 0 && *len as usize <= MAX_CHUNK,
        }
    }
}

impl Node {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(49 + self.name.len());
        bytes.extend_from_slice(&self.parent.0.to_le_bytes());
        bytes.push(u8::from(self.stamp.is_some()));
        if let Some(stamp) = self.stamp {
            let FileStamp {
                dev,
                ino,
                size,
                mtime_ns,
                ctime_ns,
            } = stamp;
            for number in [dev, ino, size] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            for number in [mtime_ns, ctime_ns] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&self.name);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        Input(bytes).node().ok_or_else(|| IndexError::row("nodes"))
    }
}

impl Root {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.node.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.directory.as_os_str().as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut input = Input(bytes);
        let node = NodeId(input.u64().ok_or_else(|| IndexError::row("roots"))?);
        Ok(Self {
            node,
            directory: Path::new(OsStr::from_bytes(input.0)).to_owned(),
        })
    }
}

/// The key of a place; big-endian, so that a chunk's places are neighbours and the pack is first.
pub(crate) fn place_key(id: ChunkId, node: NodeId) -> [u8; 40] {
    let mut key = [0; 40];
    let (left, right) = key.split_at_mut(32);
    left.copy_from_slice(id.as_bytes());
    right.copy_from_slice(&node.0.to_be_bytes());
    key
}

/// Splits what [`place_key`] made.
pub(crate) fn split_place_key(key: &[u8; 40]) -> (ChunkId, NodeId) {
    let (mut id, mut node) = ([0; 32], [0; 8]);
    let (left, right) = key.split_at(32);
    id.copy_from_slice(left);
    node.copy_from_slice(right);
    (ChunkId::from_bytes(id), NodeId(u64::from_be_bytes(node)))
}

/// The key of a name.
pub(crate) fn name_key(parent: NodeId, name: &[u8]) -> Vec<u8> {
    let mut key = parent.0.to_be_bytes().to_vec();
    key.extend_from_slice(name);
    key
}

/// Bytes that are being taken apart from the front.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn pack(&mut self) -> Option<Place> {
        Some(Place::Pack(PackPlace {
            pack: PackId(self.u32()?),
            offset: self.u32()?,
            stored: self.u32()?,
            len: self.u32()?,
            generation: self.u32()?,
            codec: Codec::from_byte(u8::from_le_bytes(self.take()?))?,
        }))
    }

    fn file(&mut self, node: NodeId) -> Option<Place> {
        Some(Place::File(FilePlace {
            node,
            offset: self.u64()?,
            len: self.u32()?,
        }))
    }

    fn node(&mut self) -> Option<Node> {
        let parent = NodeId(self.u64()?);
        let stamp = match self.take()? {
            [0] => None,
            [1] => Some(FileStamp {
                dev: self.u64()?,
                ino: self.u64()?,
                size: self.u64()?,
                mtime_ns: self.i64()?,
                ctime_ns: self.i64()?,
            }),
            [_] => return None,
        };
        Some(Node {
            parent,
            name: self.0.into(),
            stamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoders_never_panic(node: u64, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(Place::decode(NodeId(node), &bytes));
            drop(Node::decode(&bytes));
            drop(Root::decode(&bytes));
        }

        #[test]
        fn rows_round_trip(a in 8..1_000_000_u32, b: u64, c: i64, zstd: bool, name: Vec<u8>) {
            let codec = if zstd { Codec::Zstd } else { Codec::Raw };
            let pack = Place::Pack(PackPlace {
                pack: PackId(a), offset: !a, stored: a - 1, len: a, generation: a ^ 4, codec,
            });
            prop_assert_eq!(Place::decode(NodeId::NONE, &pack.encode()).unwrap(), pack);
            let node = NodeId(b | 1);
            let file = Place::File(FilePlace { node, offset: b, len: a });
            prop_assert_eq!(Place::decode(node, &file.encode()).unwrap(), file);
            let stamp = FileStamp { dev: b, ino: b ^ 1, size: b ^ 2, mtime_ns: c, ctime_ns: !c };
            for stamp in [None, Some(stamp)] {
                let row = Node { parent: NodeId(b), name: name.clone().into(), stamp };
                prop_assert_eq!(Node::decode(&row.encode()).unwrap(), row);
            }
            let root = Root { node, directory: OsStr::from_bytes(&name).into() };
            prop_assert_eq!(Root::decode(&root.encode()).unwrap(), root);
        }
    }

    #[test]
    fn the_pack_copy_of_a_chunk_sorts_before_its_references() {
        let id = ChunkId::from_bytes([9; 32]);
        let keys = [NodeId::NONE, NodeId(1), NodeId(256), NodeId::LAST].map(|n| place_key(id, n));
        assert!(keys.is_sorted());
        assert_eq!(split_place_key(&keys[2]), (id, NodeId(256)));
    }
}
