//! "Why is this file not synced?" always has an answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wormhole_vfs::Explanation;

use super::shown_path;
use crate::api::ExplainReply;
use crate::error::{FolderOperationError, LookupError};
use crate::node::{Bound, FolderState, LocalMesh, Node};

impl Node {
    /// Says why a file of a synced folder is, or is not, synced.
    ///
    /// # Errors
    /// [`FolderOperationError::NotBound`] when the path is in no synced folder, [`LookupError::Closed`]
    /// when the folder's mesh is not open.
    pub async fn explain(&self, path: &Path) -> Result<ExplainReply, FolderOperationError> {
        let (mesh, bound, below) = self.around(path)?;
        let (synced, reason, action) = match &bound.state {
            FolderState::Failed(error) => (false, crate::error::sentence(error), String::new()),
            FolderState::Open(folder) => words(&folder.explain(below.clone()).await),
        };
        let (reason, synced) = match mesh.record().paused {
            true if synced => (reason, synced),
            true => (format!("{reason}; the mesh is paused"), synced),
            false => (reason, synced),
        };
        Ok(ExplainReply {
            mesh: mesh.reference(),
            dir: bound.dir.clone(),
            path: shown_path(&below),
            synced,
            reason,
            action,
        })
    }

    /// The open or failed folder that a path is in, and the path below it.
    ///
    /// # Errors
    /// As [`Node::explain`].
    pub(crate) fn bound_at(
        &self,
        path: &Path,
    ) -> Result<(Arc<Bound>, PathBuf), FolderOperationError> {
        let (_mesh, bound, below) = self.around(path)?;
        Ok((bound, below))
    }

    /// The same, with the mesh.
    ///
    /// # Errors
    /// As [`Node::explain`].
    pub(crate) fn around(
        &self,
        path: &Path,
    ) -> Result<(Arc<LocalMesh>, Arc<Bound>, PathBuf), FolderOperationError> {
        let real = real_parent(path);
        let (mesh, bound) = self.bound_around(&real)?;
        let below = real.strip_prefix(&bound.dir).unwrap_or(Path::new(""));
        let below = below.to_owned();
        Ok((mesh, bound, below))
    }

    fn bound_around(
        &self,
        path: &Path,
    ) -> Result<(Arc<LocalMesh>, Arc<Bound>), FolderOperationError> {
        for mesh in self.local_meshes() {
            let bound = mesh
                .bound()
                .into_iter()
                .find(|bound| path.starts_with(&bound.dir));
            if let Some(bound) = bound {
                return Ok((mesh, bound));
            }
        }
        let closed = self
            .broken_meshes()
            .into_iter()
            .find(|broken| broken.dirs().any(|dir| path.starts_with(dir)));
        Err(match closed {
            Some(broken) => FolderOperationError::Lookup(LookupError::Closed {
                name: broken.mesh.name,
                problem: broken.problem,
            }),
            None => FolderOperationError::NotBound {
                dir: path.to_owned(),
            },
        })
    }
}

fn words(explanation: &Explanation) -> (bool, String, String) {
    match explanation {
        Explanation::Synced | Explanation::Conflict => {
            (true, explanation.to_string(), String::new())
        }
        Explanation::Problem(reason) => (false, reason.to_string(), reason.action().to_owned()),
        Explanation::Ignored { .. }
        | Explanation::Settling
        | Explanation::Waiting(_)
        | Explanation::Unrecorded
        | Explanation::Unknown
        | Explanation::Stopped(_) => (false, explanation.to_string(), String::new()),
    }
}

/// The path with the symbolic links of its directory followed, not its own: links are synced as
/// links.
fn real_parent(path: &Path) -> PathBuf {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        // A directory that is gone: what is above it may be there.
        Err(_) => real_parent(parent).join(name),
    }
}
