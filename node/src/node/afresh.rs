//! Opening what may be damaged and can be made anew: a folder without its memory, a store without its
//! index. People are told of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wormhole_crdt::EntryId;
use wormhole_store::RootId;
use wormhole_vfs::{Folder, FolderConfig, FolderTask, Memory};

use super::local::{blocking, opening};
use super::{LocalMesh, Node};
use crate::api::Problem;
use crate::error::OpenMeshError;
use crate::home::HomeError;
use crate::source::MeshSource;
use crate::{follow, home, status};

impl Node {
    /// Opens a folder and has it run.
    pub(super) async fn open_folder(
        &self,
        mesh: &Arc<LocalMesh>,
        id: RootId,
        dir: &Path,
        base: EntryId,
        cancel: CancellationToken,
    ) -> Result<Folder, OpenMeshError> {
        let config = FolderConfig {
            base,
            trash: self.config().trash,
            quiet: self.config().quiet,
            // References into the folder's files were only in the index of the store.
            memory: match mesh.store().recovery().index_rebuilt {
                true => Memory::Afresh,
                false => Memory::Kept,
            },
            ..FolderConfig::new(id, dir, mesh.folder_state_path(id))
        };
        self.set_aside_if_suspect(mesh, &config).await?;
        let opened = match self.start_folder(mesh, &config, &cancel).await {
            Err(error) if is_memory_lost(&error).await => {
                tracing::error!(
                    dir = %config.dir.display(),
                    error = &error as &dyn std::error::Error,
                    "a folder cannot be opened"
                );
                self.set_memory_aside(mesh, &config)?;
                self.start_folder(mesh, &config, &cancel).await
            }
            opened => opened,
        };
        let (folder, task) = opened?;
        if folder.began_afresh() {
            self.tell_of_older_copy(mesh, &config.dir);
        }
        self.tasks().spawn("folder", task)?;
        let watch = follow::folder(self.clone(), mesh, dir.to_owned(), &folder);
        self.tasks().spawn("folder events", watch)?;
        Ok(folder)
    }

    async fn start_folder(
        &self,
        mesh: &LocalMesh,
        config: &FolderConfig,
        cancel: &CancellationToken,
    ) -> Result<(Folder, FolderTask), OpenMeshError> {
        let source = Arc::new(MeshSource::new(self.network().clone(), mesh.id()));
        let (replica, store) = (mesh.replica().clone(), mesh.store().clone());
        let damaged = OpenMeshError::DamagedFolder {
            dir: config.dir.clone(),
            memory: config.state.clone(),
        };
        let (config, cancel) = (config.clone(), cancel.clone());
        opening(damaged, move || {
            let dir = config.dir.clone();
            let started = Folder::start(config, replica, store, source, cancel);
            started.map_err(|source| OpenMeshError::Folder {
                dir,
                source: Box::new(source),
            })
        })
        .await
    }

    /// Has a folder begin without its memory of the last sync, which is damaged. That loses no file:
    /// equal ones are adopted, of different ones both are kept. What was deleted since the last sync
    /// comes back, so people are told.
    fn set_memory_aside(&self, mesh: &LocalMesh, config: &FolderConfig) -> Result<(), HomeError> {
        tracing::error!(dir = %config.dir.display(), "a folder begins afresh");
        let aside = home::set_aside(&config.state)?;
        let notice = Problem {
            path: status::shown_path(&config.dir),
            reason: "what was remembered of the last sync was damaged, so the folder was looked through \
                 afresh; files that were deleted lately may be back"
                .to_owned(),
            action: format!("delete them again; the damaged file is {}", aside.display()),
        };
        mesh.health()
            .notice(&mesh.reference(), notice, self.events());
        Ok(())
    }

    /// A folder's directory was replaced by a copy that was made earlier, as from a backup.
    fn tell_of_older_copy(&self, mesh: &LocalMesh, dir: &Path) {
        let notice = Problem {
            path: status::shown_path(dir),
            reason: "this is not the directory as it was synced last, but a copy that was made earlier; nothing was \
                 deleted: what it lacks comes back, and what differs in it is kept beside what the mesh has"
                .to_owned(),
            action: "look at `wormhole conflicts`".to_owned(),
        };
        mesh.health()
            .notice(&mesh.reference(), notice, self.events());
    }

    /// Remembers that a folder failed while it ran: its memory is read from end to end before it is
    /// used again.
    pub(super) async fn suspect_memory(&self, mesh: &LocalMesh, folder: RootId) {
        let mark = suspicion(&mesh.folder_state_path(folder));
        let marked = blocking(move || fs::write(mark, "the folder failed with this memory\n"));
        if let Err(error) = marked.await {
            tracing::debug!(%error, "a folder's memory could not be marked as suspect");
        }
    }

    async fn set_aside_if_suspect(
        &self,
        mesh: &LocalMesh,
        config: &FolderConfig,
    ) -> Result<(), OpenMeshError> {
        let mark = suspicion(&config.state);
        if !mark.exists() {
            return Ok(());
        }
        if !is_whole(&config.state).await {
            self.set_memory_aside(mesh, config)?;
        }
        fs::remove_file(&mark).map_err(|source| HomeError::io(&mark, source))?;
        Ok(())
    }

    /// A store that lost its index has made it anew by itself.
    pub(super) fn tell_of_rebuilt_index(&self, mesh: &LocalMesh) {
        if !mesh.store().recovery().index_rebuilt {
            return;
        }
        let notice = Problem {
            path: "store".to_owned(),
            reason: "the index of what is stored was damaged or lost; it was made anew from what is stored"
                .to_owned(),
            action: String::new(),
        };
        mesh.health()
            .notice(&mesh.reference(), notice, self.events());
    }
}

/// Whether a folder's memory is what is damaged. What made a database panic can have been the mesh's
/// metadata as well, so the memory is then read from end to end first.
async fn is_memory_lost(error: &OpenMeshError) -> bool {
    let OpenMeshError::DamagedFolder { memory, .. } = error else {
        return error.is_lost_memory();
    };
    !is_whole(memory).await
}

/// Whether a database can be read from end to end.
async fn is_whole(path: &Path) -> bool {
    let path = path.to_owned();
    let checked = tokio::task::spawn_blocking(move || {
        let mut database = redb::Database::open(path)?;
        database.check_integrity()
    });
    match checked.await {
        Ok(Ok(is_whole)) => is_whole,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a database cannot be read");
            false
        }
        // It panicked over it.
        Err(_) => false,
    }
}

/// The file beside a folder's memory that says that the folder failed with it.
fn suspicion(memory: &Path) -> PathBuf {
    memory.with_extension("redb.suspect")
}
