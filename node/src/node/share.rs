//! `share`: a directory becomes a mesh.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;
use wormhole_crdt::{EntryId, NewMesh, Replica};
use wormhole_store::RootId;
use wormhole_vfs::{Folder, Phase};

use super::local::{blocking, create_database};
use super::{LocalMesh, Node, now};
use crate::api::{Reporter, RoleName, ShareReply, ShareRequest, Stage};
use crate::binding::{self, BindingError, Contents, Surroundings};
use crate::error::{OpenMeshError, ShareError};
use crate::event::EventKind;
use crate::home::{BindingRecord, BindingTarget, HomeError, MeshRecord, SecretBytes};
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
        let _one_at_a_time = self.inner.changing.lock().await;
        let dir = self.check_dir(&request.dir, Contents::Welcome).await?;
        let made = make_dir(&dir)?;
        let name = request.name.unwrap_or_else(|| directory_name(&dir));
        let shared = match self.make_mesh(name, &dir).await {
            Ok(mesh) => match self.first_look(&mesh, &dir, reporter).await {
                Ok(folder) => {
                    reporter.report(Stage::Inviting, 0, 0);
                    match self.invite_to(&mesh, role.into(), ttl) {
                        Ok(invite) => Ok((mesh, folder, invite)),
                        Err(error) => Err((Some(mesh), error.into())),
                    }
                }
                Err(error) => Err((Some(mesh), error)),
            },
            Err(error) => Err((None, error.into())),
        };
        match shared {
            Ok((mesh, folder, invite)) => {
                self.events().raise(EventKind::MeshCreated {
                    mesh: mesh.reference(),
                });
                let seen = folder.status();
                Ok(ShareReply {
                    mesh: mesh.reference(),
                    dir,
                    files: seen.counts.files,
                    bytes: seen.counts.bytes,
                    problems: seen.problems.iter().map(status::problem).collect(),
                    invite,
                })
            }
            Err((mesh, error)) => {
                if let Some(mesh) = mesh {
                    self.forget_mesh(mesh).await;
                }
                unmake_dir(&dir, made);
                Err(error)
            }
        }
    }

    /// Makes a mesh whose only binding is `dir`, and opens it.
    async fn make_mesh(
        &self,
        name: String,
        dir: &Path,
    ) -> Result<std::sync::Arc<LocalMesh>, OpenMeshError> {
        let founder = NewMesh {
            name: name.clone(),
            device_name: self.config().device_name.clone(),
            key: self.inner.identity.device_key(),
        };
        let binding = BindingRecord {
            id: RootId::from_bytes(random()?),
            target: BindingTarget::Folder {
                dir: dir.to_owned(),
                base: EntryId::ROOT,
            },
        };
        let (secret, content_key) = (SecretBytes(random()?), SecretBytes(random()?));
        let replica = move |db| Replica::create(db, &founder, now(), &mut rand::rng());
        let record = |mesh| MeshRecord {
            mesh,
            name,
            secret,
            content_key,
            paused: false,
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
        record: impl FnOnce(wormhole_crdt::MeshId) -> MeshRecord,
    ) -> Result<std::sync::Arc<LocalMesh>, OpenMeshError> {
        let staged = self.home().stage_mesh()?;
        let made = {
            let staged = staged.clone();
            blocking(move || {
                let db = create_database(&staged)?;
                let made = replica(db);
                let made = made.map_err(|source| OpenMeshError::Replica {
                    path: staged,
                    source: Box::new(source),
                })?;
                Ok::<_, OpenMeshError>(made.mesh_id())
            })
            .await
        };
        let kept = made.and_then(|id| {
            self.home().adopt_mesh(&staged, &id)?;
            let record = record(id);
            self.home().save_record(&record)?;
            Ok(record)
        });
        let record = match kept {
            Ok(record) => record,
            Err(error) => {
                self.home().discard(&staged);
                return Err(error);
            }
        };
        let id = record.mesh;
        let opened = self.open_mesh(record).await;
        if opened.is_err() {
            self.home().drop_mesh(&id)?;
        }
        opened
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
        let bound = |mesh: std::sync::Arc<LocalMesh>| mesh.bound();
        let bound = self.local_meshes().into_iter().flat_map(bound);
        let bound = bound.map(|bound| bound.dir.clone()).collect();
        let dir = dir.to_owned();
        let home = self.home().dir().to_owned();
        let cache = self.config().cache_dir.clone();
        blocking(move || {
            let around = Surroundings::look(&dir, &home, cache.as_deref(), bound)?;
            binding::check(&around, contents)?;
            Ok(around.dir)
        })
        .await
    }
}

/// A folder that records nothing for so long, and has looked through everything, only waits for files
/// that grow.
const QUIET: Duration = Duration::from_secs(5);

/// Whether a directory was made by the operation that binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It was.
    Now,
    /// It had been there.
    Before,
}

/// Makes the directory to be bound, if it is not there. Its parent is.
pub(super) fn make_dir(dir: &Path) -> Result<Made, OpenMeshError> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(Made::Now),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Made::Before),
        Err(source) => Err(OpenMeshError::Directory {
            dir: dir.to_owned(),
            source,
        }),
    }
}

/// Takes away what a failed operation left in a directory: the folder's marker, and the directory
/// itself if the operation made it and nothing else is in it.
pub(super) fn unmake_dir(dir: &Path, made: Made) {
    binding::marker::remove(dir);
    if made == Made::Now
        && let Err(error) = fs::remove_dir(dir)
    {
        tracing::warn!(dir = %dir.display(), %error, "a directory made for a mesh stays");
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
