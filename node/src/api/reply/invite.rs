//! Answers about invites: what is handed out, who waits, who has come.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MeshRef, RoleName};

/// `POST /v1/invites`: how another device joins. Good for one device.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteReply {
    /// The mesh that the invite opens.
    pub mesh: MeshRef,
    /// The code to say or type.
    pub code: String,
    /// The link to send or show as a QR code.
    pub link: String,
    /// The role it gives.
    pub role: RoleName,
    /// When it stops working.
    pub expires_ms: i64,
    /// Whether somebody here has to admit the device that comes with it.
    pub ask: bool,
}

// Code and link are secrets: they must not reach a log through `{:?}`.
impl std::fmt::Debug for InviteReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InviteReply")
            .field("mesh", &self.mesh)
            .field("role", &self.role)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

/// `GET /v1/invites`: the invites that are still good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvitesReply {
    /// The oldest first.
    pub invites: Vec<InviteReply>,
}

/// A device with an invite that waits for somebody here to admit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskingInfo {
    /// Into which mesh.
    pub mesh: MeshRef,
    /// The device's id.
    pub device: String,
    /// What it calls itself, safe to print.
    pub name: String,
    /// Its fingerprint as words, to be compared with what it shows.
    pub words: String,
    /// What it would be.
    pub role: RoleName,
    /// When its invite stops working.
    pub expires_ms: i64,
}

/// `GET /v1/asking`: the devices that wait to be admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskingReply {
    /// The first one first.
    pub devices: Vec<AskingInfo>,
}

/// `POST /v1/decide`: which device was admitted or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecideReply {
    /// The device as it waited.
    pub device: AskingInfo,
    /// Whether it was admitted.
    pub admitted: bool,
}

/// `POST /v1/propose`, at the end: what a code or link leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProposeReply {
    /// The mesh, by the name that the inviting device says.
    pub mesh: MeshRef,
    /// What this device would be.
    pub role: RoleName,
    /// Name of the device that invites.
    pub from: String,
    /// Id of the device that invites.
    pub from_device: String,
    /// The fingerprint of that device as words.
    pub from_words: String,
    /// Whether somebody there has to admit this device.
    pub ask: bool,
    /// The fingerprint of this device as words, which they can compare.
    pub words: String,
    /// When the invite stops working.
    pub expires_ms: i64,
}

/// A device that joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Newcomer {
    /// Which mesh.
    pub mesh: MeshRef,
    /// The device's id.
    pub device: String,
    /// Its name, safe to print.
    pub name: String,
    /// What it may do.
    pub role: RoleName,
    /// When this device learned of it.
    pub at_ms: i64,
}
