//! Meshes that are not open: why, and how they come back by themselves.
//!
//! A database that could not write refuses everything from then on: what it has in memory may no
//! longer be what is on disk. Its mesh is closed, which shows in the status with the reason, and is
//! opened again as at a start, which loses nothing that was acknowledged. A full disk is waited for;
//! other trouble is tried again in growing pauses. A mesh whose database is damaged stays closed: that
//! does not get better by itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wormhole_crdt::MeshId;

use super::lookup::SHORTEST_PREFIX;
use super::{Bound, FolderState, LocalMesh, Node, blocking};
use crate::api::MeshRef;
use crate::config::ByteCount;
use crate::error::{LookupError, OpenMeshError, sentence};
use crate::event::EventKind;
use crate::home::{BindingTarget, MeshRecord, room};

/// How often failures are looked for: nobody waits longer for the reason.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Pauses between tries. A mesh that fails again soon after it was opened has the longer ones, too.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// A mesh that stayed open for so long has recovered.
const RECOVERED: Duration = Duration::from_secs(5 * 60);

/// A mesh that is not open, and why.
#[derive(Debug, Clone)]
pub(crate) struct BrokenMesh {
    pub(crate) mesh: MeshRef,
    pub(crate) problem: String,
    /// Its record, when that can be read.
    pub(crate) record: Option<MeshRecord>,
    retry: Retry,
}

/// Whether a mesh is opened again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// It would fail in the same way.
    Never,
    /// When there is room on its disks, and not before then.
    At(Instant),
}

impl BrokenMesh {
    /// Whether a person means this mesh: by its whole name, or the beginning of its id.
    pub(crate) fn is_named(&self, wanted: &str) -> bool {
        let by_id = wanted.len() >= SHORTEST_PREFIX && self.mesh.id.starts_with(wanted);
        by_id || self.mesh.name == wanted
    }

    /// The directories that would be synced.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &Path> {
        let bindings = self.record.iter().flat_map(|record| &record.bindings);
        bindings.filter_map(|binding| match &binding.target {
            BindingTarget::Folder { dir, base: _ } => Some(dir.as_path()),
            BindingTarget::Seed => None,
        })
    }
}

/// Closes what failed and opens it again, until the node stops.
pub(crate) async fn watch(node: Node) {
    let mut pauses = Pauses::default();
    loop {
        tokio::select! {
            biased;
            () = node.tasks().cancel().cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for mesh in node.local_meshes() {
            if has_failed(&mesh).await {
                let pause = pauses.next(mesh.id());
                node.close_failed(mesh, pause).await;
            } else {
                node.open_returned(&mesh).await;
            }
        }
        node.reopen_due(&mut pauses).await;
    }
}

/// How long each mesh waits before it is tried again.
#[derive(Debug, Default)]
struct Pauses(BTreeMap<MeshId, (Duration, Instant)>);

impl Pauses {
    /// The pause after one more failure, which doubles while failures follow each other.
    fn next(&mut self, mesh: MeshId) -> Duration {
        let now = Instant::now();
        let pause = match self.0.get(&mesh) {
            Some((last, at)) if now.duration_since(*at) < RECOVERED => (*last * 2).min(RETRY_LAST),
            Some(_) | None => RETRY_FIRST,
        };
        self.0.insert(mesh, (pause, now));
        pause
    }
}

/// Whether a database of the mesh refuses to go on.
async fn has_failed(mesh: &Arc<LocalMesh>) -> bool {
    let folder_failed = |bound: &Arc<Bound>| match &bound.state {
        FolderState::Open(_) => bound.has_failed(),
        FolderState::Failed(error) => is_full(error),
    };
    let replica = mesh.replica().clone();
    mesh.store().has_failed()
        || mesh.bound().iter().any(folder_failed)
        // Costs nothing when nothing is to be flushed, and fails for ever once it failed.
        || blocking(move || replica.flush().is_err()).await
}

/// Whether an error comes down to a full disk.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    };
    let mut next = Some(error);
    while let Some(error) = next {
        let database = error.downcast_ref::<redb::Error>().or_else(|| {
            error
                .downcast_ref::<Box<redb::Error>>()
                .map(|error| &**error)
        });
        let storage = error.downcast_ref::<redb::DatabaseError>();
        let is_full = match (error.downcast_ref::<io::Error>(), database, storage) {
            (Some(error), _, _)
            | (_, Some(redb::Error::Io(error)), _)
            | (_, _, Some(redb::DatabaseError::Storage(redb::StorageError::Io(error)))) => {
                full(error)
            }
            _ => false,
        };
        if is_full {
            return true;
        }
        next = error.source();
    }
    false
}

impl Node {
    /// The meshes that are not open.
    pub(crate) fn broken_meshes(&self) -> Vec<BrokenMesh> {
        self.broken().clone()
    }

    /// Why the mesh that a person named is not open, if there is one and it is not.
    pub(super) fn why_closed(&self, wanted: &str) -> Option<LookupError> {
        let broken = self.broken();
        let found = broken.iter().find(|broken| broken.is_named(wanted))?;
        Some(LookupError::Closed {
            name: found.mesh.name.clone(),
            problem: found.problem.clone(),
        })
    }

    fn broken(&self) -> MutexGuard<'_, Vec<BrokenMesh>> {
        self.inner
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A mesh that cannot be opened when the node starts is in the log and, with the reason, in the
    /// status.
    pub(super) fn note_broken(
        &self,
        mesh: MeshRef,
        record: Option<MeshRecord>,
        error: &(dyn Error + 'static),
    ) {
        tracing::error!(mesh = mesh.name, error, "a mesh cannot be opened");
        let retry = match is_full(error) && record.is_some() {
            true => Retry::At(Instant::now()),
            false => Retry::Never,
        };
        let problem = match self.shortage() {
            Some(shortage) if is_full(error) => shortage,
            Some(_) | None => sentence(error),
        };
        self.broken().push(BrokenMesh {
            mesh,
            problem,
            record,
            retry,
        });
    }

    /// Closes a mesh one of whose databases failed; it is tried again after `pause`.
    async fn close_failed(&self, mesh: Arc<LocalMesh>, pause: Duration) {
        let _one_at_a_time = self.inner.changing.lock().await;
        let (record, reference) = (mesh.record().clone(), mesh.reference());
        let problem = self.shortage().unwrap_or_else(|| {
            "a database of it could not be written (the log says why); it is being opened again"
                .to_owned()
        });
        tracing::error!(mesh = mesh.name(), problem, "a mesh is closed");
        self.inner
            .meshes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&mesh.id());
        self.broken().push(BrokenMesh {
            mesh: reference.clone(),
            problem: problem.clone(),
            record: Some(record),
            retry: Retry::At(Instant::now() + pause),
        });
        self.events().raise(EventKind::MeshClosed {
            mesh: reference,
            reason: problem,
        });
        for bound in mesh.bound().iter().filter(|bound| bound.has_failed()) {
            self.suspect_memory(&mesh, bound.id).await;
        }
        self.network().detach(mesh.id());
        mesh.stop_folders().await;
        mesh.stop.cancel();
        // What it had not made durable yet is had again from where it came: files and members.
        if let Err(error) = mesh.close().await {
            let error = &error as &dyn Error;
            tracing::debug!(error, "a mesh that failed was closed");
        }
    }

    /// Opens the meshes whose time has come, if their disks have room.
    async fn reopen_due(&self, pauses: &mut Pauses) {
        for broken in self.broken_meshes() {
            let (Some(record), Retry::At(at)) = (broken.record, broken.retry) else {
                continue;
            };
            if let Some(shortage) = self.shortage() {
                self.change_broken(&record.mesh, |broken| broken.problem = shortage);
                continue;
            }
            if Instant::now() < at || self.tasks().cancel().is_cancelled() {
                continue;
            }
            let _one_at_a_time = self.inner.changing.lock().await;
            let id = record.mesh;
            if !self.is_broken(&id) {
                continue; // it was given up meanwhile
            }
            match self.open_mesh(record).await {
                Ok(mesh) => {
                    self.forget_broken(&id);
                    tracing::info!(mesh = mesh.name(), "a mesh is open again");
                    let mesh = mesh.reference();
                    self.events().raise(EventKind::MeshReopened { mesh });
                }
                Err(error) => {
                    tracing::warn!(
                        mesh = broken.mesh.name,
                        error = &error as &dyn Error,
                        "a mesh stays closed"
                    );
                    let retry = match error {
                        OpenMeshError::Damaged { .. } => Retry::Never,
                        _ => Retry::At(Instant::now() + pauses.next(id)),
                    };
                    self.change_broken(&id, |broken| {
                        broken.problem = sentence(&error);
                        broken.retry = retry;
                    });
                }
            }
        }
    }

    /// A mesh is open again, or given up.
    pub(super) fn forget_broken(&self, mesh: &MeshId) {
        let is_other = |broken: &BrokenMesh| broken.record.as_ref().is_none_or(|r| r.mesh != *mesh);
        self.broken().retain(is_other);
    }

    fn is_broken(&self, mesh: &MeshId) -> bool {
        let is_it = |broken: &BrokenMesh| broken.record.as_ref().is_some_and(|r| r.mesh == *mesh);
        self.broken().iter().any(is_it)
    }

    fn change_broken(&self, mesh: &MeshId, change: impl FnOnce(&mut BrokenMesh)) {
        let mut broken = self.broken();
        let is_it = |broken: &&mut BrokenMesh| {
            let record = broken.record.as_ref();
            record.is_some_and(|record| record.mesh == *mesh)
        };
        if let Some(broken) = broken.iter_mut().find(is_it) {
            change(broken);
        }
    }

    /// What to tell when a disk that holds databases has too little room for them.
    fn shortage(&self) -> Option<String> {
        let home = (self.home().dir().to_owned(), "home");
        let chunks = self.config().cache_dir.clone().map(|dir| (dir, "chunks"));
        let short = |(dir, what): (PathBuf, &str)| {
            let shortage = room::shortage(&dir).inspect_err(
                |error| tracing::debug!(%error, "a disk cannot be asked for its room"),
            );
            let shortage = shortage.ok().filter(|shortage| *shortage > 0)?;
            let (dir, amount) = (dir.display(), ByteCount::from_bytes(shortage));
            Some(format!(
                "no space left on the disk of the {what} ({dir}): free {amount}; it then goes on by itself, nothing is lost"
            ))
        };
        [Some(home), chunks].into_iter().flatten().find_map(short)
    }
}
