//! The bytes of the state database. Its own types on purpose: the memory of the last sync must not change its format
//! because a type of another room gained a field.

use serde::{Deserialize, Serialize};
use wormhole_crdt::{
    Branch, DeviceTag, EntryId, EntryKey, EntryName, LinkTarget, Mode, Timestamp, Version,
};
use wormhole_store::{Content, ContentId, FileStamp};

use super::Row;
use crate::error::StateError;
use crate::folder::beneath::{Seen, SeenKind};
use crate::folder::name::Place;
use crate::folder::plan::Node;
use crate::folder::status::Counts;

#[derive(Serialize, Deserialize)]
struct StoredRow {
    id: [u8; 16],
    sibling: Option<StoredVersion>,
    version: Option<StoredVersion>,
    node: StoredNode,
    /// dev, ino, size
    identity: (u64, u64, u64),
    /// mtime, ctime, birth, in nanoseconds
    times: (i64, i64, i64),
    mode: u32,
    racy: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredVersion {
    lamport: u64,
    device: [u8; 8],
    branch: [u8; 8],
}

#[derive(Serialize, Deserialize)]
enum StoredNode {
    Directory {
        mode: u16,
    },
    File {
        content: [u8; 32],
        size: u64,
        mode: u16,
        mtime_ns: i64,
    },
    Symlink {
        target: String,
    },
}

/// `key` is the place: what stands under another one by mistake is damaged, too.
pub(super) fn encode(key: &[u8], row: &Row) -> Result<Vec<u8>, StateError> {
    let stamp = &row.seen.stamp;
    let stored = StoredRow {
        id: *row.key.id.as_bytes(),
        sibling: row.key.version.as_ref().map(store_version),
        version: row.version.as_ref().map(store_version),
        node: match &row.node {
            Node::Directory { mode } => StoredNode::Directory {
                mode: (*mode).into(),
            },
            Node::File {
                content,
                mode,
                mtime,
            } => StoredNode::File {
                content: *content.id.as_bytes(),
                size: content.size,
                mode: (*mode).into(),
                mtime_ns: mtime.0,
            },
            Node::Symlink { target } => StoredNode::Symlink {
                target: target.as_str().to_owned(),
            },
        },
        identity: (stamp.dev, stamp.ino, stamp.size),
        times: (stamp.mtime_ns, stamp.ctime_ns, row.seen.born_ns),
        mode: row.seen.mode,
        racy: row.racy,
    };
    let mut bytes = postcard::to_stdvec(&stored).map_err(|_too_big| StateError::Damaged)?;
    let sum = sum(key, &bytes);
    bytes.extend_from_slice(&sum);
    Ok(bytes)
}

/// The database does not verify what it reads: a flipped bit must not pass for a deletion.
pub(super) fn check<'b>(key: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], StateError> {
    let (stored, found) = bytes
        .split_last_chunk::<SUM_BYTES>()
        .ok_or(StateError::Damaged)?;
    if sum(key, stored) == *found {
        Ok(stored)
    } else {
        Err(StateError::Damaged)
    }
}

/// Enough to tell chance; nobody attacks the home.
const SUM_BYTES: usize = 8;

fn sum(key: &[u8], stored: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key);
    hasher.update(stored);
    let hash = hasher.finalize();
    hash.as_bytes()
        .first_chunk()
        .copied()
        .unwrap_or([0; SUM_BYTES])
}

pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Row, StateError> {
    let stored: StoredRow =
        postcard::from_bytes(check(key, bytes)?).map_err(|_bad| StateError::Damaged)?;
    let (kind, node) = match stored.node {
        StoredNode::Directory { mode } => {
            let mode = load_mode(mode)?;
            (SeenKind::Directory, Node::Directory { mode })
        }
        StoredNode::File {
            content,
            size,
            mode,
            mtime_ns,
        } => {
            let content = Content {
                id: ContentId::from_bytes(content),
                size,
            };
            (
                SeenKind::File,
                Node::File {
                    content,
                    mode: load_mode(mode)?,
                    mtime: Timestamp(mtime_ns),
                },
            )
        }
        StoredNode::Symlink { target } => {
            let target = LinkTarget::parse(&target).map_err(|_bad| StateError::Damaged)?;
            (SeenKind::Symlink, Node::Symlink { target })
        }
    };
    let (dev, ino, size) = stored.identity;
    let (mtime_ns, ctime_ns, born_ns) = stored.times;
    Ok(Row {
        key: EntryKey {
            id: EntryId::from_bytes(stored.id),
            version: stored.sibling.as_ref().map(load_version),
        },
        version: stored.version.as_ref().map(load_version),
        node,
        seen: Seen {
            kind,
            stamp: FileStamp {
                dev,
                ino,
                size,
                mtime_ns,
                ctime_ns,
            },
            born_ns,
            mode: stored.mode,
        },
        racy: stored.racy,
    })
}

fn load_mode(bits: u16) -> Result<Mode, StateError> {
    Mode::try_from(bits).map_err(|_bad| StateError::Damaged)
}

fn store_version(version: &Version) -> StoredVersion {
    StoredVersion {
        lamport: version.lamport,
        device: *version.device.as_bytes(),
        branch: *version.branch.as_bytes(),
    }
}

fn load_version(stored: &StoredVersion) -> Version {
    Version {
        lamport: stored.lamport,
        device: DeviceTag::from_bytes(stored.device),
        branch: Branch::from_bytes(stored.branch),
    }
}

/// Directory id, then the name: one directory's rows are one range.
pub(super) fn place_key(place: &Place) -> Vec<u8> {
    let mut key = place.parent.as_bytes().to_vec();
    key.extend_from_slice(place.name.as_str().as_bytes());
    key
}

pub(super) fn decode_place(key: &[u8]) -> Result<Place, StateError> {
    let (parent, name) = key.split_first_chunk::<16>().ok_or(StateError::Damaged)?;
    let text = std::str::from_utf8(name).map_err(|_bad| StateError::Damaged)?;
    let name = EntryName::parse(text).map_err(|_bad| StateError::Damaged)?;
    Ok(Place::new(EntryId::from_bytes(*parent), name))
}

/// All names of a directory: no UTF-8 text has a byte 0xff.
pub(super) fn child_range(parent: EntryId) -> (Vec<u8>, Vec<u8>) {
    let start = parent.as_bytes().to_vec();
    let mut end = start.clone();
    end.push(0xff);
    (start, end)
}

pub(super) fn entry_key(key: &EntryKey) -> Vec<u8> {
    let mut bytes = key.id.as_bytes().to_vec();
    if let Some(version) = &key.version {
        bytes.extend_from_slice(&version.lamport.to_be_bytes());
        bytes.extend_from_slice(version.device.as_bytes());
        bytes.extend_from_slice(version.branch.as_bytes());
    }
    bytes
}

pub(super) fn decode_format(bytes: &[u8]) -> Result<u32, StateError> {
    bytes
        .try_into()
        .map(u32::from_le_bytes)
        .map_err(|_bad| StateError::Damaged)
}

pub(super) fn encode_counts(counts: &Counts) -> Vec<u8> {
    [
        counts.files,
        counts.directories,
        counts.symlinks,
        counts.bytes,
    ]
    .into_iter()
    .flat_map(u64::to_le_bytes)
    .collect()
}

pub(super) fn decode_counts(bytes: &[u8]) -> Result<Counts, StateError> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    match (numbers, rest) {
        ([files, directories, symlinks, bytes], []) => Ok(Counts {
            files: u64::from_le_bytes(*files),
            directories: u64::from_le_bytes(*directories),
            symlinks: u64::from_le_bytes(*symlinks),
            bytes: u64::from_le_bytes(*bytes),
        }),
        _ => Err(StateError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_in_a_row_or_its_key_is_damage() {
        let row = Row {
            key: EntryKey::ROOT,
            version: None,
            node: Node::Symlink {
                target: LinkTarget::parse("there").unwrap(),
            },
            seen: crate::folder::beneath::look(
                std::os::fd::AsFd::as_fd(&std::fs::File::open("/").unwrap()),
                std::ffi::OsStr::new("proc"),
            )
            .unwrap()
            .unwrap(),
            racy: false,
        };
        let key = b"0123456789abcdefname".to_vec();
        let bytes = encode(&key, &row).unwrap();
        assert_eq!(decode(&key, &bytes).unwrap().key, row.key);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&key, &flipped), Err(StateError::Damaged)));
        }
        for bit in 0..key.len() * 8 {
            let mut flipped = key.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&flipped, &bytes), Err(StateError::Damaged)));
        }
        assert!(matches!(decode(&key, &[]), Err(StateError::Damaged)));
    }
}
