//! What a check of the stored bytes answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MeshRef, Problem};

/// `POST /v1/check`: what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckReply {
    /// The meshes that the request named.
    pub meshes: Vec<CheckInfo>,
}

/// What a check of everything that is stored of a mesh has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckInfo {
    /// Which mesh.
    pub mesh: MeshRef,
    /// Pieces of content that were read, stored ones and those in synced files.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pieces that were damaged.
    pub damaged: u64,
    /// Pieces that could not be read now, because a disk is not mounted or refuses.
    pub unreadable: u64,
    /// What could not be healed.
    pub problems: Vec<Problem>,
}
