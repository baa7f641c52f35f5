//! Ends conflicts, for every device of a mesh at once.

use std::path::Path;
use std::sync::Arc;

use super::local::blocking;
use super::{LocalMesh, Node, now};
use crate::api::{ResolveReply, ResolveRequest};
use crate::error::{ResolveConflictError, TreeError};

impl Node {
    /// Keeps one of two versions, or both. The file is named by its mesh and its path there, or by where it is on
    /// this device.
    ///
    /// # Errors
    /// A [`ResolveConflictError`]; nothing has then changed.
    pub async fn resolve_conflict(
        &self,
        request: &ResolveRequest,
    ) -> Result<ResolveReply, ResolveConflictError> {
        let (mesh, path) = match &request.mesh {
            Some(mesh) => {
                let mesh = self.lookup(mesh).map_err(TreeError::from)?;
                (mesh, request.path.clone())
            }
            None => self.mesh_path(Path::new(&request.path)).await?,
        };
        let Some(entry) = self.resolve(&mesh, &path).await? else {
            return Err(ResolveConflictError::Root);
        };
        let (replica, keep) = (mesh.replica().clone(), request.keep.into());
        blocking(move || {
            let drawn_up = replica.resolution(&entry, keep);
            let edits = drawn_up.map_err(TreeError::from)??;
            replica.edit(&edits, now())?;
            Ok::<_, ResolveConflictError>(())
        })
        .await?;
        Ok(ResolveReply {
            mesh: mesh.reference(),
            path,
        })
    }

    /// The mesh, and the path there, of a file in a synced folder.
    async fn mesh_path(
        &self,
        file: &Path,
    ) -> Result<(Arc<LocalMesh>, String), ResolveConflictError> {
        let (mesh, bound, below) = self.around(file)?;
        let (replica, base) = (mesh.replica().clone(), bound.base);
        let above = blocking(move || replica.path_of(&base.into())).await;
        let above = above.map_err(TreeError::from)?.unwrap_or_default();
        let below = below.to_string_lossy();
        let path = match above.is_root() {
            true => below.into_owned(),
            false => format!("{above}/{below}"),
        };
        Ok((mesh, path))
    }
}
