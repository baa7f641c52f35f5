//! One mesh as it is open on this device: its replica, its store, its record and its bindings.
//!
//! Opening and closing live here. What people do to bindings is in `folder`, what changes do is in
//! `outbound` and `inbound`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, DeviceKey, EntryId, Member, MeshId, Replica, Role};
use wormhole_mesh::AttachedMesh;
use wormhole_store::{ContentKey, RootId, Store, StoreOptions};
use wormhole_vfs::{Folder, Phase, StopReason};

use super::Node;
use crate::api::MeshRef;
use crate::change::{self, Feed};
use crate::config::Config;
use crate::error::{CloseError, OpenMeshError};
use crate::home;
use crate::home::{BindingRecord, BindingTarget, HomeError, MeshRecord};
use crate::policy::{self, Seed};
use crate::rotation;
use crate::status;
use crate::upkeep::health::Health;

const REPLICA_FILE: &str = "replica.redb";

/// redb's cache for the metadata of one mesh. Its default is a gigabyte.
const REPLICA_CACHE_BYTES: usize = 32 << 20;

/// A mesh that is open.
#[derive(Debug)]
pub(crate) struct LocalMesh {
    id: MeshId,
    name: String,
    dir: PathBuf,
    replica: Replica,
    store: Store,
    record: Mutex<MeshRecord>,
    /// Held while the record is being saved; `record` itself never waits for the disk.
    saving: Mutex<()>,
    bound: Mutex<Vec<Arc<Bound>>>,
    seed: Mutex<Option<Arc<Seed>>>,
    /// Told when content may have become wanted or reachable.
    pub(crate) wake: Notify,
    /// Told when what this device has applied may be more or less than it was.
    pub(crate) stir: Arc<Notify>,
    /// Ends the tasks of this mesh.
    pub(crate) stop: CancellationToken,
    feed: Feed,
    known_members: Mutex<BTreeSet<DeviceId>>,
    known_role: Mutex<Option<Role>>,
    health: Health,
}

/// A directory that is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) id: RootId,
    pub(crate) dir: PathBuf,
    pub(crate) base: EntryId,
    pub(crate) state: FolderState,
    /// Ends the folder's task, also in the middle of a long scan.
    pub(crate) cancel: CancellationToken,
}

impl Bound {
    /// Whether the folder is stopped because a database failed.
    pub(super) fn has_failed(&self) -> bool {
        match &self.state {
            FolderState::Open(folder) => {
                folder.status().phase == Phase::Stopped(StopReason::StateFailed)
            }
            FolderState::Failed(_) => false,
        }
    }

    /// Stops the folder; it ends what it has begun with a file.
    pub(crate) async fn stop(&self) {
        self.cancel.cancel();
        if let FolderState::Open(folder) = &self.state {
            folder.clone().stop().await;
        }
    }
}

/// Whether a bound directory is being synced.
#[derive(Debug)]
pub(crate) enum FolderState {
    /// It is, or says itself why not.
    Open(Folder),
    /// It could not be opened at all.
    Failed(OpenMeshError),
}

impl LocalMesh {
    pub(crate) fn id(&self) -> MeshId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn reference(&self) -> MeshRef {
        MeshRef {
            id: self.id.to_string(),
            name: self.name.clone(),
        }
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What is damaged in the store.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The record as it was last saved. Held for a moment only.
    pub(crate) fn record(&self) -> MutexGuard<'_, MeshRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound directories.
    pub(crate) fn bound(&self) -> Vec<Arc<Bound>> {
        self.bound
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The seed, when this device is one.
    pub(crate) fn seed(&self) -> Option<Arc<Seed>> {
        self.seed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether every folder of the record is there, open or failed: one that is being opened again is not, for a moment.
    pub(crate) fn is_whole(&self) -> bool {
        let bound = self.bound();
        let is_there = |binding: &BindingRecord| match binding.target {
            BindingTarget::Folder { .. } => bound.iter().any(|bound| bound.id == binding.id),
            BindingTarget::Seed => true,
        };
        self.record().bindings.iter().all(is_there)
    }

    /// The folders that are open.
    pub(crate) fn folders(&self) -> Vec<Folder> {
        let open = |bound: &Arc<Bound>| match &bound.state {
            FolderState::Open(folder) => Some(folder.clone()),
            FolderState::Failed(_) => None,
        };
        self.bound().iter().filter_map(open).collect()
    }

    /// This device's role; a device that was removed reads on what it has.
    pub(crate) fn role(&self) -> Role {
        self.replica
            .role_of(&self.replica.device())
            .unwrap_or(Role::Reader)
    }

    /// Takes a bound directory out, for good.
    pub(super) fn take_bound(&self, dir: &Path) -> Option<Arc<Bound>> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let place = bound.iter().position(|bound| bound.dir == dir)?;
        self.stir.notify_one();
        Some(bound.remove(place))
    }

    /// Takes a bound directory out if its folder could not be opened, and says why it could not.
    pub(super) fn take_failed(&self, dir: &Path) -> Option<OpenMeshError> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let failed =
            |bound: &Arc<Bound>| bound.dir == dir && matches!(bound.state, FolderState::Failed(_));
        let place = bound.iter().position(failed)?;
        match Arc::into_inner(bound.remove(place))?.state {
            FolderState::Failed(error) => Some(error),
            FolderState::Open(_) => None,
        }
    }

    /// Whether this device's role is another one than when this was asked last.
    pub(crate) fn has_other_role(&self) -> bool {
        let role = self.replica.role_of(&self.replica.device());
        let mut known = self
            .known_role
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, role) != role
    }

    /// The members that were admitted since this was asked last.
    pub(crate) fn newly_admitted(&self) -> Vec<Member> {
        let members = self.replica.members();
        let mut known = self
            .known_members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(
            &mut *known,
            members.iter().map(|member| member.device).collect(),
        );
        members
            .into_iter()
            .filter(|member| !before.contains(&member.device))
            .collect()
    }

    /// Has everybody who waits for content ask for it again: somebody who has it may be there now.
    pub(crate) async fn poke(&self) {
        if let Some(seed) = self.seed().filter(|seed| !seed.progress().complete) {
            seed.want(None);
        }
        self.wake.notify_one();
        for folder in self.folders() {
            folder.poke().await;
        }
    }

    /// Stops every folder; each ends what it has begun with a file.
    pub(crate) async fn stop_folders(&self) {
        for bound in self.bound() {
            bound.stop().await;
        }
    }

    /// Commits what is still open. The tasks of the mesh must have ended.
    pub(crate) async fn close(self: Arc<Self>) -> Result<(), CloseError> {
        blocking(move || {
            let name = || self.name.clone();
            self.replica.flush().map_err(|source| CloseError::Replica {
                name: name(),
                source,
            })?;
            let store = self.store.clone();
            store.close().map_err(|source| CloseError::Store {
                name: name(),
                source,
            })
        })
        .await
    }

    /// Where the check of the store keeps how far it is.
    pub(crate) fn check_path(&self) -> PathBuf {
        self.dir.join("check.json")
    }

    /// Where a folder remembers what was last synced.
    pub(super) fn folder_state_path(&self, id: RootId) -> PathBuf {
        self.dir.join(format!("folder-{id}.redb"))
    }
}

/// Whether the record of a mesh had to be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordChange {
    /// It is another now, on disk and here.
    Saved,
    /// It was so already.
    None,
}

impl Node {
    /// Changes the record of a mesh: on disk first, then here.
    pub(super) async fn change_record(
        &self,
        mesh: &Arc<LocalMesh>,
        change: impl FnOnce(&mut MeshRecord) + Send + 'static,
    ) -> Result<RecordChange, HomeError> {
        let (node, mesh) = (self.clone(), mesh.clone());
        blocking(move || {
            let _one_at_a_time = mesh.saving.lock().unwrap_or_else(PoisonError::into_inner);
            let mut new = mesh.record().clone();
            change(&mut new);
            if *mesh.record() == new {
                return Ok(RecordChange::None);
            }
            node.home().save_record(&new)?;
            *mesh.record() = new;
            Ok(RecordChange::Saved)
        })
        .await
    }

    /// Opens a mesh that has a record: replica, store, network, bindings.
    pub(crate) async fn open_mesh(
        &self,
        record: MeshRecord,
    ) -> Result<Arc<LocalMesh>, OpenMeshError> {
        let dir = self.home().mesh_dir(&record.mesh);
        let key = self.inner.identity.device_key();
        let config = self.config().clone();
        let (replica, store, record) = {
            let damaged = OpenMeshError::Damaged {
                path: dir.join(REPLICA_FILE),
                dir: dir.clone(),
            };
            let dir = dir.clone();
            opening(damaged, move || {
                let replica = open_replica(&dir, key)?;
                let store = open_store(&dir, &record, &config)?;
                Ok::<_, OpenMeshError>((replica, store, record))
            })
            .await?
        };
        let stir = Arc::new(Notify::new());
        let mesh = Arc::new(LocalMesh {
            id: record.mesh,
            name: record.name.clone(),
            dir,
            feed: Feed::new(&replica, stir.clone()),
            known_members: Mutex::new(replica.members().iter().map(|m| m.device).collect()),
            known_role: Mutex::new(replica.role_of(&replica.device())),
            replica,
            store,
            bound: Mutex::default(),
            seed: Mutex::default(),
            wake: Notify::new(),
            stir,
            stop: self.tasks().cancel().child_token(),
            record: Mutex::new(record.clone()),
            saving: Mutex::default(),
            health: Health::default(),
        });
        self.tell_of_rebuilt_index(&mesh);
        self.tasks()
            .spawn("changes", change::follow(self.clone(), mesh.clone()))?;
        self.tasks().spawn("flush", change::flush(mesh.clone()))?;
        self.tasks()
            .spawn("secrets", rotation::follow(mesh.clone()))?;
        self.network().attach(AttachedMesh {
            replica: mesh.replica.clone(),
            store: mesh.store.clone(),
            limits: record.limits,
            paused: record.paused,
        });
        for binding in &record.bindings {
            self.open_binding(&mesh, binding).await?;
        }
        self.inner
            .meshes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(mesh.id, mesh.clone());
        self.tasks()
            .spawn("report", status::follow_report(self.clone(), mesh.clone()))?;
        Ok(mesh)
    }

    /// Opens one binding of an open mesh. A folder that cannot be opened stays bound, and its status
    /// says why.
    pub(super) async fn open_binding(
        &self,
        mesh: &Arc<LocalMesh>,
        binding: &BindingRecord,
    ) -> Result<(), OpenMeshError> {
        match &binding.target {
            BindingTarget::Seed => {
                let seed = Arc::new(Seed::default());
                *mesh.seed.lock().unwrap_or_else(PoisonError::into_inner) = Some(seed.clone());
                self.tasks()
                    .spawn("seed", policy::fill(self.clone(), mesh.clone(), seed))?;
            }
            BindingTarget::Folder { dir, base } => {
                let cancel = mesh.stop.child_token();
                let opened = self
                    .open_folder(mesh, binding.id, dir, *base, cancel.clone())
                    .await;
                let state = match opened {
                    Ok(folder) => FolderState::Open(folder),
                    Err(error @ (OpenMeshError::Stopping(_) | OpenMeshError::Home(_))) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let report = &error as &dyn std::error::Error;
                        tracing::error!(dir = %dir.display(), error = report, "a folder cannot be synced");
                        FolderState::Failed(error)
                    }
                };
                let (id, dir, base) = (binding.id, dir.clone(), *base);
                let bound = Arc::new(Bound {
                    id,
                    dir,
                    base,
                    state,
                    cancel,
                });
                mesh.bound
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(bound);
                mesh.stir.notify_one();
            }
        }
        Ok(())
    }

    /// Stops a mesh and removes all that this device keeps of it but the files of its folders.
    pub(super) async fn forget_mesh(&self, mesh: Arc<LocalMesh>) {
        let id = mesh.id;
        self.inner
            .meshes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        self.forget_broken(&id);
        self.network().detach(id);
        mesh.stop_folders().await;
        mesh.stop.cancel();
        if let Err(error) = mesh.close().await {
            tracing::warn!(%error, "a mesh that is given up was not closed cleanly");
        }
        let node = self.clone();
        blocking(move || {
            if let Err(error) = node.home().drop_mesh(&id) {
                tracing::warn!(%error, "what is left of a mesh that was given up is cleared away later");
            }
            if let Some(chunks) = chunks_elsewhere(node.config(), &id)
                && let Err(error) = fs::remove_dir_all(&chunks)
            {
                tracing::warn!(dir = %chunks.display(), %error, "the chunks of a mesh that was given up stay");
            }
        })
        .await;
    }
}

fn open_replica(dir: &Path, key: DeviceKey) -> Result<Replica, OpenMeshError> {
    let path = dir.join(REPLICA_FILE);
    read_replica(&path, key).map_err(|error| {
        if !error.is_damage() {
            return error;
        }
        let report = &error as &dyn std::error::Error;
        tracing::error!(path = %path.display(), error = report, "a database is damaged");
        let dir = dir.to_owned();
        OpenMeshError::Damaged { path, dir }
    })
}

fn read_replica(path: &Path, key: DeviceKey) -> Result<Replica, OpenMeshError> {
    let db = open_database(path)?;
    let meta = fs::metadata(path).map_err(|source| HomeError::io(path, source))?;
    // A copied or restored database is in another place: the replica must know.
    let mut place = meta.dev().to_be_bytes().to_vec();
    place.extend(meta.ino().to_be_bytes());
    Replica::open_at(db, key, &place, &mut rand::rng()).map_err(|source| OpenMeshError::Replica {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

pub(super) fn open_database(path: &Path) -> Result<redb::Database, OpenMeshError> {
    redb::Builder::new()
        .set_cache_size(REPLICA_CACHE_BYTES)
        .create(path)
        .map_err(|source| OpenMeshError::Database {
            path: path.to_owned(),
            source: Box::new(source),
        })
}

/// The database of a mesh that is being made in `dir`.
pub(super) fn create_database(dir: &Path) -> Result<redb::Database, OpenMeshError> {
    open_database(&dir.join(REPLICA_FILE))
}

/// Where the chunks of a mesh are when they are not in the home.
fn chunks_elsewhere(config: &Config, mesh: &MeshId) -> Option<PathBuf> {
    let cache = config.cache_dir.as_ref()?;
    Some(cache.join(mesh.to_string()))
}

fn open_store(dir: &Path, record: &MeshRecord, config: &Config) -> Result<Store, OpenMeshError> {
    let path = chunks_elsewhere(config, &record.mesh).unwrap_or_else(|| dir.join("store"));
    home::make_private_dir(&path)?;
    let key = ContentKey::from_bytes(record.content_key.0);
    let options = StoreOptions {
        cache_bytes: config.cache_memory.bytes(),
        ..StoreOptions::default()
    };
    Store::open(&path, key, options).map_err(|source| OpenMeshError::Store {
        path,
        source: Box::new(source),
    })
}

/// Opens databases. A damaged file can make redb panic where it should fail: that is an answer, too,
/// and must not take the other meshes along.
pub(super) async fn opening<T: Send + 'static>(
    damaged: OpenMeshError,
    open: impl FnOnce() -> Result<T, OpenMeshError> + Send + 'static,
) -> Result<T, OpenMeshError> {
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened,
        Err(error) if error.is_panic() => Err(damaged),
        // The runtime is gone; whoever waits here is about to be dropped.
        Err(_) => std::future::pending().await,
    }
}

/// Runs work on disks away from the threads that serve everybody. A panic in it passes through.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is gone; whoever waits here is about to be dropped.
            Err(_) => std::future::pending().await,
        },
    }
}
