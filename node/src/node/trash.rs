//! What others removed or replaced in this device's folders: shown, and brought back.

use std::path::Path;
use std::sync::Arc;

use wormhole_vfs::{Folder, Trashed};

use super::{Bound, FolderState, LocalMesh, Node};
use crate::api::{RestoreReply, RestoreRequest, TrashEntry, TrashInfo, TrashReply};
use crate::error::FolderOperationError;
use crate::status::shown_path;

/// Entries of one folder's trash in one answer.
const LISTED: usize = 1_000;

impl Node {
    /// What is kept of one folder, or of all.
    ///
    /// # Errors
    /// A [`FolderOperationError`].
    pub async fn trash(&self, dir: Option<&Path>) -> Result<TrashReply, FolderOperationError> {
        let mut bound: Vec<Arc<Bound>> = match dir {
            Some(dir) => vec![self.find_bound(dir)?.1],
            None => self
                .local_meshes()
                .iter()
                .flat_map(|mesh: &Arc<LocalMesh>| mesh.bound())
                .collect(),
        };
        bound.sort_by(|one, other| one.dir.cmp(&other.dir));
        let mut folders = Vec::new();
        for bound in bound {
            match &bound.state {
                FolderState::Open(folder) => folders.push(trash_of(&bound, folder).await?),
                FolderState::Failed(_) if dir.is_none() => {}
                FolderState::Failed(_) => {
                    return Err(FolderOperationError::NotOpen {
                        dir: bound.dir.clone(),
                    });
                }
            }
        }
        Ok(TrashReply { folders })
    }

    /// Brings something back to where it stood.
    ///
    /// # Errors
    /// A [`FolderOperationError`].
    pub async fn restore(
        &self,
        request: &RestoreRequest,
    ) -> Result<RestoreReply, FolderOperationError> {
        let (bound, below) = self.bound_at(&request.path)?;
        let FolderState::Open(folder) = &bound.state else {
            return Err(FolderOperationError::NotOpen {
                dir: bound.dir.clone(),
            });
        };
        let restored = folder.restore(below, request.version).await?;
        Ok(RestoreReply {
            dir: bound.dir.clone(),
            restored: restored.paths.iter().map(|path| shown_path(path)).collect(),
            left: restored.left.iter().map(|path| shown_path(path)).collect(),
        })
    }
}

async fn trash_of(bound: &Bound, folder: &Folder) -> Result<TrashInfo, FolderOperationError> {
    let all = folder.trash().await?;
    Ok(TrashInfo {
        dir: bound.dir.clone(),
        files: all.len() as u64,
        bytes: all.iter().map(|one| one.size).sum(),
        entries: all.iter().take(LISTED).map(entry).collect(),
    })
}

fn entry(trashed: &Trashed) -> TrashEntry {
    TrashEntry {
        path: shown_path(&trashed.path),
        version: trashed.version,
        removed_ms: i64::try_from(trashed.at)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000),
        bytes: trashed.size,
    }
}
