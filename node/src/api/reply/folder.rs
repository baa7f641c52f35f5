//! What operations on a synced folder answer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MeshRef;

/// `POST /v1/unbind`: what is no longer synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnbindReply {
    /// The mesh; this device stays a member.
    pub mesh: MeshRef,
    /// The directory; its files stay.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// `POST /v1/move`: where the folder is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveReply {
    /// The mesh.
    pub mesh: MeshRef,
    /// Where it was.
    #[schema(value_type = String)]
    pub from: PathBuf,
    /// Where it is.
    #[schema(value_type = String)]
    pub dir: PathBuf,
}

/// `POST /v1/confirm-deletions`: what was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfirmReply {
    /// How many entries are deleted in the mesh now, or are to come back; 0 when none waited.
    pub entries: u64,
    /// The first 200 of the files and whole directories, safe to print.
    pub paths: Vec<String>,
    /// Whether they come back.
    pub undone: bool,
}
