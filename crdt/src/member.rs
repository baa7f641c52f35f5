//! Who belongs to a mesh and what each member may do: a signed log that only admins extend.
//!
//! The log is a graph of hash-linked records (`member/record`), so that two admins may add to it
//! while they are apart; `member/state` turns any set of records into the same members everywhere.
//! Storing and sending the log is the replica's and session's business.

mod record;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::epoch::EpochSecret;
use crate::id::{Author, DeviceId, DeviceKey, Hash, Incarnation, MeshId, Timestamp};
use crate::limit::{MAX_MEMBER_HEADS, MAX_MEMBER_RECORDS};
pub(crate) use record::{Action, Record, label_fits};
pub(crate) use state::State;

/// What a member may do.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Writes, and admits and removes members.
    Admin,
    /// Reads and writes.
    Writer,
    /// Reads; whatever it writes is refused by every honest member.
    Reader,
    /// Keeps content for the others; writes nothing.
    Seed,
}

impl Role {
    /// Whether envelopes of such a member count.
    #[must_use]
    pub fn can_write(self) -> bool {
        match self {
            Self::Admin | Self::Writer => true,
            Self::Reader | Self::Seed => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Seed => "seed",
        })
    }
}

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a role: use admin, writer, reader or seed")]
pub struct ParseRoleError;

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        match text {
            "admin" => Ok(Self::Admin),
            "writer" => Ok(Self::Writer),
            "reader" => Ok(Self::Reader),
            "seed" => Ok(Self::Seed),
            _ => Err(ParseRoleError),
        }
    }
}

/// A member as the log says it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// What it was called when it was admitted. Not escaped: it may hold any printable character.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Who let it in; `None` for the founder.
    pub admitted_by: Option<DeviceId>,
    /// When, by the clock of the admin.
    pub admitted_at: Timestamp,
}

/// All that a newly admitted device needs to start its replica. Travels over the invite's channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The mesh.
    pub mesh: MeshId,
    /// Its name, for showing before the log is checked.
    pub name: String,
    /// The membership log, parents first.
    pub records: Vec<Vec<u8>>,
    /// What envelopes are sealed with, the current one last.
    pub epochs: Vec<EpochSecret>,
}

/// Why a membership record is refused. All but `MissingParent` are the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    /// It does not decode.
    #[error("membership record is malformed")]
    Malformed,
    /// It is in a format of a later version.
    #[error("membership record has format {format}; update Wormhole on this device")]
    UnknownFormat {
        /// The format's number.
        format: u8,
    },
    /// It is bigger than [`crate::limit::MAX_MEMBER_RECORD_BYTES`].
    #[error("membership record is too large")]
    TooLarge,
    /// A name in it is empty, too long or has control characters.
    #[error("membership record holds an invalid name")]
    BadLabel,
    /// The signature is not by the device that it names.
    #[error("membership record is not signed by {author}")]
    BadSignature {
        /// The device that it names.
        author: DeviceId,
    },
    /// It belongs to another mesh, or is a second beginning of this one.
    #[error("membership record belongs to another mesh")]
    OtherMesh,
    /// Its author was no admin when it wrote it.
    #[error("membership record by {author}, who is no admin")]
    NotAdmin {
        /// The device that wrote it.
        author: DeviceId,
    },
    /// A record that it builds on is not here.
    #[error("membership record builds on {parent}, which is missing")]
    MissingParent {
        /// The missing record.
        parent: Hash,
    },
    /// The log has [`MAX_MEMBER_RECORDS`] records.
    #[error("membership log is full")]
    Full,
}

/// Whether an envelope counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its author may write it.
    Admit,
    /// The author was no writer in the membership that it names.
    NotWriter,
    /// The author has since been removed, and this is beyond what was accepted of it.
    BeyondCut,
    /// It names a membership that is not here yet.
    UnknownHeads,
}

/// The membership log of one mesh, in memory. Small: one record per admission or removal.
#[derive(Debug, Clone)]
pub(crate) struct MemberLog {
    mesh: MeshId,
    records: BTreeMap<Hash, Record>,
    /// Insertion order: parents first.
    order: Vec<Hash>,
    heads: BTreeSet<Hash>,
    state: State,
}

impl MemberLog {
    /// Starts a mesh.
    pub(crate) fn found(
        key: &DeviceKey,
        mesh_name: &str,
        device_name: &str,
        now: Timestamp,
        rng: &mut dyn Rng,
    ) -> Self {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let (mesh_name, device_name) = (mesh_name.to_owned(), device_name.to_owned());
        let action = Action::Found {
            mesh_name,
            device_name,
            nonce,
        };
        Self::start(Record::sign(key, None, Vec::new(), now, action))
    }

    /// Rebuilds a log from its records, parents first. The first founds the mesh.
    pub(crate) fn from_records<'a>(
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, MemberFault> {
        let mut records = records.into_iter();
        let first = Record::decode(records.next().ok_or(MemberFault::Malformed)?)?;
        if !matches!(first.action, Action::Found { .. })
            || first.mesh.is_some()
            || !first.parents.is_empty()
        {
            return Err(MemberFault::OtherMesh);
        }
        let mut log = Self::start(first);
        for bytes in records {
            log.insert(Record::decode(bytes)?)?;
        }
        Ok(log)
    }

    fn start(first: Record) -> Self {
        let hash = first.hash;
        let mut log = Self {
            mesh: MeshId::from_bytes(*hash.as_bytes()),
            records: BTreeMap::from([(hash, first)]),
            order: vec![hash],
            heads: BTreeSet::from([hash]),
            state: State::default(),
        };
        log.refresh();
        log
    }

    pub(crate) fn mesh(&self) -> MeshId {
        self.mesh
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn heads(&self) -> Vec<Hash> {
        self.heads.iter().copied().collect()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.order.iter().filter_map(|hash| self.records.get(hash))
    }

    /// Adds a record. `Ok(false)` when it was known.
    pub(crate) fn insert(&mut self, record: Record) -> Result<bool, MemberFault> {
        if self.records.contains_key(&record.hash) {
            return Ok(false);
        }
        if record.mesh != Some(self.mesh) || record.parents.is_empty() {
            return Err(MemberFault::OtherMesh);
        }
        if let Some(parent) = record
            .parents
            .iter()
            .find(|p| !self.records.contains_key(p))
        {
            return Err(MemberFault::MissingParent { parent: *parent });
        }
        if self.records.len() >= MAX_MEMBER_RECORDS {
            return Err(MemberFault::Full);
        }
        let before = State::derive(&self.records, &self.past(&record.parents));
        let role = before.role_of(&record.author);
        let leaves =
            matches!(record.action, Action::Revoke { device, .. } if device == record.author);
        if role != Some(Role::Admin) && !(role.is_some() && leaves) {
            return Err(MemberFault::NotAdmin {
                author: record.author,
            });
        }
        for parent in &record.parents {
            self.heads.remove(parent);
        }
        self.heads.insert(record.hash);
        self.order.push(record.hash);
        self.records.insert(record.hash, record);
        self.refresh();
        Ok(true)
    }

    /// Signs the next record on top of all heads. The caller inserts it.
    pub(crate) fn next(&self, key: &DeviceKey, now: Timestamp, action: Action) -> Record {
        let parents = self.heads.iter().copied().take(MAX_MEMBER_HEADS).collect();
        Record::sign(key, Some(self.mesh), parents, now, action)
    }

    /// Records that somebody with these heads lacks, parents first. Heads that are unknown here
    /// tell nothing about what the other has.
    pub(crate) fn beyond(&self, heads: &[Hash]) -> Vec<&Record> {
        let known = self.past(heads);
        self.records()
            .filter(|record| !known.contains(&record.hash))
            .collect()
    }

    pub(crate) fn knows_all(&self, heads: &[Hash]) -> bool {
        heads.iter().all(|head| self.records.contains_key(head))
    }

    /// Whether envelope `seq` of `author`, written when it saw the membership `cited`, counts.
    pub(crate) fn judge(&self, author: Author, seq: u64, cited: &[Hash]) -> Verdict {
        if cited.is_empty() || !self.knows_all(cited) {
            return Verdict::UnknownHeads;
        }
        let current =
            cited.len() == self.heads.len() && cited.iter().all(|h| self.heads.contains(h));
        if current {
            return if can_write(&self.state, &author.device) {
                Verdict::Admit
            } else {
                Verdict::NotWriter
            };
        }
        let past = self.past(cited);
        if !can_write(&State::derive(&self.records, &past), &author.device) {
            return Verdict::NotWriter;
        }
        let mut removed = false;
        for removal in self
            .state
            .removals
            .iter()
            .filter(|r| r.device == author.device)
        {
            removed = true;
            if !past.contains(&removal.record) && seq > cut_for(&removal.cut, author.incarnation) {
                return Verdict::BeyondCut;
            }
        }
        // Never a member in the whole picture: the one who admitted it had just been removed.
        if !removed && !self.state.members.contains_key(&author.device) {
            return Verdict::BeyondCut;
        }
        Verdict::Admit
    }

    fn refresh(&mut self) {
        self.state = State::derive(&self.records, &self.records.keys().copied().collect());
    }

    /// The known ones of `heads` and all that they build on.
    fn past(&self, heads: &[Hash]) -> BTreeSet<Hash> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<Hash> = heads.to_vec();
        while let Some(hash) = open.pop() {
            if let Some(record) = self.records.get(&hash)
                && seen.insert(hash)
            {
                open.extend_from_slice(&record.parents);
            }
        }
        seen
    }
}

fn can_write(state: &State, device: &DeviceId) -> bool {
    state.role_of(device).is_some_and(Role::can_write)
}

fn cut_for(cut: &[(Incarnation, u64)], incarnation: Incarnation) -> u64 {
    cut.iter()
        .find(|(life, _)| *life == incarnation)
        .map_or(0, |(_, seq)| *seq)
}
