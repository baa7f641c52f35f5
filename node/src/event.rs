//! What happened on this node, for people and programs that follow it (`wormhole events`).
//!
//! Events tell; they are not the state. A follower that falls behind is told how many it missed
//! ([`EventKind::Missed`]) and looks at the status again. Nothing in an event is a secret: codes,
//! links and keys never appear. Raised by `node`, `inbound`, `outbound` and `policy`; carried to
//! clients by `api/stream`.

mod bus;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::{MeshRef, PathName, Phase, RoleName};

pub(crate) use bus::now_ms;
pub use bus::{EventBus, EventStream};

/// One line of the event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When, in milliseconds since 1970 (UTC).
    pub at_ms: i64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The node is ready.
    NodeStarted {
        /// This device's id.
        device: String,
        /// Addresses at which other devices can reach it.
        addresses: Vec<String>,
    },
    /// The node began to stop. The last event: followers hear nothing after it.
    NodeStopping,
    /// The follower was too slow and missed some events; look at the status.
    Missed {
        /// How many.
        events: u64,
    },
    /// A mesh was made on this device.
    MeshCreated {
        /// Which mesh.
        mesh: MeshRef,
    },
    /// This device joined a mesh.
    MeshJoined {
        /// Which mesh.
        mesh: MeshRef,
        /// Name of the device that invited.
        from: String,
    },
    /// This device left a mesh.
    MeshLeft {
        /// Which mesh.
        mesh: MeshRef,
    },
    /// A mesh is no longer open, because one of its databases failed.
    MeshClosed {
        /// Which mesh.
        mesh: MeshRef,
        /// Why, and what to do.
        reason: String,
    },
    /// A mesh that was closed is open again.
    MeshReopened {
        /// Which mesh.
        mesh: MeshRef,
    },
    /// A device became a member.
    MemberAdmitted {
        /// Of which mesh.
        mesh: MeshRef,
        /// The device's id.
        device: String,
        /// Its name.
        name: String,
        /// What it may do.
        role: RoleName,
    },
    /// This device was removed from a mesh. Its files stay.
    DeviceRemoved {
        /// From which mesh.
        mesh: MeshRef,
        /// By which device.
        by: String,
        /// Its name.
        name: String,
    },
    /// A member of one of this device's meshes connected.
    PeerUp {
        /// The device's id.
        device: String,
        /// Its name.
        name: String,
        /// How it is connected.
        path: PathName,
    },
    /// A peer went away.
    PeerDown {
        /// The device's id.
        device: String,
        /// Its name.
        name: String,
    },
    /// A peer broke the protocol and was dropped.
    PeerMisbehaved {
        /// The device's id.
        device: String,
        /// What it did.
        reason: String,
    },
    /// Another node has the key of this device.
    SameKey {
        /// Where it listens.
        address: String,
        /// What that means and what the user can do.
        problem: String,
    },
    /// An invite was made.
    InviteCreated {
        /// To which mesh.
        mesh: MeshRef,
        /// The role it gives.
        role: RoleName,
        /// When it stops working.
        expires_ms: i64,
    },
    /// A device with an invite waits until somebody here admits it.
    JoinAsked {
        /// To which mesh.
        mesh: MeshRef,
        /// The device's id.
        device: String,
        /// What it calls itself.
        name: String,
        /// Its fingerprint as words.
        words: String,
        /// What it would be.
        role: RoleName,
    },
    /// An invite was used.
    InviteUsed {
        /// To which mesh.
        mesh: MeshRef,
        /// By which device.
        device: String,
        /// Its name.
        name: String,
        /// What it is now; absent if it has been removed already.
        role: Option<RoleName>,
    },
    /// Wrong tries used an invite up.
    InviteBurnt {
        /// To which mesh.
        mesh: MeshRef,
    },
    /// An invite was not used in time.
    InviteExpired {
        /// To which mesh.
        mesh: MeshRef,
    },
    /// A directory is now synced.
    FolderBound {
        /// With which mesh.
        mesh: MeshRef,
        /// The directory.
        #[schema(value_type = String)]
        dir: PathBuf,
    },
    /// A directory is no longer synced; its files stay.
    FolderUnbound {
        /// With which mesh.
        mesh: MeshRef,
        /// The directory.
        #[schema(value_type = String)]
        dir: PathBuf,
    },
    /// A synced folder goes on in another directory.
    FolderMoved {
        /// With which mesh.
        mesh: MeshRef,
        /// Where it was.
        #[schema(value_type = String)]
        from: PathBuf,
        /// Where it is.
        #[schema(value_type = String)]
        dir: PathBuf,
    },
    /// A folder or seed began to do something else.
    FolderPhase {
        /// Of which mesh.
        mesh: MeshRef,
        /// The directory; absent for a seed.
        #[schema(value_type = Option<String>)]
        dir: Option<PathBuf>,
        /// What it does now.
        phase: Phase,
        /// Why it is stopped, when it is.
        reason: Option<String>,
    },
    /// A change made on this device was recorded.
    FileSent {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the mesh, safe to print.
        path: String,
        /// What was done to it.
        change: ChangeName,
    },
    /// A change made on another device is known here.
    FileReceived {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the mesh, safe to print.
        path: String,
        /// What was done to it.
        change: ChangeName,
    },
    /// Something was changed on two devices apart; both versions are kept.
    ConflictAppeared {
        /// In which mesh.
        mesh: MeshRef,
        /// The path of the second version, safe to print.
        path: String,
    },
    /// A file cannot be synced.
    ProblemRaised {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the folder, safe to print.
        path: String,
        /// What is wrong.
        reason: String,
        /// What the user can do.
        action: String,
    },
    /// A problem is gone.
    ProblemCleared {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the folder, safe to print.
        path: String,
    },
    /// Content began to arrive.
    TransferStarted {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the mesh, safe to print.
        path: String,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// More of it arrived (at most once a second for each transfer).
    TransferProgress {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the mesh, safe to print.
        path: String,
        /// Bytes done.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// Content no longer arrives: it is complete, or was given up.
    TransferFinished {
        /// In which mesh.
        mesh: MeshRef,
        /// The path inside the mesh, safe to print.
        path: String,
    },
    /// A mesh was paused.
    Paused {
        /// Which mesh.
        mesh: MeshRef,
    },
    /// A mesh goes on.
    Resumed {
        /// Which mesh.
        mesh: MeshRef,
    },
}

/// What was done to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeName {
    /// It is new.
    Created,
    /// Its content, link target or mode changed.
    Changed,
    /// It has another name or place.
    Moved,
    /// It is gone.
    Removed,
}
