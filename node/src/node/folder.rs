//! `sync` and `unbind`, and what can be told to a single folder.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use wormhole_crdt::{EntryId, Kind};
use wormhole_vfs::Folder;

use super::local::blocking;
use super::share::Place;
use super::{Bound, FolderState, LocalMesh, Node};
use crate::api::{ConfirmReply, ConfirmRequest, SyncReply, SyncRequest, UnbindReply};
use crate::binding::{self, Contents};
use crate::error::{FolderOperationError, TreeError};
use crate::event::EventKind;
use crate::home::{BindingRecord, BindingTarget};

impl Node {
    /// Shows a mesh, or a directory of it, in one more directory of this device.
    ///
    /// # Errors
    /// A [`FolderOperationError`]; nothing is left behind then.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncReply, FolderOperationError> {
        let mesh = self.lookup(&request.mesh)?;
        let _one_at_a_time = self.inner.changing.lock().await;
        let base = self.directory(&mesh, &request.path).await?;
        let dir = self.check_dir(&request.dir, Contents::Welcome).await?;
        let place = Place::make(&dir)?;
        if let Err(error) = self.add_binding(&mesh, place.record(base)).await {
            place.unmake();
            return Err(error);
        }
        self.events().raise(EventKind::FolderBound {
            mesh: mesh.reference(),
            dir: dir.clone(),
        });
        Ok(SyncReply {
            mesh: mesh.reference(),
            path: request.path,
            dir,
        })
    }

    async fn add_binding(
        &self,
        mesh: &Arc<LocalMesh>,
        binding: BindingRecord,
    ) -> Result<(), FolderOperationError> {
        self.open_binding(mesh, &binding).await?;
        if let BindingTarget::Folder { dir, .. } = &binding.target
            && let Some(error) = mesh.take_failed(dir)
        {
            return Err(error.into());
        }
        let added = binding.clone();
        let saved = self.change_record(mesh, |record| record.bindings.push(added));
        if let Err(error) = saved.await {
            if let BindingTarget::Folder { dir, .. } = &binding.target {
                self.close_binding(mesh, dir).await;
            }
            return Err(crate::error::OpenMeshError::from(error).into());
        }
        Ok(())
    }

    /// Stops syncing a directory. Its files stay; this device stays a member.
    ///
    /// # Errors
    /// A [`FolderOperationError`].
    pub async fn unbind(&self, dir: &Path) -> Result<UnbindReply, FolderOperationError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let (mesh, bound) = self.find_bound(dir)?;
        let id = bound.id;
        self.change_record(&mesh, move |record| {
            record.bindings.retain(|binding| binding.id != id);
        })
        .await
        .map_err(crate::error::OpenMeshError::from)?;
        self.close_binding(&mesh, &bound.dir).await;
        let dir = bound.dir.clone();
        self.events().raise(EventKind::FolderUnbound {
            mesh: mesh.reference(),
            dir: dir.clone(),
        });
        Ok(UnbindReply {
            mesh: mesh.reference(),
            dir,
        })
    }

    /// Stops a folder that is no longer in the record, and forgets what was known about it.
    pub(super) async fn close_binding(&self, mesh: &Arc<LocalMesh>, dir: &Path) {
        let Some(bound) = mesh.take_bound(dir) else {
            return;
        };
        bound.stop().await;
        let seed = mesh.seed();
        let is_seed = seed.is_some();
        let mesh = mesh.clone();
        let woken = mesh.clone();
        blocking(move || {
            if is_seed {
                keep_copies(&mesh);
            }
            binding::marker::remove(&bound.dir, &bound.id);
            if let Err(error) = mesh.store().remove_root(&bound.id) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(dir = %bound.dir.display(), error, "the store still knows a folder that was unbound");
            }
            match fs::remove_file(mesh.folder_state_path(bound.id)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "the database of an unbound folder stays"),
            }
        })
        .await;
        if let Some(seed) = seed {
            seed.want(None);
            woken.wake.notify_one();
        }
    }

    /// Looks through a folder again, as if nothing were known about it.
    ///
    /// # Errors
    /// A [`FolderOperationError`].
    pub async fn rescan(&self, dir: &Path) -> Result<(), FolderOperationError> {
        self.open_folder_at(dir)?.rescan().await;
        Ok(())
    }

    /// Lets the deletions that a folder holds back go through, or brings back what vanished. Answers which those were;
    /// without any nothing is done, so that none that comes later passes unseen.
    ///
    /// # Errors
    /// A [`FolderOperationError`].
    pub async fn confirm_deletions(
        &self,
        request: &ConfirmRequest,
    ) -> Result<ConfirmReply, FolderOperationError> {
        let folder = self.open_folder_at(&request.dir)?;
        let held = folder.status().held;
        let undone = request.undo;
        if held.entries == 0 {
            let (entries, paths) = (0, Vec::new());
            return Ok(ConfirmReply {
                entries,
                paths,
                undone,
            });
        }
        let done = match undone {
            true => folder.undo_deletions(held.list).await,
            false => folder.confirm_deletions(held.list).await,
        };
        let Some(entries) = done else {
            let dir = folder.dir().to_owned();
            return Err(FolderOperationError::OtherDeletions { dir });
        };
        let paths = held.paths.iter().map(ToString::to_string).collect();
        Ok(ConfirmReply {
            entries,
            paths,
            undone,
        })
    }

    fn open_folder_at(&self, dir: &Path) -> Result<Folder, FolderOperationError> {
        let (_, bound) = self.find_bound(dir)?;
        match &bound.state {
            FolderState::Open(folder) => Ok(folder.clone()),
            FolderState::Failed(_) => Err(FolderOperationError::NotOpen {
                dir: bound.dir.clone(),
            }),
        }
    }

    /// The binding of exactly this directory.
    pub(super) fn find_bound(
        &self,
        dir: &Path,
    ) -> Result<(Arc<LocalMesh>, Arc<Bound>), FolderOperationError> {
        // A directory that is gone is still bound under the name it had.
        let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        for mesh in self.local_meshes() {
            let bound = mesh
                .bound()
                .into_iter()
                .find(|bound| bound.dir == real || bound.dir == dir);
            if let Some(bound) = bound {
                return Ok((mesh, bound));
            }
        }
        Err(FolderOperationError::NotBound {
            dir: dir.to_owned(),
        })
    }

    /// The directory of the mesh that a path names.
    async fn directory(&self, mesh: &Arc<LocalMesh>, path: &str) -> Result<EntryId, TreeError> {
        match self.resolve(mesh, path).await? {
            None => Ok(EntryId::ROOT),
            Some(entry) if entry.kind == Kind::Directory => Ok(entry.key.id),
            Some(_) => Err(TreeError::NotADirectory {
                path: path.to_owned(),
            }),
        }
    }
}

/// Copies what is here only as references into folders: a seed has everything, also when its folder is given up. What
/// there is no room for is fetched again when there is, or told as missing.
fn keep_copies(mesh: &LocalMesh) {
    let mut live = Vec::new();
    if let Err(error) = mesh.replica().contents(&mut |content| live.push(*content)) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(
            mesh = mesh.name(),
            error,
            "the live contents cannot be listed"
        );
    }
    for content in live {
        if let Err(error) = mesh.store().preserve(&content) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                mesh = mesh.name(),
                error,
                "a seed cannot copy what its folder holds"
            );
            return;
        }
    }
}
