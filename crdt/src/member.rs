//! Who belongs to a mesh and what each member may do: a signed log that only admins extend.
//!
//! The log (`member/log`) is a graph of hash-linked records (`member/record`, `member/graph`), so that two admins may
//! add to it while they are apart. `member/effect` says which records of any set count, `member/state` who is
//! then a member: the same everywhere. Storing and sending the log is the replica's and session's business.

mod effect;
mod graph;
mod log;
mod place;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::epoch::EpochSecret;
use crate::id::{DeviceId, Hash, MeshId, Timestamp};
use crate::limit::MAX_LABEL_BYTES;
pub(crate) use log::{MemberLog, Rotation, Told};
pub(crate) use record::{Action, Record, label_fits};
pub(crate) use state::State;

/// The formats that this program writes, as a mesh may demand them of whoever writes.
pub(crate) const WRITES_FORMAT: u16 = 2;

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

    /// How it stands in records.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Admin => 0,
            Self::Writer => 1,
            Self::Reader => 2,
            Self::Seed => 3,
        }
    }

    /// The role with a number; `None` for one that only a later version knows.
    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Admin),
            1 => Some(Self::Writer),
            2 => Some(Self::Reader),
            3 => Some(Self::Seed),
            _ => None,
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

/// How a device stopped being a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Who removed it; the device itself when it left.
    pub by: DeviceId,
    /// When, by the clock of who did.
    pub at: Timestamp,
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
    /// What envelopes are sealed with, the mesh's first one first.
    pub epochs: Vec<EpochSecret>,
}

/// Why a membership record is refused. All but `MissingParent`, `Unreadable` and `Full` are the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberFault {
    /// It does not decode.
    #[error("membership record is malformed")]
    Malformed,
    /// Whether its author could write it only a later version can tell.
    #[error(
        "membership record by {author} builds on what this version does not understand; update Wormhole"
    )]
    Unreadable {
        /// The device that wrote it.
        author: DeviceId,
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
    /// There are [`crate::limit::MAX_AUTHOR_RECORDS`] records of one admin.
    #[error(
        "this device has changed the membership as often as one admin can; go on at another admin"
    )]
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

/// `name`, with a number when a member of that name is there.
pub(crate) fn free_name(state: &State, name: &str) -> String {
    let is_taken = |name: &str| state.members.values().any(|member| member.name == name);
    if !is_taken(name) {
        return name.to_owned();
    }
    let numbered = (2..).map(|number: u32| {
        let suffix = format!(" ({number})");
        let mut end = name.len().min(MAX_LABEL_BYTES - suffix.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let (short, _) = name.split_at(end);
        format!("{short}{suffix}")
    });
    let mut free = numbered.skip_while(|name| is_taken(name));
    free.next().unwrap_or_else(|| name.to_owned())
}
