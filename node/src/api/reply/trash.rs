//! What is kept of what others removed or replaced, and what came back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/trash`: what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashReply {
    /// The folders that were asked for.
    pub folders: Vec<TrashInfo>,
}

/// The trash of one synced folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashInfo {
    /// The directory of the folder.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// Files and links that are kept.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// They, by path, the last of each first (at most 1,000 are listed).
    pub entries: Vec<TrashEntry>,
}

/// Something that a change from elsewhere removed or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrashEntry {
    /// Where it stood, inside the folder, safe to print.
    pub path: String,
    /// 1 for the last that stood there, 2 for the one before.
    pub version: u64,
    /// When it was removed or replaced.
    pub removed_ms: i64,
    /// Its size.
    pub bytes: u64,
}

/// `POST /v1/restore`: what came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreReply {
    /// The directory of the folder.
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// What is in its place again, inside the folder, safe to print.
    pub restored: Vec<String>,
    /// Files of a directory that stayed in the trash, because something new stands in their places.
    pub left: Vec<String>,
}
