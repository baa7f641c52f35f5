//! What the node answers: one type for each reply body of the local API, and the frames of its
//! long operations.
//!
//! Everything here is a plain snapshot, made by `node` and `status` and read by the CLI and the
//! desktop app; ids are lower-case hex, times are milliseconds since 1970 (UTC), sizes are bytes.
//! Fields may be added in later versions: clients ignore what they do not know.

mod check;
mod conflict;
mod entry;
mod folder;
mod invite;
mod member;
mod trash;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::check::{CheckInfo, CheckReply};
pub use self::conflict::ResolveReply;
pub use self::entry::{EntriesReply, EntryInfo};
pub use self::folder::{ConfirmReply, MoveReply, UnbindReply};
pub use self::invite::*;
pub use self::member::{
    Hindered, HindranceInfo, HindranceName, MemberInfo, MemberReply, MembersReply, RecoveryReply,
    RemovedInfo,
};
pub use self::trash::{RestoreReply, TrashEntry, TrashInfo, TrashReply};
use super::{Fault, Keep, Rate};

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Reads, writes, invites and revokes.
    Admin,
    /// Reads and writes.
    Writer,
    /// Reads.
    Reader,
    /// Keeps content for the others.
    Seed,
}

/// Names a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeshRef {
    /// The id, 64 hex digits.
    pub id: String,
    /// The name its founder gave it.
    pub name: String,
}

/// `GET /v1/node`: who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeReply {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The home directory.
    #[schema(value_type = String)]
    pub home: PathBuf,
    /// This device's id.
    pub device: String,
    /// This device's name, as others see it.
    pub device_name: String,
    /// When the node started.
    pub started_ms: i64,
    /// Addresses at which other devices can reach this node.
    pub addresses: Vec<String>,
    /// The limits in force.
    pub limits: LimitReply,
    /// What is wrong with the node as a whole, and what to do.
    #[serde(default)]
    pub problem: Option<String>,
}

/// `GET /v1/status`: the node and its meshes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReply {
    /// Who answers.
    pub node: NodeReply,
    /// The meshes that this device is in, by name.
    pub meshes: Vec<MeshStatus>,
    /// Who joined one of them since a person looked; told until `POST /v1/seen`.
    pub newcomers: Vec<Newcomer>,
    /// The devices that wait for somebody here to admit them.
    pub asking: Vec<AskingInfo>,
}

/// One mesh as this device sees it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeshStatus {
    /// Which mesh.
    pub mesh: MeshRef,
    /// This device's role in it.
    pub role: RoleName,
    /// Whether the user paused it.
    pub paused: bool,
    /// How many devices are members, this one included.
    pub members: u32,
    /// How many other members are connected now.
    pub connected: u32,
    /// How many of the connected members know all that this device knows, and the reverse, and have applied it.
    pub in_sync: u32,
    /// The connected members that cannot apply something, and why.
    pub hindered: Vec<Hindered>,
    /// Files in the tree.
    pub files: u64,
    /// Directories in the tree.
    pub directories: u64,
    /// Symbolic links in the tree.
    pub symlinks: u64,
    /// Sum of the sizes of the files.
    pub bytes: u64,
    /// Entries that are the second version of something changed on two devices apart.
    pub conflicts: u64,
    /// Where the mesh appears on this device.
    pub bindings: Vec<BindingStatus>,
    /// What is wrong with the mesh as a whole, when something is (its database is damaged, …).
    pub problem: Option<String>,
    /// That this device was removed from the mesh, when it was. Its files stay, and nothing is synced any more.
    pub removed: Option<RemovedInfo>,
    /// Batches of changes that are refused here, because the device that made them was removed before, or may not write.
    pub refused: u64,
    /// What is damaged on this device's disks, and what was repaired since the node started.
    pub damage: Vec<Problem>,
    /// What people should know about the mesh's metadata: a device that was set back to an earlier state, …
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One place where a mesh appears on this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BindingStatus {
    /// The binding's id, 32 hex digits.
    pub id: String,
    /// A synced folder or a seed.
    pub keep: Keep,
    /// The directory of a synced folder.
    #[schema(value_type = Option<String>)]
    pub dir: Option<PathBuf>,
    /// The directory inside the mesh; empty for the whole mesh.
    pub path: String,
    /// What it is doing.
    pub phase: Phase,
    /// Why it is stopped, and what to do, when it is.
    pub reason: Option<String>,
    /// Files that the folder or seed holds as the mesh wants them.
    pub files_done: u64,
    /// Files that the mesh has here.
    pub files_total: u64,
    /// Bytes of content that are here.
    pub bytes_done: u64,
    /// Bytes of content that the mesh has here.
    pub bytes_total: u64,
    /// Changes still to be recorded or applied.
    pub pending: u64,
    /// Files that were removed or replaced from elsewhere and are kept for a while.
    #[serde(default)]
    pub trash_files: u64,
    /// Their bytes.
    #[serde(default)]
    pub trash_bytes: u64,
    /// What keeps single files from being synced (at most 1,000 are listed).
    pub problems: Vec<Problem>,
}

/// What a binding is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Looks through the directory.
    Scanning,
    /// Records or applies changes.
    Syncing,
    /// Everything seen is recorded and everything known is applied.
    UpToDate,
    /// Paused by the user.
    Paused,
    /// Stopped until a person acts; the reason says why.
    Stopped,
}

/// Why one file is not synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The path inside the folder, safe to print.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What the user can do; empty when nothing needs to be done.
    pub action: String,
}

/// `POST /v1/share`, at the end: the new mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareReply {
    /// The new mesh.
    pub mesh: MeshRef,
    /// The shared directory.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Files found in it.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// What kept single files from being recorded (at most 1,000 are listed).
    pub problems: Vec<Problem>,
    /// The first invite.
    pub invite: InviteReply,
}

/// `POST /v1/join`, at the end: the mesh that this device is now in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinReply {
    /// The mesh.
    pub mesh: MeshRef,
    /// The role that the invite gave.
    pub role: RoleName,
    /// What this device does with the content.
    pub keep: Keep,
    /// The synced directory, when there is one.
    #[schema(value_type = Option<String>)]
    pub dir: Option<PathBuf>,
    /// Name of the device that invited.
    pub from: String,
    /// Id of the device that invited.
    pub from_device: String,
    /// How it is connected.
    pub path: PathName,
}

/// How a peer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathName {
    /// On this same machine.
    Local,
    /// Directly, on the same local network.
    Lan,
    /// Directly, across networks.
    Direct,
    /// Through another member.
    Relayed,
}

/// `POST /v1/sync`: the new binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncReply {
    /// The mesh.
    pub mesh: MeshRef,
    /// The directory inside the mesh; empty for the whole mesh.
    pub path: String,
    /// The directory on this device.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// `POST /v1/leave`: the mesh that this device is no longer in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaveReply {
    /// Which mesh it was.
    pub mesh: MeshRef,
    /// The directories that were synced; their files stay.
    #[schema(value_type = Vec<String>)]
    pub dirs: Vec<PathBuf>,
    /// Whether another device has heard of it; else the others go on listing this one, as not connected.
    pub told: bool,
}

/// One line of a long operation (`share`, `join`), sent as a server-sent event.
///
/// Any number of `progress` lines, then exactly one `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step<T> {
    /// It goes on.
    Progress(Progress),
    /// It ended well.
    Done(T),
    /// It ended badly, and left nothing behind.
    Failed(Fault),
}

/// How far a long operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Files done.
    pub files: u64,
    /// Bytes done.
    pub bytes: u64,
}

/// The stages of the long operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// `share` looks through the directory and reads its files.
    Scanning,
    /// `share` makes the invite.
    Inviting,
    /// `join` looks for the device that invited, and proves the code to it.
    Meeting,
    /// `join` waits until somebody at the device that invited admits this one.
    Waiting,
    /// `join` opens the mesh and its folder.
    Opening,
}

/// `GET /v1/meshes`: the meshes that this device is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeshesReply {
    /// By name.
    pub meshes: Vec<MeshSummary>,
}

/// One mesh in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeshSummary {
    /// Which mesh.
    pub mesh: MeshRef,
    /// This device's role in it.
    pub role: RoleName,
    /// That this device was removed from it, when it was.
    pub removed: Option<RemovedInfo>,
    /// Whether the user paused it.
    pub paused: bool,
    /// How many devices are members, this one included.
    pub members: u32,
    /// How many other members are connected now.
    pub connected: u32,
    /// Files in the tree.
    pub files: u64,
    /// Sum of the sizes of the files.
    pub bytes: u64,
    /// The directories it is synced into.
    #[schema(value_type = Vec<String>)]
    pub dirs: Vec<PathBuf>,
    /// Whether this device is a seed of it.
    pub seed: bool,
}

/// `GET /v1/peers`: the devices that this node is or was connected with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeersReply {
    /// Connected ones first.
    pub peers: Vec<PeerInfo>,
}

/// One other device as the network sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerInfo {
    /// The device's id.
    pub device: String,
    /// Its name, safe to print.
    pub name: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// How; absent when it is not connected.
    pub path: Option<PathName>,
    /// At which address.
    pub address: Option<String>,
    /// The meshes that both are in.
    pub meshes: Vec<MeshRef>,
    /// Round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Sent to it, bytes a second.
    pub up_bytes_per_s: u64,
    /// Received from it, bytes a second.
    pub down_bytes_per_s: u64,
    /// Its version of the program.
    pub version: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// The meshes of which it cannot apply something, and why.
    pub hindered: Vec<Hindered>,
}

/// `GET /v1/transfers`: content in flight, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransfersReply {
    /// What is received, in the order in which it was begun.
    pub transfers: Vec<TransferInfo>,
    /// What is sent.
    pub uploads: Vec<UploadInfo>,
}

/// One content on its way to this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferInfo {
    /// In which mesh.
    pub mesh: MeshRef,
    /// The path inside the mesh, safe to print.
    pub path: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes a second, lately.
    pub bytes_per_s: u64,
    /// With how many peers.
    pub peers: u32,
}

/// Content on its way to another member. Who asks for it knows what it is for: it is not told apart by file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadInfo {
    /// In which mesh.
    pub mesh: MeshRef,
    /// The device that gets it, in hex.
    pub device: String,
    /// Its name, safe to print; empty if it is not known.
    pub name: String,
    /// Bytes sent since it began to fetch, with pauses of a few seconds at most.
    pub sent_bytes: u64,
    /// Bytes a second, lately.
    pub bytes_per_s: u64,
}

/// Kinds of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// `POST /v1/pause` and `POST /v1/resume`: which meshes are paused now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseReply {
    /// The meshes that the request named, each with its new state.
    pub meshes: Vec<PauseState>,
}

/// Whether a mesh is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseState {
    /// Which mesh.
    pub mesh: MeshRef,
    /// Whether it is paused now.
    pub paused: bool,
}

/// `GET /v1/limit` and `POST /v1/limit`: the limits in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LimitReply {
    /// For sending, all meshes together.
    pub up: Rate,
    /// For receiving, all meshes together.
    pub down: Rate,
    /// The meshes that have limits of their own within those.
    pub meshes: Vec<MeshLimit>,
}

/// The limits of one mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeshLimit {
    /// Which mesh.
    pub mesh: MeshRef,
    /// For sending.
    pub up: Rate,
    /// For receiving.
    pub down: Rate,
}

/// `POST /v1/wait`: whether everything known is applied and here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitReply {
    /// Whether it is; false only after the timeout.
    pub done: bool,
    /// What is not, and why (at most 1,000 are listed).
    pub waiting_for: Vec<Waiting>,
}

/// One thing that is not applied or not here yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// In which mesh.
    pub mesh: MeshRef,
    /// Which file, when it is about one.
    pub path: Option<String>,
    /// Why not.
    pub reason: String,
    /// What the user can do; empty when nothing needs to be done.
    pub action: String,
}

/// `GET /v1/explain`: why a file is, or is not, synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainReply {
    /// The mesh whose folder holds the file.
    pub mesh: MeshRef,
    /// The folder.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// The path inside the folder, safe to print.
    pub path: String,
    /// Whether what is on disk is what the mesh has.
    pub synced: bool,
    /// The answer, in words.
    pub reason: String,
    /// What the user can do; empty when nothing needs to be done.
    pub action: String,
}

/// `POST /v1/dial`: the device that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DialReply {
    /// Its id.
    pub device: String,
}

/// The answer of requests that have nothing to tell but that they worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Empty {}
