//! Replies about the members of a mesh.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MeshRef, RoleName};

/// `GET /v1/meshes/{mesh}/members`: who is in a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MembersReply {
    /// Which mesh.
    pub mesh: MeshRef,
    /// The members, in the order they were admitted.
    pub members: Vec<MemberInfo>,
    /// Devices whose admission does not count any more, because whoever admitted them had been removed. A role lets
    /// them in again.
    pub stranded: Vec<MemberInfo>,
}

/// `POST /v1/revoke` and `POST /v1/role`: the device that was meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberReply {
    /// Which mesh.
    pub mesh: MeshRef,
    /// The device's id.
    pub device: String,
    /// Its name, safe to print.
    pub name: String,
    /// Its role; the last one of a device that was removed.
    pub role: RoleName,
}

/// `POST /v1/recovery`: the mesh that has a recovery phrase now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryReply {
    /// Which mesh.
    pub mesh: MeshRef,
}

/// How this device was removed from a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedInfo {
    /// The device that did it.
    pub by: String,
    /// Its name, safe to print.
    pub by_name: String,
    /// When, by the clock of that device.
    pub removed_ms: i64,
}

/// One member of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberInfo {
    /// The device's id.
    pub device: String,
    /// Words for its id, to compare by voice.
    pub words: String,
    /// Its name, safe to print.
    pub name: String,
    /// What it may do.
    pub role: RoleName,
    /// Whether it is the device that answers.
    pub this_device: bool,
    /// The device that admitted it; absent for the founder.
    pub admitted_by: Option<String>,
    /// When it was admitted, by the clock of the device that did.
    pub admitted_ms: i64,
    /// Whether it is connected now.
    pub connected: bool,
    /// Whether it knows all that this device knows, and the reverse, and has applied it; absent when not connected.
    pub in_sync: Option<bool>,
    /// What keeps it from applying something, each kind once.
    pub hindrances: Vec<HindranceInfo>,
}

/// A connected member that cannot apply something of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hindered {
    /// Which mesh.
    pub mesh: MeshRef,
    /// The device's id.
    pub device: String,
    /// Its name, safe to print.
    pub name: String,
    /// What keeps it, each kind once.
    pub hindrances: Vec<HindranceInfo>,
}

/// What keeps a device from applying something, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HindranceInfo {
    /// The kind.
    pub hindrance: HindranceName,
    /// How many files or directories it concerns, as far as that device counts them.
    pub count: u64,
    /// The same in words.
    pub reason: String,
}

/// Kinds of hindrances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HindranceName {
    /// Its disk is full.
    DiskFull,
    /// Its disk is mounted read-only.
    DiskReadOnly,
    /// Its user may not read or write there.
    NotPermitted,
    /// Its file system cannot hold a name.
    NameImpossible,
    /// It may only read, and files were changed on it.
    OwnEdits,
    /// Deletions wait there for a person.
    DeletionsHeld,
    /// Its folder is stopped.
    FolderStopped,
    /// No device that it is connected with has the content.
    NoHolder,
    /// Reading or writing failed.
    Failed,
    /// It was removed from the mesh, and this device has not heard of it.
    Removed,
    /// Something that only a newer program can name.
    Unknown,
}
