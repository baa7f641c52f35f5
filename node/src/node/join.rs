//! `join`: this device becomes a member, by a code or a link.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use etcetera::base_strategy::choose_native_strategy;
use wormhole_crdt::{EntryId, EntryName, Replica};
use wormhole_mesh::{Consent, JoinError, Joined, PeerAddr, RateLimits, Ticket, Wish, words};
use wormhole_store::RootId;

use super::share::{Place, random};
use super::{LocalMesh, Node};
use crate::api::{
    Agreement, JoinReply, JoinRequest, Keep, MeshRef, ProposeReply, ProposeRequest, Reporter, Stage,
};
use crate::binding::name::is_harmless;
use crate::binding::{BindingError, Contents};
use crate::error::{JoinMeshError, OpenMeshError};
use crate::event::EventKind;
use crate::home::{BindingRecord, BindingTarget, MeshRecord, Rest, SecretBytes};
use crate::status;

impl Node {
    /// Asks what a code or link leads to. Nothing is joined, and the invite stays good.
    ///
    /// # Errors
    /// A [`JoinMeshError`].
    pub(crate) async fn propose(
        &self,
        request: ProposeRequest,
        reporter: &Reporter,
    ) -> Result<ProposeReply, JoinMeshError> {
        let wanted = (request.ticket.as_str(), request.peers.as_slice());
        let proposal = match self.meet(wanted, Consent::Nothing, reporter).await {
            Err(JoinMeshError::Network(JoinError::Undecided { proposal })) => proposal,
            Err(error) => return Err(error),
            // Nobody is let in who has not agreed.
            Ok(_) => return Err(JoinMeshError::Agreement),
        };
        Ok(ProposeReply {
            mesh: MeshRef {
                id: proposal.mesh.to_string(),
                name: status::shown(&proposal.mesh_name),
            },
            role: proposal.role.into(),
            from: status::shown(&proposal.inviter_name),
            from_device: proposal.inviter.to_string(),
            from_words: words(&proposal.inviter),
            ask: proposal.ask,
            words: words(&self.network().device_id()),
            expires_ms: proposal.expires.0 / 1_000_000,
        })
    }

    /// Looks for the device that invited and talks to it, as long as somebody hears what comes of it.
    async fn meet(
        &self,
        (ticket, peers): (&str, &[String]),
        consent: Consent,
        reporter: &Reporter,
    ) -> Result<Joined, JoinMeshError> {
        let ticket: Ticket = ticket.parse()?;
        let mut addrs = Vec::new();
        for peer in peers {
            addrs.extend(PeerAddr::resolve(peer).await?);
        }
        reporter.report(Stage::Meeting, 0, 0);
        let cancel = self.tasks().cancel().child_token();
        let wish = Wish {
            ticket: &ticket,
            peers: &addrs,
            consent,
            waiting: &|_proposal| reporter.report(Stage::Waiting, 0, 0),
        };
        let meeting = self.network().join(&wish, &cancel);
        tokio::pin!(meeting);
        let joined = tokio::select! {
            joined = &mut meeting => joined,
            // Nothing is changed here yet. If this device was just let in, its code lets it in again.
            () = reporter.unheard() => Err(JoinError::Cancelled),
        };
        Ok(joined?)
    }

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
        let consent = consent(&request.agreed)?;
        // Before anybody is asked: an invite is good only once.
        if let (Some(dir), Keep::Folder) = (&request.dir, request.keep) {
            self.check_dir(dir, Contents::Welcome).await?;
        }
        let wanted = (request.ticket.as_str(), request.peers.as_slice());
        let joined = self.meet(wanted, consent, reporter).await?;
        reporter.report(Stage::Opening, 0, 0);
        let _one_at_a_time = self.inner.changing.lock().await;
        if let Some(mesh) = self.local_mesh(&joined.welcome.mesh) {
            return Err(JoinMeshError::AlreadyMember {
                name: mesh.name().to_owned(),
            });
        }
        let place = match (&request.dir, request.keep) {
            (_, Keep::Seed) => Ok(None),
            // Looked at again: the search was long.
            (Some(dir), Keep::Folder) => self.take_place(dir, Contents::Welcome).await.map(Some),
            (None, Keep::Folder) => self.default_place(&joined.welcome.name).await.map(Some),
        };
        self.settle_in(joined, request.keep, place).await
    }

    /// Keeps the mesh that was joined, bound to its place. Without a place it is kept unbound: the
    /// invite is used, and must not have been in vain.
    async fn settle_in(
        &self,
        joined: Joined,
        keep: Keep,
        place: Result<Option<Place>, NoPlace>,
    ) -> Result<JoinReply, JoinMeshError> {
        let (place, obstacle) = match place {
            Ok(place) => (place, None),
            Err(obstacle) => (None, Some(obstacle)),
        };
        let binding = match (&place, keep) {
            (_, Keep::Seed) => Some(BindingRecord {
                id: RootId::from_bytes(random().map_err(OpenMeshError::from)?),
                target: BindingTarget::Seed,
            }),
            (Some(place), Keep::Folder) => Some(place.record(EntryId::ROOT)),
            (None, Keep::Folder) => None,
        };
        let kept = match self.keep_joined(&joined, binding).await {
            Ok(kept) => kept,
            Err(error) => {
                if let Some(place) = &place {
                    place.unmake();
                }
                return Err(error.into());
            }
        };
        if let Some(place) = &place
            && let Some(source) = kept.take_failed(&place.dir)
        {
            let unbound = self.change_record(&kept, |record| record.bindings.clear());
            unbound.await.map_err(OpenMeshError::from)?;
            place.unmake();
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
            dir: place.map(|place| place.dir),
            from,
            from_device: joined.from.to_string(),
            path: joined.path.into(),
        })
    }

    async fn keep_joined(
        &self,
        joined: &Joined,
        binding: Option<BindingRecord>,
    ) -> Result<std::sync::Arc<LocalMesh>, OpenMeshError> {
        let key = self.inner.identity.device_key();
        let welcome = joined.welcome.clone();
        let replica = move |db| Replica::join(db, &welcome, key, &mut rand::rng());
        let name = joined.welcome.name.clone();
        let content_key = SecretBytes(*joined.content_key.expose());
        let record = move |mesh| MeshRecord {
            mesh,
            name,
            content_key,
            paused: false,
            limits: RateLimits::default(),
            rest: Rest::default(),
            bindings: binding.into_iter().collect(),
        };
        self.keep_mesh(replica, record).await
    }

    /// `~/<mesh name>`, if it may be used without asking: others chose the name.
    async fn default_place(&self, name: &str) -> Result<Place, NoPlace> {
        let refused = |source| NoPlace { dir: None, source };
        let dir = match (choose_native_strategy(), EntryName::parse(name)) {
            (Ok(user), Ok(name)) if is_harmless(&name) => user.home_dir().join(name.as_str()),
            (Ok(_), Ok(_) | Err(_)) => {
                let name = status::shown(name);
                return Err(refused(Some(BindingError::Name { name })));
            }
            (Err(_), _) => return Err(refused(None)),
        };
        self.take_place(&dir, Contents::Unwelcome).await
    }

    async fn take_place(&self, dir: &Path, contents: Contents) -> Result<Place, NoPlace> {
        let refused = |source| NoPlace {
            dir: Some(dir.to_owned()),
            source,
        };
        let dir = match self.check_dir(dir, contents).await {
            Ok(dir) => dir,
            Err(source) => return Err(refused(Some(source))),
        };
        Place::make(&dir).map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(dir = %dir.display(), error, "no directory for a mesh that was joined");
            refused(None)
        })
    }
}

fn consent(agreed: &Agreement) -> Result<Consent, JoinMeshError> {
    match agreed {
        Agreement::Anything => Ok(Consent::Anything),
        Agreement::To {
            mesh,
            role,
            from_device,
        } => Ok(Consent::To {
            mesh: mesh.parse().map_err(|_| JoinMeshError::Agreement)?,
            role: (*role).into(),
            inviter: from_device.parse().map_err(|_| JoinMeshError::Agreement)?,
        }),
    }
}

/// Why the directory for a mesh that was joined cannot be used.
struct NoPlace {
    dir: Option<PathBuf>,
    source: Option<BindingError>,
}
