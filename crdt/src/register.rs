//! The replicated registers of an entry, as values: where it is ([`Placement`]), what it holds
//! ([`ContentRecord`]) and its attributes ([`Attributes`]). Each has room for what later programs say
//! ([`Extensions`]).
//!
//! A register may hold several values at once, written by devices that did not know of one another.
//! How they are stored and brought to other devices is not known here: the rules read them through
//! [`Registers`] and give [`Put`]s back. Values are packed: one version byte, then postcard.
//! [`check`] is what a value from another device must pass before it may be stored.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wormhole_store::Content;

use crate::entry::{LinkTarget, Version};
use crate::id::{DeviceTag, EntryId, Timestamp};
use crate::limit::{MAX_FILE_BYTES, MAX_VALUE_BYTES};
use crate::name::EntryName;

mod attributes;
mod extension;

pub(crate) use attributes::{Attributes, Stamped};
pub(crate) use extension::Extensions;
use extension::{MAX_EXTENSION_BYTES, MAX_EXTENSIONS};

/// How many versions one value may list. It takes as many devices writing one file apart to need
/// more, and 64 packed versions take at most 1.2 KiB.
pub(crate) const MAX_LISTED_VERSIONS: usize = 64;

/// How many versions a content goes on to list that it did not replace itself, but what it replaced had:
/// a file's content may be replaced so often by some while others, who do not know of it, make an entry
/// of a conflict copy. Each costs every later write of the file ten bytes.
pub(crate) const MAX_INHERITED_VERSIONS: usize = 16;

/// Which of an entry's registers.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Register {
    /// Key `p<id>`: a [`Placement`].
    Placement,
    /// Key `c<id>`: a [`ContentRecord`]. Directories have none.
    Content,
    /// Key `a<id>`: [`Attributes`]. Absent means the defaults.
    Attributes,
}

/// One register to be written: the new value replaces all values that the writer sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Put {
    pub(crate) id: EntryId,
    pub(crate) register: Register,
    pub(crate) value: Vec<u8>,
}

/// The merged registers of a mesh, as one device has them.
///
/// Each method gives all values written apart and not replaced since, in any order; none when
/// the register was never written.
pub(crate) trait Registers {
    fn placements(&self, id: &EntryId) -> Result<Vec<Placement>, RegisterError>;
    fn contents(&self, id: &EntryId) -> Result<Vec<ContentRecord>, RegisterError>;
    fn attributes(&self, id: &EntryId) -> Result<Vec<Attributes>, RegisterError>;
    /// Every entry that has a placement, in any order, once.
    fn ids(&self) -> Result<Vec<EntryId>, RegisterError>;
}

/// Registers that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The database that keeps them failed.
    #[error("the metadata database failed")]
    Storage(#[from] redb::StorageError),
    /// Who keeps them failed, in a way of its own.
    #[error(transparent)]
    Keeper(Box<dyn std::error::Error + Send + Sync>),
    /// The document that holds an entry's registers cannot be loaded.
    #[error("the metadata of entry {id} is damaged")]
    Document {
        /// The entry asked for.
        id: EntryId,
    },
    /// A value is not one that this program would have accepted.
    #[error("a register of entry {id} holds a damaged value")]
    Value {
        /// The entry.
        id: EntryId,
        /// What is wrong with it.
        source: ValueError,
    },
}

/// Bytes that are not a register's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Longer than [`MAX_VALUE_BYTES`].
    #[error("a value of {bytes} bytes is over the limit of {MAX_VALUE_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Written by another program in a layout that this one does not know.
    #[error("a value has layout {format}, this program knows {known}: update the older one")]
    UnknownFormat {
        /// The first byte.
        format: u8,
        /// What it should be.
        known: u8,
    },
    /// It does not follow the layout.
    #[error("a value does not follow its layout")]
    Malformed,
    /// It lists more versions than a value may.
    #[error("a value lists {count} versions, {MAX_LISTED_VERSIONS} is the limit")]
    TooManyVersions {
        /// How many.
        count: usize,
    },
    /// It names a file that is bigger than any can be.
    #[error("a value names a file of {bytes} bytes, {MAX_FILE_BYTES} is the limit")]
    FileTooBig {
        /// How big.
        bytes: u64,
    },
    /// Its extensions are too many, too long, or not in order.
    #[error(
        "a value has extensions beyond {MAX_EXTENSIONS} or {MAX_EXTENSION_BYTES} bytes, or out of order"
    )]
    Extensions,
    /// A register of the root, which has none.
    #[error("the root directory has no registers")]
    Root,
}

/// Where an entry is: register `p`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Placement {
    pub(crate) parent: EntryId,
    pub(crate) name: EntryName,
    pub(crate) node: Node,
    pub(crate) state: State,
    /// The user operation that brought it here. Writes that only pin down what was derived, and the
    /// trashing of the entry, keep it: so they never win against a move made apart.
    pub(crate) moved: Version,
    /// This write.
    pub(crate) written: Version,
    /// Where it was before it moved: it is shown there if the move would close a cycle.
    pub(crate) from: Option<Origin>,
    /// Of a trashed entry: the contents that the remover saw. One not listed revives the entry. An entry
    /// that lives again still lists what was removed of it before.
    pub(crate) seen: Vec<Version>,
    /// Of one that was moved: the contents that its mover had. Nobody's removal of those counts that did not
    /// know of the move.
    pub(crate) had: Vec<Version>,
    /// Of a conflict copy that became an entry of its own, until a user moves it.
    pub(crate) copy_of: Option<CopyOf>,
    pub(crate) extensions: Extensions,
}

/// Beside what an entry stands as a conflict copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct CopyOf {
    /// The entry that kept the name.
    pub(crate) id: EntryId,
    /// The name.
    pub(crate) name: EntryName,
}

/// A former place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) parent: EntryId,
    pub(crate) name: EntryName,
}

/// Whether an entry holds entries or content. It never changes; file or symlink is the content's say.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Node {
    Directory,
    Leaf,
}

/// Whether an entry is there. Ordered: live wins.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum State {
    Trashed,
    Live,
}

/// What a file or symlink holds: register `c`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct ContentRecord {
    pub(crate) version: Version,
    /// The versions that the writer saw and replaced, and what those had replaced. Needed where the
    /// register cannot know it: when one value was written anew (to drop a copy from the register, or
    /// to give it an entry of its own) while another device replaced it.
    pub(crate) base: Vec<Version>,
    /// The versions that went on as entries of their own: not here any more, but not replaced either.
    pub(crate) copied: Vec<Version>,
    /// The entry that this version was a conflict copy of. What replaces it there replaces it here.
    pub(crate) origin: Option<EntryId>,
    pub(crate) body: Body,
    /// The lock under which it was written: its epoch and its holder. This program takes no locks and
    /// keeps those of others.
    pub(crate) fence: Option<(u64, DeviceTag)>,
    pub(crate) extensions: Extensions,
}

impl ContentRecord {
    /// Whether it replaced that version, directly or not. Only an earlier one: of two values that list one
    /// another, one stays.
    pub(crate) fn replaces(&self, version: Version) -> bool {
        version < self.version && self.base.contains(&version)
    }
}

/// The bytes of a file or the target of a symlink. The time of the write goes with the bytes; a time
/// that was set later is an attribute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    File { content: Content, mtime: Timestamp },
    Link { target: LinkTarget },
}

impl Body {
    /// Same bytes, or same target: not a conflict, whatever the times say.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What is equal for the same bytes, or the same target, and for nothing else.
    pub(crate) fn identity(&self) -> (u8, &[u8], u64) {
        match self {
            Self::File { content, .. } => (0, content.id.as_bytes(), content.size),
            Self::Link { target } => (1, target.as_str().as_bytes(), 0),
        }
    }

    /// Orders bodies, for ties that only a hostile writer can make.
    fn order(&self) -> ((u8, &[u8], u64), i64) {
        let mtime = match self {
            Self::File { mtime, .. } => mtime.0,
            Self::Link { .. } => 0,
        };
        (self.identity(), mtime)
    }
}

impl PartialOrd for Body {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Body {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// A value that can be packed.
pub(crate) trait Packed: Serialize + DeserializeOwned {
    /// The layout that this program writes and reads.
    const FORMAT: u8;
    /// How many versions the value lists, at most, in one list.
    fn listed(&self) -> usize;
    /// The greatest logical time in the value.
    fn lamport(&self) -> u64;
    /// What later programs say beside what this one reads.
    fn extensions(&self) -> &Extensions;
    /// The size of the file that it names, in bytes.
    fn size(&self) -> u64 {
        0
    }

    /// The value's bytes: at most [`MAX_VALUE_BYTES`], by the limits of its parts.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Self::FORMAT];
        postcard::to_io(self, &mut bytes).expect("memory takes any value");
        debug_assert!(bytes.len() <= MAX_VALUE_BYTES);
        bytes
    }

    /// The inverse of [`Packed::encode`], for bytes from anywhere.
    fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        if bytes.len() > MAX_VALUE_BYTES {
            return Err(ValueError::TooLong { bytes: bytes.len() });
        }
        let (format, packed) = bytes.split_first().ok_or(ValueError::Malformed)?;
        if *format != Self::FORMAT {
            let (format, known) = (*format, Self::FORMAT);
            return Err(ValueError::UnknownFormat { format, known });
        }
        let (value, rest) =
            postcard::take_from_bytes::<Self>(packed).map_err(|_| ValueError::Malformed)?;
        if !rest.is_empty() {
            return Err(ValueError::Malformed);
        }
        let count = value.listed();
        if count > MAX_LISTED_VERSIONS {
            return Err(ValueError::TooManyVersions { count });
        }
        let bytes = value.size();
        if bytes > MAX_FILE_BYTES {
            return Err(ValueError::FileTooBig { bytes });
        }
        if !value.extensions().are_in_order() {
            return Err(ValueError::Extensions);
        }
        Ok(value)
    }
}

impl Packed for Placement {
    const FORMAT: u8 = 3;

    fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    fn listed(&self) -> usize {
        self.seen.len().max(self.had.len())
    }

    fn lamport(&self) -> u64 {
        self.moved.lamport.max(self.written.lamport)
    }
}

impl Packed for ContentRecord {
    const FORMAT: u8 = 3;

    fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    fn listed(&self) -> usize {
        self.base.len().max(self.copied.len())
    }

    fn lamport(&self) -> u64 {
        self.version.lamport
    }

    fn size(&self) -> u64 {
        match &self.body {
            Body::File { content, .. } => content.size,
            Body::Link { .. } => 0,
        }
    }
}

/// Checks a value from another device; gives the greatest logical time that it claims.
///
/// # Errors
/// What is wrong with it: the value must not be stored.
pub(crate) fn check(id: &EntryId, register: Register, value: &[u8]) -> Result<u64, ValueError> {
    if *id == EntryId::ROOT {
        return Err(ValueError::Root);
    }
    match register {
        Register::Placement => Placement::decode(value).map(|value| value.lamport()),
        Register::Content => ContentRecord::decode(value).map(|value| value.lamport()),
        Register::Attributes => Attributes::decode(value).map(|value| value.lamport()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Mode;
    use crate::id::Branch;
    use proptest::prelude::*;

    fn version(lamport: u64) -> Version {
        Version {
            lamport,
            device: DeviceTag::from_bytes([0xff; 8]),
            branch: Branch::from_bytes([0xff; 8]),
        }
    }

    #[test]
    fn the_biggest_values_fit() {
        let name = EntryName::parse(&"n".repeat(255)).unwrap();
        let versions = vec![version(u64::MAX); MAX_LISTED_VERSIONS];
        let placement = Placement {
            parent: EntryId::from_bytes([0xff; 16]),
            name: name.clone(),
            node: Node::Leaf,
            state: State::Trashed,
            moved: version(u64::MAX),
            written: version(u64::MAX),
            from: Some(Origin {
                parent: EntryId::from_bytes([0xff; 16]),
                name,
            }),
            seen: versions.clone(),
            had: versions.clone(),
            copy_of: Some(CopyOf {
                id: EntryId::from_bytes([0xff; 16]),
                name: EntryName::parse(&"n".repeat(255)).unwrap(),
            }),
            extensions: Extensions::filled(),
        };
        let target = LinkTarget::parse(&"t".repeat(LinkTarget::MAX_BYTES)).unwrap();
        let body = Body::Link { target };
        let content = ContentRecord {
            version: version(u64::MAX),
            base: versions.clone(),
            copied: versions,
            origin: Some(EntryId::from_bytes([0xff; 16])),
            body,
            fence: Some((u64::MAX, DeviceTag::from_bytes([0xff; 8]))),
            extensions: Extensions::filled(),
        };
        for bytes in [placement.encode(), content.encode()] {
            assert!(bytes.len() <= MAX_VALUE_BYTES, "{} bytes", bytes.len());
        }
        assert_eq!(Placement::decode(&placement.encode()), Ok(placement));
        assert_eq!(ContentRecord::decode(&content.encode()), Ok(content));
    }

    #[test]
    fn values_that_could_be_read_in_two_ways_are_refused() {
        let value = Attributes::of_mode(version(1), Mode::new(0o600));
        let mut bytes = value.encode();
        bytes.push(0);
        assert_eq!(Attributes::decode(&bytes), Err(ValueError::Malformed));
        bytes.pop();
        if let Some(format) = bytes.first_mut() {
            *format = 9;
        }
        assert_eq!(
            Attributes::decode(&bytes),
            Err(ValueError::UnknownFormat {
                format: 9,
                known: 2
            })
        );
        assert_eq!(Attributes::decode(&[]), Err(ValueError::Malformed));
        assert_eq!(
            check(&EntryId::ROOT, Register::Attributes, &value.encode()),
            Err(ValueError::Root)
        );
    }

    #[test]
    fn a_file_bigger_than_any_is_refused() {
        for (size, fits) in [(MAX_FILE_BYTES, true), (u64::MAX, false)] {
            let id = wormhole_store::ContentId::from_bytes([1; 32]);
            let body = Body::File {
                content: Content { id, size },
                mtime: Timestamp(0),
            };
            let record = ContentRecord {
                version: version(1),
                base: Vec::new(),
                copied: Vec::new(),
                origin: None,
                body,
                fence: None,
                extensions: Extensions::default(),
            };
            assert_eq!(ContentRecord::decode(&record.encode()).is_ok(), fits);
        }
    }

    proptest! {
        #[test]
        fn values_from_the_wire_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), known: bool,
        ) {
            let id = EntryId::from_bytes([1; 16]);
            for (register, format) in [
                (Register::Placement, Placement::FORMAT),
                (Register::Content, ContentRecord::FORMAT),
                (Register::Attributes, Attributes::FORMAT),
            ] {
                let format = known.then_some(format);
                let value: Vec<u8> = format.into_iter().chain(bytes.iter().copied()).collect();
                let _checked = check(&id, register, &value);
            }
        }

        #[test]
        fn a_damaged_value_is_refused_or_another_value(at in 0_usize..80, flip in 1_u8..) {
            let placement = Placement {
                parent: EntryId::from_bytes([3; 16]),
                name: EntryName::parse("plan.txt").unwrap(),
                node: Node::Leaf,
                state: State::Trashed,
                moved: version(7),
                written: version(8),
                from: None,
                seen: vec![version(6)],
                had: Vec::new(),
                copy_of: None,
                extensions: Extensions::default(),
            };
            let mut bytes = placement.encode();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= flip;
                prop_assert_ne!(Placement::decode(&bytes), Ok(placement));
            }
        }
    }
}
