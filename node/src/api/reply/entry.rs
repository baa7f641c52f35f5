//! What is told about entries of a tree.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{KindName, MeshRef};

/// `GET /v1/ls` and `GET /v1/conflicts`: entries of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntriesReply {
    /// By mesh, then by name.
    pub entries: Vec<EntryInfo>,
}

/// One entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryInfo {
    /// In which mesh.
    pub mesh: MeshRef,
    /// The path inside the mesh, exactly as stored (print it with care).
    pub path: String,
    /// The last component of the path, safe to print.
    pub name: String,
    /// What it is.
    pub kind: KindName,
    /// Size of a file, in bytes.
    pub size: Option<u64>,
    /// When a file was last changed.
    pub mtime_ms: Option<i64>,
    /// Whether a file may be executed.
    pub executable: bool,
    /// Its permissions, as three octal digits.
    pub mode: String,
    /// Where a symbolic link points.
    pub target: Option<String>,
    /// Whether it is the second version of something changed on two devices apart.
    pub conflict: bool,
    /// Name of the device that wrote this version, safe to print.
    pub modified_by: Option<String>,
    /// Id of a file's content.
    pub content: Option<String>,
}
