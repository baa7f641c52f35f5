//! `share`: a directory becomes a mesh.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use wormhole_crdt::{EntryId, NewMesh, Replica};
use wormhole_mesh::RateLimits;
use wormhole_store::RootId;
use wormhole_vfs::{Folder, Phase};

use super::local::{blocking, create_database};
use super::{LocalMesh, Node, now};
use crate::api::{Reporter, RoleName, ShareReply, ShareRequest, Stage};
use crate::binding::{self, Asker, BindingError, BoundDir, Contents, Surroundings};
use crate::error::{OpenMeshError, ShareError};
use crate::event::EventKind;
use crate::home::{BindingRecord, BindingTarget, HomeError, MeshRecord, Rest, SecretBytes};
use crate::status;

impl Node {
    /// Makes a new mesh from a directory: looks through it, and makes the first invite.
    ///
    /// Nothing is copied. A crash in between leaves either nothing or a mesh whose directory is
    /// looked through at the next start.
    ///
    /// # Errors
    /// A [`ShareError`]; nothing is left behind then but the files that were there before.
    pub(crate) async fn share(
        &self,
        request: ShareRequest,
        reporter: &Reporter,
    ) -> Result<ShareReply, ShareError> {
        let role = request.role.unwrap_or(RoleName::Writer);
        let ttl = super::invite::ttl(request.ttl_seconds)?;
        let (mesh, place) = self.found(&request).await?;
        let shared = match self.first_look(&mesh, &place.dir, reporter).await {
            Ok(folder) => {
                reporter.report(Stage::Inviting, 0, 0);
                let invite = self.invite_to(&mesh, role.into(), ttl, request.ask);
                invite.map(|invite| (folder, invite)).map_err(Into::into)
            }
            Err(error) => Err(error),
        };
        match shared {
            Ok((folder, invite)) => {
                self.events().raise(EventKind::MeshCreated {
                    mesh: mesh.reference(),
                });
                let seen = folder.status();
                Ok(ShareReply {
                    mesh: mesh.reference(),
                    dir: place.dir,
                    files: seen.counts.files,
                    bytes: seen.counts.bytes,
                    problems: seen.problems.iter().map(status::problem).collect(),
                    invite,
                })
            }
            // What stops now goes on at the next start, and who has come in meanwhile needs it.
            Err(error)
                if self.inner.closing.is_cancelled() || mesh.replica().members().len() > 1 =>
            {
                Err(error)
            }
            Err(error) => {
                let _one_at_a_time = self.inner.changing.lock().await;
                self.forget_mesh(mesh).await;
                place.unmake();
                Err(error)
            }
        }
    }

    /// Makes the mesh and binds the directory. From here on nobody else can bind it, so what takes
    /// long comes after.
    async fn found(
        &self,
        request: &ShareRequest,
    ) -> Result<(std::sync::Arc<LocalMesh>, Place), ShareError> {
        let _one_at_a_time = self.inner.changing.lock().await;
        let dir = self.check_dir(&request.dir, Contents::Welcome).await?;
        let name = request.name.clone();
        let name = name.unwrap_or_else(|| directory_name(&dir));
        if name.trim().is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return Err(ShareError::Name { name });
        }
        let place = Place::make(&dir)?;
        match self.make_mesh(name, &place).await {
            Ok(mesh) => Ok((mesh, place)),
            Err(error) => {
                place.unmake();
                Err(error.into())
            }
        }
    }

    /// Makes a mesh whose only binding is this place, and opens it.
    async fn make_mesh(
        &self,
        name: String,
        place: &Place,
    ) -> Result<std::sync::Arc<LocalMesh>, OpenMeshError> {
        let founder = NewMesh {
            name: name.clone(),
            device_name: self.config().device_name.clone(),
            key: self.inner.identity.device_key(),
        };
        let binding = place.record(EntryId::ROOT);
        let content_key = SecretBytes(random()?);
        let replica = move |db| Replica::create(db, &founder, now(), &mut rand::rng());
        let record = |mesh| MeshRecord {
            mesh,
            name,
            content_key,
            paused: false,
            limits: RateLimits::default(),
            rest: Rest::default(),
            bindings: vec![binding],
        };
        self.keep_mesh(replica, record).await
    }

    /// Puts a new replica into its place in the home, saves its record and opens the mesh. The
    /// record is the moment from which the mesh counts.
    pub(super) async fn keep_mesh(
        &self,
        replica: impl FnOnce(redb::Database) -> Result<Replica, wormhole_crdt::OpenError>
        + Send
        + 'static,
        record: impl FnOnce(wormhole_crdt::MeshId) -> MeshRecord + Send + 'static,
    ) -> Result<std::sync::Arc<LocalMesh>, OpenMeshError> {
        let node = self.clone();
        let record = blocking(move || {
            let staged = node.home().stage_mesh()?;
            let kept = node.put_in_place(&staged, replica, record);
            if kept.is_err() {
                node.home().discard(&staged);
            }
            kept
        })
        .await?;
        let id = record.mesh;
        let opened = self.open_mesh(record).await;
        if opened.is_err() {
            self.home().drop_mesh(&id)?;
        }
        opened
    }

    /// The steps of [`Node::keep_mesh`] that wait for the disk.
    fn put_in_place(
        &self,
        staged: &Path,
        replica: impl FnOnce(redb::Database) -> Result<Replica, wormhole_crdt::OpenError>,
        record: impl FnOnce(wormhole_crdt::MeshId) -> MeshRecord,
    ) -> Result<MeshRecord, OpenMeshError> {
        let made = replica(create_database(staged)?);
        let made = made.map_err(|source| OpenMeshError::Replica {
            path: staged.to_owned(),
            source: Box::new(source),
        })?;
        let id = made.mesh_id();
        drop(made);
        let record = record(id);
        self.home().adopt_mesh(staged, &record)?;
        Ok(record)
    }

    /// Waits until the new folder has been looked through once.
    async fn first_look(
        &self,
        mesh: &LocalMesh,
        dir: &Path,
        reporter: &Reporter,
    ) -> Result<Folder, ShareError> {
        let bound = mesh.take_failed(dir);
        if let Some(error) = bound {
            return Err(error.into());
        }
        let folder = mesh
            .folders()
            .into_iter()
            .next()
            .expect("the mesh was made with one folder");
        let mut statuses = folder.watch();
        loop {
            let seen = statuses.borrow_and_update().clone();
            reporter.report(Stage::Scanning, seen.counts.files, seen.counts.bytes);
            let recording = match seen.phase {
                Phase::Scanning => false,
                Phase::Syncing => true,
                Phase::UpToDate | Phase::Paused => return Ok(folder),
                Phase::Stopped(reason) => {
                    return Err(ShareError::Folder {
                        dir: dir.to_owned(),
                        reason,
                    });
                }
            };
            tokio::select! {
                changed = statuses.changed() => if changed.is_err() {
                    let reason = wormhole_vfs::StopReason::Asked;
                    return Err(ShareError::Folder { dir: dir.to_owned(), reason });
                },
                // What is left is being written by somebody: it follows when it is quiet.
                () = tokio::time::sleep(QUIET), if recording => return Ok(folder),
            }
        }
    }

    /// Checks that a directory may be bound, and gives its real path.
    pub(super) async fn check_dir(
        &self,
        dir: &Path,
        contents: Contents,
    ) -> Result<PathBuf, BindingError> {
        let asker = self.asker();
        let dir = dir.to_owned();
        blocking(move || {
            let around = Surroundings::look(&dir, asker)?;
            binding::check(&around, contents)?;
            Ok(around.dir)
        })
        .await
    }

    /// What decides which directories may be bound, beside what is in them. Folders of meshes that are
    /// not open are bound as well.
    pub(super) fn asker(&self) -> Asker {
        let records = self
            .local_meshes()
            .into_iter()
            .map(|mesh| mesh.record().clone())
            .chain(
                self.broken_meshes()
                    .into_iter()
                    .filter_map(|mesh| mesh.record),
            );
        let bindings = records.flat_map(|record| record.bindings);
        let bound = bindings.filter_map(|binding| match binding.target {
            BindingTarget::Folder { dir, base: _ } => Some(BoundDir {
                id: binding.id,
                dir,
            }),
            BindingTarget::Seed => None,
        });
        Asker {
            device: self.device(),
            home: self.home().dir().to_owned(),
            cache: self.config().cache_dir.clone(),
            bound: bound.collect(),
        }
    }
}

/// Bytes of the longest name that a mesh can have.
const LONGEST_NAME: usize = 128;

/// A folder that records nothing for so long, and has looked through everything, only waits for files
/// that grow.
const QUIET: Duration = Duration::from_secs(5);

/// A directory that is about to be bound, and what must be undone if that fails.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// Names the binding, also in the directory's marker.
    pub(super) id: RootId,
    made: Made,
}

/// Whether a directory was made by the operation that binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// It was.
    Now,
    /// It had been there.
    Before,
}

impl Place {
    /// Makes the directory, if it is not there. Its parent is. The marker of a binding that is no more
    /// goes: without the memory of that, the files in the directory are files like any others.
    pub(super) fn make(dir: &Path) -> Result<Self, OpenMeshError> {
        let id = RootId::from_bytes(random()?);
        let made = match fs::create_dir(dir) {
            Ok(()) => Made::Now,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if let Ok(binding::Marker::Of(left)) = binding::marker::read(dir) {
                    binding::marker::remove(dir, &left.id);
                }
                Made::Before
            }
            Err(source) => {
                return Err(OpenMeshError::Directory {
                    dir: dir.to_owned(),
                    source,
                });
            }
        };
        let dir = dir.to_owned();
        Ok(Self { dir, id, made })
    }

    /// The binding of this place to a directory of a mesh.
    pub(super) fn record(&self, base: EntryId) -> BindingRecord {
        BindingRecord {
            id: self.id,
            target: BindingTarget::Folder {
                dir: self.dir.clone(),
                base,
            },
        }
    }

    /// Takes away what a failed operation left: the folder's marker, and the directory itself if
    /// the operation made it and nothing else is in it.
    pub(super) fn unmake(&self) {
        binding::marker::remove(&self.dir, &self.id);
        if self.made == Made::Now
            && let Err(error) = fs::remove_dir(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a directory made for a mesh stays");
        }
    }
}

fn directory_name(dir: &Path) -> String {
    let name = dir
        .file_name()
        .expect("a directory that may be bound has a name");
    name.to_string_lossy().into_owned()
}

/// Random bytes of the system, for secrets and ids.
pub(super) fn random<const N: usize>() -> Result<[u8; N], HomeError> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|_| HomeError::NoRandomness)?;
    Ok(bytes)
}
