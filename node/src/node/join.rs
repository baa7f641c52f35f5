//! `join`: this device becomes a member, by a code or a link.

use std::path::PathBuf;

use etcetera::BaseStrategy;
use etcetera::base_strategy::choose_native_strategy;
use wormhole_crdt::{EntryId, EntryName, Replica};
use wormhole_mesh::{Joined, PeerAddr, Ticket};
use wormhole_store::RootId;

use super::share::{Made, make_dir, random, unmake_dir};
use super::{LocalMesh, Node};
use crate::api::{JoinReply, JoinRequest, Keep, Reporter, Stage};
use crate::binding::Contents;
use crate::error::{JoinMeshError, OpenMeshError};
use crate::event::EventKind;
use crate::home::{BindingRecord, BindingTarget, MeshRecord, SecretBytes};
use crate::status;

impl Node {
    /// Becomes a member of a mesh, and syncs it into a directory or keeps all its content.
    ///
    /// # Errors
    /// A [`JoinMeshError`]. Nothing is left behind, with two exceptions: after
    /// [`JoinMeshError::NoPlace`] and [`JoinMeshError::NotSynced`] this device is a member, and only
    /// a folder is missing.
    pub(crate) async fn join_mesh(
        &self,
        request: JoinRequest,
        reporter: &Reporter,
    ) -> Result<JoinReply, JoinMeshError> {
        let ticket: Ticket = request.ticket.parse()?;
        let mut peers = Vec::new();
        for peer in &request.peers {
            peers.extend(PeerAddr::resolve(peer).await?);
        }
        let _one_at_a_time = self.inner.changing.lock().await;
        let chosen = match (&request.dir, request.keep) {
            (Some(dir), Keep::Folder) => Some(self.check_dir(dir, Contents::Welcome).await?),
            (None, Keep::Folder) | (_, Keep::Seed) => None,
        };
        reporter.report(Stage::Meeting, 0, 0);
        let cancel = self.tasks().cancel().child_token();
        let joined = self.network().join(&ticket, &peers, &cancel).await?;
        if let Some(mesh) = self.local_mesh(&joined.welcome.mesh) {
            return Err(JoinMeshError::AlreadyMember {
                name: mesh.name().to_owned(),
            });
        }
        reporter.report(Stage::Opening, 0, 0);
        let place = match (chosen, request.keep) {
            (_, Keep::Seed) => Ok(None),
            (Some(dir), Keep::Folder) => Ok(Some(dir)),
            (None, Keep::Folder) => self.default_dir(&joined.welcome.name).await.map(Some),
        };
        self.settle_in(joined, request.keep, place).await
    }

    /// Keeps the mesh that was joined, bound to its place. Without a place it is kept unbound: the
    /// invite is used, and must not have been in vain.
    async fn settle_in(
        &self,
        joined: Joined,
        keep: Keep,
        place: Result<Option<PathBuf>, NoPlace>,
    ) -> Result<JoinReply, JoinMeshError> {
        let (dir, obstacle) = match place {
            Ok(dir) => (dir, None),
            Err(obstacle) => (None, Some(obstacle)),
        };
        let made = dir.as_deref().map(make_dir).transpose()?;
        let target = match (&dir, keep) {
            (_, Keep::Seed) => Some(BindingTarget::Seed),
            (Some(dir), Keep::Folder) => Some(BindingTarget::Folder {
                dir: dir.clone(),
                base: EntryId::ROOT,
            }),
            (None, Keep::Folder) => None,
        };
        let kept = match self.keep_joined(&joined, target).await {
            Ok(kept) => kept,
            Err(error) => {
                if let Some(dir) = &dir {
                    unmake_dir(dir, made.unwrap_or(Made::Before));
                }
                return Err(error.into());
            }
        };
        let failed = dir.as_deref().and_then(|dir| kept.take_failed(dir));
        if let (Some(dir), Some(source)) = (dir.as_deref(), failed) {
            kept.record().bindings.clear();
            self.home()
                .save_record(&kept.record())
                .map_err(OpenMeshError::from)?;
            unmake_dir(dir, made.unwrap_or(Made::Before));
            return Err(JoinMeshError::NotSynced {
                name: status::shown(kept.name()),
                source,
            });
        }
        let from = status::shown(&joined.from_name);
        self.events().raise(EventKind::MeshJoined {
            mesh: kept.reference(),
            from: from.clone(),
        });
        if let Some(NoPlace { dir, source }) = obstacle {
            return Err(JoinMeshError::NoPlace {
                name: status::shown(kept.name()),
                dir,
                source,
            });
        }
        Ok(JoinReply {
            mesh: kept.reference(),
            role: kept.role().into(),
            keep,
            dir,
            from,
            from_device: joined.from.to_string(),
            path: joined.path.into(),
        })
    }

    async fn keep_joined(
        &self,
        joined: &Joined,
        target: Option<BindingTarget>,
    ) -> Result<std::sync::Arc<LocalMesh>, OpenMeshError> {
        let binding = match target {
            Some(target) => Some(BindingRecord {
                id: RootId::from_bytes(random()?),
                target,
            }),
            None => None,
        };
        let key = self.inner.identity.device_key();
        let welcome = joined.welcome.clone();
        let replica = move |db| Replica::join(db, &welcome, key, &mut rand::rng());
        let record = |mesh| MeshRecord {
            mesh,
            name: joined.welcome.name.clone(),
            secret: SecretBytes(*joined.secret.expose()),
            content_key: SecretBytes(*joined.content_key.expose()),
            paused: false,
            bindings: binding.into_iter().collect(),
        };
        self.keep_mesh(replica, record).await
    }

    /// `~/<mesh name>`, if it may be used without asking.
    async fn default_dir(&self, name: &str) -> Result<PathBuf, NoPlace> {
        let dir = match (choose_native_strategy(), EntryName::parse(name)) {
            (Ok(user), Ok(name)) => user.home_dir().join(name.as_str()),
            (Err(_), _) | (_, Err(_)) => {
                return Err(NoPlace {
                    dir: None,
                    source: None,
                });
            }
        };
        match self.check_dir(&dir, Contents::Unwelcome).await {
            Ok(dir) => Ok(dir),
            Err(source) => Err(NoPlace {
                dir: Some(dir),
                source: Some(source),
            }),
        }
    }
}

/// Why the directory that would be used by itself cannot be.
struct NoPlace {
    dir: Option<PathBuf>,
    source: Option<crate::binding::BindingError>,
}
