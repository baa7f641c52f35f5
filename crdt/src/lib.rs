//! Names: what the tree of a mesh looks like, who may change it, and how replicas come to agree.
//!
//! A [`Replica`] is one device's copy of a mesh's metadata, in a redb database that it is handed. Changes are
//! made with [`Replica::edit`] and travel in signed envelopes; a [`Session`] brings two replicas to
//! the same state over any ordered channel. The tree that is shown is a pure function of the
//! replicated registers, so all devices that have seen the same envelopes show the same tree.
//!
//! This crate knows no socket, no task, no file but its database, no clock and no randomness: `now` and
//! `rng` are arguments, so that a whole mesh of replicas runs deterministically in one thread.

mod bucket;
mod edit;
mod entry;
mod envelope;
mod error;
mod id;
mod index;
#[cfg(test)]
mod lab;
pub mod limit;
mod log;
mod member;
mod name;
mod register;
mod replica;
mod rule;
mod session;
mod settle;
mod vector;

pub use edit::{Edit, FileInput, NewNode, TreeError};
pub use entry::{
    Counts, Entry, EntryChange, EntryKey, FileState, Kind, LinkTarget, LinkTargetError, Version,
};
pub use error::{
    ChangeFault, Damage, EditError, EnvelopeFault, Limit, MemberError, Misbehaviour, OpenError,
    SessionError, StorageError,
};
pub use id::{
    Author, BucketId, BucketRangeError, DeviceId, DeviceKey, DeviceTag, EntryId, Hash, Incarnation,
    MeshId, ParseIdError, Timestamp,
};
pub use index::IndexError;
pub use member::{Member, MemberFault, ParseRoleError, Role, Welcome};
pub use name::{EntryName, EntryPath, NameError};
pub use register::{RegisterError, ValueError};
pub use replica::{Change, EditOutcome, Entries, NewMesh, Observer, Replica, Subscription};
pub use session::{Message, Session};
pub use vector::VersionVector;
