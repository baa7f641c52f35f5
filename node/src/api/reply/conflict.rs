//! What ending a conflict answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MeshRef;

/// `POST /v1/resolve`: the conflict is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolveReply {
    /// In which mesh.
    pub mesh: MeshRef,
    /// The path that was named, inside the mesh, exactly as stored (print it with care).
    pub path: String,
}
