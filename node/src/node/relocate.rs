//! `move`: a synced folder goes on in another directory, with its memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local::blocking;
use super::{Bound, LocalMesh, Node};
use crate::api::MoveReply;
use crate::binding::{self, Contents, Found, Marker, Surroundings, marker};
use crate::error::FolderOperationError;
use crate::event::EventKind;
use crate::home::BindingTarget;

/// What is to be done with the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The folder is where it was: it is renamed.
    Rename,
    /// The user has moved or copied it already.
    Follow,
}

impl Node {
    /// Moves a synced folder, or follows one that was moved already. The binding stays what it is, and so does what is
    /// remembered of the last sync.
    ///
    /// # Errors
    /// A [`FolderOperationError`]. The folder goes on where it was then.
    pub async fn move_folder(
        &self,
        dir: &Path,
        to: &Path,
    ) -> Result<MoveReply, FolderOperationError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let (mesh, bound) = self.find_bound(dir)?;
        let (to, step) = self.check_destination(&bound, to).await?;
        mesh.take_bound(&bound.dir);
        bound.stop().await;
        let moved = self.relocate(&mesh, &bound, &to, step).await;
        let record = mesh.record().clone();
        if let Some(binding) = record.bindings.iter().find(|other| other.id == bound.id) {
            self.open_binding(&mesh, binding).await?;
        }
        moved?;
        self.events().raise(EventKind::FolderMoved {
            mesh: mesh.reference(),
            from: bound.dir.clone(),
            dir: to.clone(),
        });
        Ok(MoveReply {
            mesh: mesh.reference(),
            from: bound.dir.clone(),
            dir: to,
        })
    }

    /// Whether the folder may be there, and where that really is.
    async fn check_destination(
        &self,
        bound: &Bound,
        to: &Path,
    ) -> Result<(PathBuf, Step), FolderOperationError> {
        let mut asker = self.asker();
        asker.bound.retain(|other| other.id != bound.id);
        let (id, from, to) = (bound.id, bound.dir.clone(), to.to_owned());
        blocking(move || {
            let mut around = Surroundings::look(&to, asker)?;
            let to = around.dir.clone();
            let is_itself = matches!(around.marker, Marker::Of(owner) if owner.id == id);
            if is_itself {
                around.marker = Marker::Absent;
            }
            let is_there = marker::is_of(&from, &id);
            let is_free = matches!(around.found, Found::Nothing | Found::Empty);
            binding::check(&around, Contents::Welcome)?;
            match (is_itself, is_free && is_there) {
                (true, _) => Ok((to, Step::Follow)),
                (false, true) => Ok((to, Step::Rename)),
                (false, false) => Err(FolderOperationError::NotItself { from, to }),
            }
        })
        .await
    }

    async fn relocate(
        &self,
        mesh: &Arc<LocalMesh>,
        bound: &Bound,
        to: &Path,
        step: Step,
    ) -> Result<(), FolderOperationError> {
        let (id, from, to) = (bound.id, bound.dir.clone(), to.to_owned());
        if step == Step::Rename {
            let (from, to) = (from.clone(), to.clone());
            blocking(move || {
                fs::rename(&from, &to).map_err(|error| FolderOperationError::Rename {
                    kind: error.kind(),
                    from,
                    to,
                })
            })
            .await?;
        }
        let place = to.clone();
        let saved = self.change_record(mesh, move |record| {
            let mut bindings = record.bindings.iter_mut();
            if let Some(binding) = bindings.find(|binding| binding.id == id)
                && let BindingTarget::Folder { dir, .. } = &mut binding.target
            {
                *dir = place;
            }
        });
        let saved = saved.await;
        if let (Err(_), Step::Rename) = (&saved, step) {
            let (from, to) = (from.clone(), to.clone());
            if let Err(error) = blocking(move || fs::rename(&to, &from)).await {
                tracing::error!(%error, "a folder that could not be moved is not back in its place");
            }
        }
        saved?;
        if step == Step::Follow && from != to {
            // What the user copied is a directory like any other from now on.
            blocking(move || marker::remove(&from, &id)).await;
        }
        Ok(())
    }
}
