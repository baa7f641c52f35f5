//! Folders whose directory was away, as on a disk that is unplugged for a while, and is back.
//!
//! `vfs` stops such a folder for good: what it has open is of the directory that went. When the marker
//! stands in its place again the folder is opened as at a start, which looks through all of it. Called
//! by `reopen`.

use std::sync::Arc;

use wormhole_vfs::{OpenError, Phase, StopReason};

use super::{Bound, FolderState, LocalMesh, Node, blocking};
use crate::binding::marker;
use crate::error::OpenMeshError;

impl Bound {
    /// Whether the directory was not there when it was looked for last.
    fn is_away(&self) -> bool {
        match &self.state {
            FolderState::Open(folder) => match folder.status().phase {
                Phase::Stopped(
                    StopReason::DirectoryGone | StopReason::MarkerGone | StopReason::OlderCopy,
                ) => true,
                Phase::Stopped(
                    StopReason::Asked | StopReason::MarkerForeign | StopReason::StateFailed,
                )
                | Phase::Scanning
                | Phase::Syncing
                | Phase::UpToDate
                | Phase::Paused => false,
            },
            FolderState::Failed(OpenMeshError::Folder { source, .. }) => {
                matches!(**source, OpenError::Dir { .. })
            }
            FolderState::Failed(_) => false,
        }
    }
}

impl Node {
    /// Opens the folders of a mesh again whose directories are back.
    pub(super) async fn open_returned(&self, mesh: &Arc<LocalMesh>) {
        for bound in mesh.bound() {
            if !bound.is_away() {
                continue;
            }
            let (dir, id) = (bound.dir.clone(), bound.id);
            let is_back = blocking(move || marker::is_of(&dir, &id)).await;
            if is_back {
                self.open_anew(mesh, &bound).await;
            }
        }
    }

    async fn open_anew(&self, mesh: &Arc<LocalMesh>, bound: &Bound) {
        let _one_at_a_time = self.inner.changing.lock().await;
        let record = mesh.record().clone();
        // It may have been unbound in the meantime.
        let Some(binding) = record.bindings.iter().find(|other| other.id == bound.id) else {
            return;
        };
        tracing::info!(dir = %bound.dir.display(), "a folder is back in its place");
        mesh.take_bound(&bound.dir);
        bound.stop().await;
        if let Err(error) = self.open_binding(mesh, binding).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(dir = %bound.dir.display(), error, "a folder that is back is not opened");
        }
    }
}
