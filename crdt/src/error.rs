//! Why operations of this crate fail, one enum per family.
//!
//! Blame is in the type: [`StorageError`] is this device's trouble, [`Misbehaviour`] is a peer's.
//! Errors of single parsers (names, ids, roles) stand beside the parsers.

use crate::edit::TreeError;
use crate::id::{Author, BucketId, DeviceId, EpochId, MeshId};
use crate::index::IndexError;
use crate::member::{MemberFault, Role};

/// The replica's database failed or holds something that this program never wrote.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// redb reports an error.
    #[error("the replica's database failed")]
    Database(#[source] Box<redb::Error>),
    /// A stored row does not decode or contradicts another one.
    #[error("the replica's database is damaged ({0}); remove it and join the mesh again")]
    Damaged(Damage),
    /// A commit failed before: what is on disk is unknown, so nothing may build on it.
    #[error("an earlier write to the replica's database failed; restart to go on")]
    Poisoned,
    /// The tree's derived index cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Tells damage to what is derived, which can be made anew, from all other trouble.
pub(crate) trait BlamesIndex {
    /// Whether the tree's index is damaged.
    fn blames_index(&self) -> bool;
}

impl BlamesIndex for StorageError {
    fn blames_index(&self) -> bool {
        match self {
            Self::Index(error) => error.is_damage(),
            Self::Database(_) | Self::Damaged(_) | Self::Poisoned => false,
        }
    }
}

impl BlamesIndex for EditError {
    fn blames_index(&self) -> bool {
        match self {
            Self::Tree(TreeError::Index(error)) => error.is_damage(),
            Self::Storage(error) => error.blames_index(),
            Self::Tree(_) | Self::NotWriter { .. } | Self::NeedsUpdate | Self::TooLarge { .. } => {
                false
            }
        }
    }
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A bucket's row, or one of its registers.
    #[error("bucket {}", .0.number())]
    Bucket(BucketId),
    /// An envelope in the log.
    #[error("log of {}", .0.device)]
    Log(Author),
    /// The membership log.
    #[error("membership log")]
    Members,
    /// The mesh's id, this device's incarnation and the like.
    #[error("header row `{0}`")]
    Header(&'static str),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StorageError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// Why a replica could not be created, joined or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The database holds a replica already.
    #[error("the database already holds a replica of mesh {mesh}")]
    Occupied {
        /// Its mesh.
        mesh: MeshId,
    },
    /// The database holds no replica.
    #[error("the database holds no replica")]
    Empty,
    /// It was written by a later version.
    #[error("the replica's database has format {found}; update Wormhole on this device")]
    TooNew {
        /// The format's number.
        found: u32,
    },
    /// It was written by an earlier version, whose formats are not read any more.
    #[error(
        "the replica's database has format {found}, which is not read any more; leave the mesh and join it again (its files stay)"
    )]
    TooOld {
        /// The format's number.
        found: u32,
    },
    /// It belongs to another device.
    #[error("the replica's database belongs to device {owner}, not to this one")]
    OtherDevice {
        /// The device that it belongs to.
        owner: DeviceId,
    },
    /// The membership log of the welcome is not valid.
    #[error("the invitation's membership log is not valid")]
    BadWelcome(#[source] MemberFault),
    /// The membership log does not name this device.
    #[error("the mesh has not admitted this device")]
    NotAdmitted,
    /// The mesh's or the device's name is empty, too long or has control characters.
    #[error("a name of a mesh or device needs 1 to 128 bytes and no control characters")]
    BadLabel,
}

/// Why an edit could not be made. Nothing of the batch was done.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The tree refuses it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// This device may only read.
    #[error("this device may not write in the mesh; it is {}", .role.map_or("no member".to_owned(), |r| r.to_string()))]
    NotWriter {
        /// What this device is.
        role: Option<Role>,
    },
    /// The mesh's admins decided that older programs do not write.
    #[error("this mesh needs a newer version of Wormhole; update it on this device")]
    NeedsUpdate,
    /// The batch is too big to travel as one; make it in parts.
    #[error("too many edits in one batch ({limit}); make them in smaller batches")]
    TooLarge {
        /// What there is too much of.
        limit: Limit,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<IndexError> for EditError {
    fn from(error: IndexError) -> Self {
        Self::Storage(error.into())
    }
}

/// Why a member could not be admitted or removed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Only admins may do this.
    #[error("only an admin of the mesh may do this; this device is {}", .role.map_or("no member".to_owned(), |r| r.to_string()))]
    NotAdmin {
        /// What this device is.
        role: Option<Role>,
    },
    /// The device is a member already.
    #[error("device {device} is a member already, as {role}")]
    AlreadyMember {
        /// The device.
        device: DeviceId,
        /// Its role.
        role: Role,
    },
    /// The device is no member.
    #[error("device {device} is not a member")]
    NotMember {
        /// The device.
        device: DeviceId,
    },
    /// The mesh would be left without an admin.
    #[error("the mesh's only admin cannot be removed; make another device admin first")]
    LastAdmin,
    /// A recovery key is named once.
    #[error("the mesh has a recovery phrase already")]
    HasRecovery,
    /// The key is not the mesh's, or the mesh has none.
    #[error("that is not the recovery phrase of this mesh")]
    WrongRecovery,
    /// The recovery phrase made that device admin.
    #[error(
        "device {device} was made admin by the recovery phrase: only that phrase, or a device that it made admin, \
         changes it"
    )]
    Outranked {
        /// The device.
        device: DeviceId,
    },
    /// The record was refused.
    #[error("the membership log refuses the record")]
    Refused(#[source] MemberFault),
}

/// What a peer sent that no honest peer sends. It is at fault: disconnect it, and say so.
#[derive(Debug, thiserror::Error)]
pub enum Misbehaviour {
    /// A message does not decode.
    #[error("message is malformed")]
    MalformedMessage,
    /// A message is over [`crate::limit::MAX_MESSAGE_BYTES`].
    #[error("message of {bytes} bytes is over the limit")]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It speaks for another mesh.
    #[error("peer speaks for mesh {mesh}")]
    OtherMesh {
        /// That mesh.
        mesh: MeshId,
    },
    /// A message that makes no sense at this point.
    #[error("message out of turn")]
    OutOfTurn,
    /// An envelope breaks a rule.
    #[error("envelope {seq} of {} is refused", .author.device)]
    Envelope {
        /// Who wrote it, as it says.
        author: Author,
        /// Its number.
        seq: u64,
        /// The rule.
        #[source]
        fault: EnvelopeFault,
    },
    /// An envelope does not even decode.
    #[error("envelope is refused")]
    Undecodable(#[source] EnvelopeFault),
    /// A membership record breaks a rule.
    #[error("membership record is refused")]
    Member(#[source] MemberFault),
    /// A snapshot contradicts itself.
    #[error("snapshot is refused")]
    Snapshot(#[from] SnapshotFault),
}

/// How a snapshot contradicts itself or the envelopes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// The envelopes of an author do not ascend.
    #[error("envelopes of {} do not ascend", .0.device)]
    Order(Author),
    /// The marks of what is alive do not fit the envelope.
    #[error("marks of an envelope of {} do not fit", .0.device)]
    Marks(Author),
    /// What an author had seen is missing, given twice, or more than the snapshot holds.
    #[error("what {} had seen does not fit the snapshot", .0.device)]
    Seen(Author),
    /// An envelope builds on one that the snapshot says nothing about.
    #[error("an envelope builds on {} beyond the snapshot", .0.device)]
    Causes(Author),
    /// It is of more authors, or of longer logs, than there can be.
    #[error("it holds too much")]
    TooLarge,
}

/// Which rule an envelope breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeFault {
    /// Its bytes do not decode.
    #[error("it does not decode")]
    Malformed,
    /// It is in a later version's format.
    #[error("it has format {format}; update Wormhole on this device")]
    UnknownFormat {
        /// The format's number.
        format: u8,
    },
    /// Its body is sealed with a secret that this device was not given.
    #[error("it is sealed for epoch {epoch}, whose secret this device has not been given")]
    UnknownEpoch {
        /// The epoch.
        epoch: EpochId,
    },
    /// Over a limit of [`crate::limit`].
    #[error("it is over the limit for {0}")]
    OverLimit(Limit),
    /// For another mesh.
    #[error("it belongs to another mesh")]
    OtherMesh,
    /// The signature is not the device's.
    #[error("its signature is not valid")]
    BadSignature,
    /// Its author may not write.
    #[error("its author may not write")]
    NotWriter,
    /// It does not continue its author's log: two histories under one name.
    #[error("it does not continue its author's log")]
    Forked,
    /// A stamp is too far ahead of everything known.
    #[error("its clock {stamp} is beyond any honest one")]
    ClockLeap {
        /// The stamp.
        stamp: u64,
    },
    /// A change in it breaks a rule.
    #[error("its change of bucket {} breaks a rule: {fault}", .bucket.number())]
    Change {
        /// The bucket.
        bucket: BucketId,
        /// The rule.
        fault: ChangeFault,
    },
}

impl EnvelopeFault {
    /// Whether nothing is wrong but that this program is too old.
    pub(crate) fn is_newer(&self) -> bool {
        match self {
            Self::UnknownFormat { .. } => true,
            Self::Change { fault, .. } => *fault == ChangeFault::UnknownValue,
            Self::Malformed
            | Self::UnknownEpoch { .. }
            | Self::OverLimit(_)
            | Self::OtherMesh
            | Self::BadSignature
            | Self::NotWriter
            | Self::Forked
            | Self::ClockLeap { .. } => false,
        }
    }
}

/// Which limit was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Bytes of the envelope.
    #[error("its size")]
    EnvelopeBytes,
    /// Changes in it.
    #[error("changes")]
    Changes,
    /// Causes that it names.
    #[error("named causes")]
    Deps,
    /// Membership heads that it names.
    #[error("membership heads")]
    MemberHeads,
    /// Extensions of its head.
    #[error("extensions")]
    Extensions,
}

/// Which rule a change to a bucket breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFault {
    /// Not an Automerge change, or one whose hash is not the one written in it.
    #[error("not a change")]
    Malformed,
    /// Compressed, or not a plain change chunk.
    #[error("not an uncompressed change")]
    Compressed,
    /// Over the size limit.
    #[error("too large")]
    TooLarge,
    /// Over the operation limit, or empty.
    #[error("number of operations")]
    OpCount,
    /// Not by the actor of the envelope's author.
    #[error("foreign actor")]
    ForeignActor,
    /// It, or its first operation, is not numbered 1.
    #[error("sequence number")]
    Sequence,
    /// It names dependencies; its causes are the envelope's.
    #[error("dependencies")]
    Deps,
    /// Something else than a put of bytes at the root.
    #[error("kind of operation")]
    OpKind,
    /// A key that is not a register of this bucket.
    #[error("key")]
    Key,
    /// The same register twice.
    #[error("register written twice")]
    Repeated,
    /// Replaces what its author writes only now or later.
    #[error("replaces what is not written yet")]
    Predecessor,
    /// A value that does not decode to a register.
    #[error("value")]
    Value,
    /// A version that is not its author's, and not what somebody else wrote under it either.
    #[error("a version of another device")]
    Authorship,
    /// A version that its author cannot have seen.
    #[error("a version that its author had not seen")]
    Unseen,
    /// A value in a layout that this program does not know: perhaps of a newer one.
    #[error("a value of another program's layout")]
    UnknownValue,
    /// Extra bytes, message or author fields, which honest changes leave empty.
    #[error("extra fields")]
    Extra,
}

/// Why a message from a peer could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// This device's database failed; the peer is not at fault.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The peer is at fault.
    #[error("peer misbehaves")]
    Misbehaved(#[from] Misbehaviour),
    /// The peer's version is not one that this one can speak with.
    #[error("peer speaks version {theirs} of the sync protocol; {}", if *.theirs > *.ours { "update Wormhole on this device" } else { "update Wormhole on the other device" })]
    Version {
        /// The peer's version.
        theirs: u16,
        /// Our version.
        ours: u16,
    },
    /// The peer is not a member.
    #[error("device {device} is not a member of the mesh")]
    NotMember {
        /// The device.
        device: DeviceId,
    },
}
