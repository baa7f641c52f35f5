//! The record of one mesh (`mesh.json`): its secrets, and where it appears on this device.
//!
//! Bindings live in the record of their mesh, so that one atomic write makes a mesh and its first
//! folder count together; there is no moment at which a crash leaves one without the other.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use wormhole_crdt::{EntryId, MeshId};
use wormhole_mesh::RateLimits;
use wormhole_store::RootId;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The version of the record that this program writes, and the newest that it reads.
const FORMAT: u32 = 2;

/// What this device keeps about one mesh beside its replica and its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshRecord {
    /// Which mesh.
    pub mesh: MeshId,
    /// Its name, kept here so that it is known even when the replica cannot be opened.
    pub name: String,
    /// Keys the ids of chunks.
    pub content_key: SecretBytes,
    /// Whether the user paused it.
    pub paused: bool,
    /// How fast its bytes may go, within the limits of the node.
    pub limits: RateLimits,
    /// Where it appears on this device.
    pub bindings: Vec<BindingRecord>,
    /// What a later version wrote.
    pub rest: Rest,
}

/// What this program does not understand of a record: it is kept as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rest {
    /// Fields of other names.
    fields: Map<String, Value>,
    /// Bindings of other kinds.
    bindings: Vec<Value>,
}

/// One place where a mesh appears on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingRecord {
    /// Names the binding in the store and in the folder's database.
    pub id: RootId,
    /// What it is.
    pub target: BindingTarget,
}

/// What a binding is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingTarget {
    /// A synced folder.
    Folder {
        /// Its directory.
        dir: PathBuf,
        /// The directory of the mesh that it shows.
        base: EntryId,
    },
    /// All content, without a folder.
    Seed,
}

/// 32 secret bytes: never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(pub [u8; 32]);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

impl MeshRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// A [`RecordError`] that names the file.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let text = fs::read_to_string(path).map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => RecordError::Missing { path },
                io::ErrorKind::InvalidData => RecordError::NotText { path },
                _ => RecordError::Io { path, source },
            }
        })?;
        let text = zeroize::Zeroizing::new(text);
        let probe: Probe = serde_json::from_str(&text).map_err(|source| RecordError::Damaged {
            path: path.to_owned(),
            source,
        })?;
        if probe.format > FORMAT {
            return Err(RecordError::Newer {
                path: path.to_owned(),
                found: probe.format,
            });
        }
        let file: RecordFile =
            serde_json::from_str(&text).map_err(|source| RecordError::Damaged {
                path: path.to_owned(),
                source,
            })?;
        file.read().map_err(|source| RecordError::Damaged {
            path: path.to_owned(),
            source,
        })
    }

    /// The text of the file.
    #[must_use]
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(&RecordFile::from(self)).expect(PLAIN)
    }
}

const PLAIN: &str = "a record has only strings, numbers and lists";

/// What to do about a record that is lost.
const RESCUE: &str = "this mesh stays closed and the others go on; stop the node and restore the file from a \
     backup, or move its directory away and join the mesh again: the files in its folders stay";

/// Why the record of a mesh cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk or its permissions refuse.
    #[error("cannot read {path}")]
    Io {
        /// The record.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is none.
    #[error("{path} is missing; {RESCUE}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is not even text.
    #[error("{path} is damaged; {RESCUE}")]
    NotText {
        /// The record.
        path: PathBuf,
    },
    /// It is not a record.
    #[error("{path} is damaged; {RESCUE}")]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by a newer version.
    #[error(
        "{path} was written by a newer wormhole (format {found}, this one knows {FORMAT}): update wormhole"
    )]
    Newer {
        /// The record.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Read first, so that a record of a newer format says so whatever else it holds.
#[derive(Deserialize)]
struct Probe {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct RecordFile {
    format: u32,
    mesh: Hex<32>,
    name: String,
    content_key: Hex<32>,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    limits: RateLimits,
    #[serde(default)]
    bindings: Vec<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The kinds of bindings that this program knows.
const KINDS: [&str; 2] = ["folder", "seed"];

#[derive(Serialize, Deserialize)]
#[serde(tag = "keep", rename_all = "snake_case", deny_unknown_fields)]
enum BindingFile {
    Folder {
        id: Hex<16>,
        dir: PathBuf,
        base: Hex<16>,
    },
    Seed {
        id: Hex<16>,
    },
}

/// Bytes of a fixed length as lower-case hex in JSON; wiped when dropped, some are secrets.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(de::Error::custom)?;
        <[u8; N]>::try_from(bytes.as_slice())
            .map(Self)
            .map_err(|_| de::Error::custom(format_args!("expected {N} bytes in hex")))
    }
}

impl From<&MeshRecord> for RecordFile {
    fn from(record: &MeshRecord) -> Self {
        let bindings = record.bindings.iter().map(|binding| match &binding.target {
            BindingTarget::Folder { dir, base } => BindingFile::Folder {
                id: Hex(*binding.id.as_bytes()),
                dir: dir.clone(),
                base: Hex(*base.as_bytes()),
            },
            BindingTarget::Seed => BindingFile::Seed {
                id: Hex(*binding.id.as_bytes()),
            },
        });
        Self {
            format: FORMAT,
            mesh: Hex(*record.mesh.as_bytes()),
            name: record.name.clone(),
            content_key: Hex(record.content_key.0),
            paused: record.paused,
            limits: record.limits,
            bindings: bindings
                .map(|binding| serde_json::to_value(binding).expect(PLAIN))
                .chain(record.rest.bindings.iter().cloned())
                .collect(),
            rest: record.rest.fields.clone(),
        }
    }
}

impl RecordFile {
    fn read(self) -> Result<MeshRecord, serde_json::Error> {
        let (mut bindings, mut rest) = (Vec::new(), Rest::default());
        for binding in self.bindings {
            let kind = binding.get("keep").and_then(Value::as_str);
            match kind.is_some_and(|kind| !KINDS.contains(&kind)) {
                true => rest.bindings.push(binding),
                false => bindings.push(serde_json::from_value::<BindingFile>(binding)?.into()),
            }
        }
        rest.fields = self.rest;
        Ok(MeshRecord {
            mesh: MeshId::from_bytes(self.mesh.0),
            name: self.name,
            content_key: SecretBytes(self.content_key.0),
            paused: self.paused,
            limits: self.limits,
            bindings,
            rest,
        })
    }
}

impl From<BindingFile> for BindingRecord {
    fn from(file: BindingFile) -> Self {
        match file {
            BindingFile::Folder { id, dir, base } => Self {
                id: RootId::from_bytes(id.0),
                target: BindingTarget::Folder {
                    dir,
                    base: EntryId::from_bytes(base.0),
                },
            },
            BindingFile::Seed { id } => Self {
                id: RootId::from_bytes(id.0),
                target: BindingTarget::Seed,
            },
        }
    }
}
