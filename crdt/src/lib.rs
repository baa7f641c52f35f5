//! Names: what the tree of a mesh looks like, who may change it, and how replicas come to agree.
//!
//! A [`Replica`] is one device's copy of a mesh's metadata, in a redb database that it is handed. Changes are
//! made with [`Replica::edit`] and travel in signed envelopes; a [`Session`] brings two replicas to
//! the same state over any ordered channel. The tree that is shown is a pure function of the
//! replicated registers, so all devices that have seen the same envelopes show the same tree.
//!
//! This crate knows no socket, no task, no file but its database, no clock and no randomness: `now` and
//! `rng` are arguments, so that a whole mesh of replicas runs deterministically in one thread.
//!
//! ```
//! use rand::SeedableRng;
//! use redb::{Builder, backends::InMemoryBackend};
//! use wormhole_crdt::{
//!     DeviceKey, Edit, EntryId, EntryName, NewMesh, NewNode, Replica, Role, Session, Timestamp,
//! };
//!
//! let (now, mut rng) = (Timestamp(0), rand_chacha::ChaCha8Rng::seed_from_u64(1));
//! let database = || Builder::new().create_with_backend(InMemoryBackend::new());
//! let (laptop, desktop) = (DeviceKey::from_seed([1; 32]), DeviceKey::from_seed([2; 32]));
//!
//! // The laptop founds a mesh and lets the desktop in.
//! let mesh = NewMesh { name: "Designs".into(), device_name: "laptop".into(), key: laptop };
//! let one = Replica::create(database()?, &mesh, now, &mut rng)?;
//! one.admit(desktop.device_id(), "desktop", Role::Writer, now)?;
//! let two = Replica::join(database()?, &one.welcome(), desktop, &mut rng)?;
//!
//! // It makes a directory.
//! let id = one.fresh_id(EntryId::ROOT, &mut rng)?;
//! let (parent, name) = (EntryId::ROOT, EntryName::parse("plans")?);
//! let edit = Edit::Create { id, parent, name, node: NewNode::Directory, mode: None };
//! one.edit(&[edit], now)?;
//!
//! // Two sessions, and whatever carries their messages, bring it to the desktop.
//! let (mut a, mut b) = (Session::new(&one, two.device()), Session::new(&two, one.device()));
//! let (mut to_a, mut to_b) = (b.start()?, a.start()?);
//! while !(to_a.is_empty() && to_b.is_empty()) {
//!     let (for_a, for_b) = (std::mem::take(&mut to_a), std::mem::take(&mut to_b));
//!     for message in for_b {
//!         to_a.extend(b.receive(message.as_bytes(), &mut rng)?);
//!     }
//!     for message in for_a {
//!         to_b.extend(a.receive(message.as_bytes(), &mut rng)?);
//!     }
//!     to_a.extend(b.poll(1 << 20)?);
//!     to_b.extend(a.poll(1 << 20)?);
//! }
//! assert!(two.lookup(EntryId::ROOT, "plans")?.is_some());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(test)]
#[path = "../../tests/bend.rs"]
mod bend;
mod bucket;
mod edit;
mod entry;
mod envelope;
mod epoch;
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
#[cfg(test)]
mod simulation;
mod vector;

pub use edit::{Edit, FileInput, Kept, NewAttributes, NewNode, ResolveError, TreeError};
pub use entry::{
    Counts, Entry, EntryChange, EntryKey, FileState, Kind, LinkTarget, LinkTargetError, Mode,
    ModeError, Rival, Version,
};
pub use envelope::{SealedEnvelope, verify_sealed};
pub use epoch::EpochSecret;
pub use error::{
    ChangeFault, Damage, EditError, EnvelopeFault, Limit, MemberError, Misbehaviour, OpenError,
    SessionError, SnapshotFault, StorageError,
};
pub use id::{
    Author, Branch, BucketId, BucketRangeError, DeviceId, DeviceKey, DeviceTag, EntryId, EpochId,
    Hash, Incarnation, Line, MeshId, ParseIdError, Timestamp,
};
pub use index::IndexError;
pub use member::{Member, MemberFault, ParseRoleError, Removed, Role, Welcome};
pub use name::{EntryName, EntryPath, MAX_DEPTH, MAX_NAME_BYTES, NameError};
pub use register::{RegisterError, ValueError};
pub use replica::{
    Change, EditOutcome, Entries, NewMesh, Observer, Problem, Replica, Subscription,
};
pub use session::{Message, Session};
pub use vector::VersionVector;
