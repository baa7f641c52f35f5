//! What a client may ask of the node: one type for each request body or query of the local API.
//!
//! Shared by the server (`api/route`) and the client, so that both sides are held to one
//! definition by the compiler; the OpenAPI document is derived from the same types. Nothing here
//! is checked beyond its shape: meaning is checked by the node, which answers with a
//! [`Fault`](super::Fault).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Newcomer, RoleName};

/// `POST /v1/share`: makes a new mesh from a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    /// The directory to share, absolute. It is created when it does not exist and its parent does.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Name of the mesh; the directory's own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Role that the first invite gives; `writer` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// How long the first invite is good for, in seconds; 900 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Whether somebody has to admit the device that comes with it; when absent, if it gives the role of an admin or
    /// is good for longer than an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<bool>,
}

/// `POST /v1/invites`: makes another invite to a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The mesh, by name or by the beginning of its id.
    pub mesh: String,
    /// Role that the invite gives; `writer` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// How long the invite is good for, in seconds; 900 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Whether somebody has to admit the device that comes with it; when absent, if it gives the role of an admin or
    /// is good for longer than an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<bool>,
}

/// `POST /v1/seen`: a person has seen who joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenRequest {
    /// Those of [`StatusReply::newcomers`](super::StatusReply::newcomers).
    pub newcomers: Vec<Newcomer>,
}

/// `POST /v1/decide`: admits or refuses a device that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    /// The device, by name or by the beginning of its id.
    pub device: String,
    /// Whether to admit it.
    pub admit: bool,
}

/// `POST /v1/propose`: asks what a code or link leads to, and joins nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProposeRequest {
    /// A join code or a link.
    pub ticket: String,
    /// Addresses to try besides discovery.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

// The ticket is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for ProposeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProposeRequest")
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// What the user agreed to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// Whatever the code or link leads to.
    Anything,
    /// What `POST /v1/propose` answered, and nothing else.
    To {
        /// The id of the mesh.
        mesh: String,
        /// The role.
        role: RoleName,
        /// The id of the device that invites.
        from_device: String,
    },
}

/// `POST /v1/join`: becomes a member of a mesh by a code or a link.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// A join code (`417203-copper-violin-harvest-lantern`) or a link (`wormhole://join/…`).
    pub ticket: String,
    /// Where to sync the mesh, absolute; `~/<mesh name>` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dir: Option<PathBuf>,
    /// What this device will do with the mesh's content.
    #[serde(default)]
    pub keep: Keep,
    /// Addresses to try besides discovery, for example `192.168.1.4:4711`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// What the user agreed to.
    pub agreed: Agreement,
}

// The ticket is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("dir", &self.dir)
            .field("keep", &self.keep)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

/// What a device does with the content of a mesh that it joins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// A synced folder: real files in a directory.
    #[default]
    Folder,
    /// All content without a folder, for the other members.
    Seed,
}

/// `POST /v1/sync`: shows a mesh, or a directory of it, in one more directory of this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// The mesh, by name or by the beginning of its id.
    pub mesh: String,
    /// A directory inside the mesh, `/`-separated; the whole mesh when empty.
    #[serde(default)]
    pub path: String,
    /// The directory on this device, absolute. Created when it does not exist and its parent does.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// `POST /v1/unbind`: stops syncing a directory; its files stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnbindRequest {
    /// The directory of a synced folder, absolute.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// `POST /v1/move`: moves a synced folder, or follows one that was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The directory of a synced folder, absolute; it may be gone.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Where it goes, or is already; absolute.
    #[schema(value_type = String)]
    pub to: PathBuf,
}

/// `POST /v1/leave`: forgets a mesh on this device; the files of its folders stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaveRequest {
    /// The mesh, by name or by the beginning of its id.
    pub mesh: String,
    /// Leave even when no connected member is known to have all that this device has.
    #[serde(default)]
    pub confirmed: bool,
}

/// `POST /v1/revoke`: removes a device from a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The mesh, by name or by the beginning of its id; the only one with such a device when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The device, by name, by the beginning of its id, or by its words.
    pub device: String,
}

/// `POST /v1/role`: gives a device of a mesh another role, or lets one in again whose admission is void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRequest {
    /// The mesh, by name or by the beginning of its id; the only one with such a device when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The device, by name, by the beginning of its id, or by its words.
    pub device: String,
    /// The role that it gets.
    pub role: RoleName,
}

/// `POST /v1/recovery`: names the key of a recovery phrase; the phrase itself the node never hears then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRequest {
    /// The mesh, by name or by the beginning of its id.
    pub mesh: String,
    /// The public key, 64 hex digits.
    pub key: String,
}

/// `POST /v1/recover`: makes this device admin by a recovery phrase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// The mesh, by name or by the beginning of its id.
    pub mesh: String,
    /// The phrase.
    pub phrase: String,
}

// The phrase is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for RecoverRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoverRequest")
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

/// `POST /v1/confirm-deletions`: what vanished from a synced folder, and waits, was meant to, or comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// The directory of a synced folder, absolute.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Bring it back.
    #[serde(default)]
    pub undo: bool,
}

/// `POST /v1/rescan`: acts on one synced folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderRequest {
    /// The directory of a synced folder, absolute.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// `GET /v1/ls` and `GET /v1/cat`: names something in the tree of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TreeQuery {
    /// The mesh, by name or by the beginning of its id.
    pub mesh: String,
    /// A path inside the mesh, `/`-separated; its root when empty.
    #[serde(default)]
    pub path: String,
}

/// `GET /v1/conflicts` and `GET /v1/status`: one mesh, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct MeshQuery {
    /// The mesh, by name or by the beginning of its id; every mesh when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
}

/// `POST /v1/resolve`: ends a conflict on every device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// The mesh, by name or by the beginning of its id; absent when the path is one of this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// A conflict copy or the file beside it: a path inside the mesh, or an absolute one inside a synced folder.
    pub path: String,
    /// What to keep.
    pub keep: Kept,
}

/// Which of two versions is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// The named one, under the plain name; the other is removed.
    This,
    /// The other one, under the plain name; the named one is removed.
    Other,
    /// Both, under the names that they have.
    Both,
}

impl From<Kept> for wormhole_crdt::Kept {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::This => Self::This,
            Kept::Other => Self::Other,
            Kept::Both => Self::Both,
        }
    }
}

/// `GET /v1/explain`: names a file of a synced folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// A path on this device, absolute, inside a synced folder.
    #[schema(value_type = String)]
    #[param(value_type = String)]
    pub path: PathBuf,
}

/// `GET /v1/trash`: one synced folder, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TrashQuery {
    /// The directory of a synced folder, absolute; every folder when absent.
    #[schema(value_type = Option<String>)]
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
}

/// `POST /v1/restore`: brings something back from a folder's trash to where it stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Where it stood: a path on this device, absolute, inside a synced folder.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// 1 for the last that stood there, 2 for the one before, and so on.
    #[serde(default = "last_version")]
    pub version: u64,
}

fn last_version() -> u64 {
    1
}

/// `POST /v1/pause` and `POST /v1/resume`: one mesh, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// The mesh, by name or by the beginning of its id; every mesh when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
}

/// `POST /v1/check`: one mesh, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// The mesh, by name or by the beginning of its id; every mesh when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
}

/// `POST /v1/limit`: changes the bandwidth limits. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitRequest {
    /// Whose: those of a mesh, by name or by the beginning of its id; those of the node when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The new limit for sending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Rate>,
    /// The new limit for receiving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Rate>,
}

/// A bandwidth limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// As fast as the network allows.
    #[default]
    Unlimited,
    /// At most so many bytes in a second (at least 1,024).
    BytesPerSecond(u64),
}

impl Rate {
    /// The number; `None` is unlimited.
    #[must_use]
    pub const fn bytes_per_second(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::BytesPerSecond(bytes) => Some(bytes),
        }
    }
}

impl From<Option<u64>> for Rate {
    fn from(limit: Option<u64>) -> Self {
        limit.map_or(Self::Unlimited, Self::BytesPerSecond)
    }
}

/// `POST /v1/wait`: waits until everything known is applied and here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// The mesh, by name or by the beginning of its id; every mesh when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// How long to wait, in seconds; as long as it takes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// How many other members must be connected before the answer can be yes; 0 when absent.
    #[serde(default)]
    pub members: u32,
    /// Answer as soon as all that is left cannot come before somebody does something about it.
    #[serde(default)]
    pub until_stuck: bool,
}

/// `POST /v1/dial`: connects to an address by hand and remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DialRequest {
    /// An address such as `192.168.1.4:4711`.
    pub peer: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bend::{Budget, bend};

    fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) {
        let _request = serde_json::from_slice::<T>(bytes);
    }

    #[test]
    fn bent_requests_do_no_harm() {
        let right = [
            r#"{"dir":"/home/a/Designs","name":"Designs","role":"writer","ttl_seconds":900}"#,
            r#"{"ticket":"7-copper-violin-harvest-lantern","keep":"seed","peers":["192.168.1.4:4711"]}"#,
            r#"{"mesh":"Designs","up":{"bytes_per_second":1024},"down":"unlimited"}"#,
            r#"{"mesh":null,"timeout_seconds":18446744073709551615,"members":4294967295}"#,
            r#"{"mesh":"Designs","path":"a\u0000/\ud83d\ude00"}"#,
        ];
        let right: Vec<_> = right.iter().map(|text| text.as_bytes().to_vec()).collect();
        let budget = Budget {
            fixed: 64 << 10,
            per_byte: 64,
        };
        bend("requests of the local API", &right, "", budget, |bytes| {
            decode::<ShareRequest>(bytes);
            decode::<InviteRequest>(bytes);
            decode::<JoinRequest>(bytes);
            decode::<SyncRequest>(bytes);
            decode::<UnbindRequest>(bytes);
            decode::<LeaveRequest>(bytes);
            decode::<FolderRequest>(bytes);
            decode::<PauseRequest>(bytes);
            decode::<CheckRequest>(bytes);
            decode::<LimitRequest>(bytes);
            decode::<WaitRequest>(bytes);
            decode::<DialRequest>(bytes);
            decode::<serde_json::Value>(bytes);
        });
    }
}
