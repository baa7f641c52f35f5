//! `invite`: a code and a link that let one more device in; and who waits to be admitted.

use std::time::Duration;

use wormhole_crdt::Role;
use wormhole_mesh::{Asking, Invite, InviteOffer, words};

use super::{LocalMesh, Node};
use crate::api::{
    AskingInfo, AskingReply, DecideReply, DecideRequest, InviteReply, InviteRequest, InvitesReply,
    MeshRef, RoleName,
};
use crate::error::{DecideError, MakeInviteError};
use crate::event::EventKind;
use crate::node::lookup::SHORTEST_PREFIX;
use crate::status;

/// Long enough to walk to the other device and type.
const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

/// Shorter ones nobody could type in time; longer ones would be open doors.
const ALLOWED_TTL_SECONDS: std::ops::RangeInclusive<u64> = 10..=7 * 24 * 60 * 60;

/// An invite that is good for longer has more time to fall into other hands, so somebody has to admit who comes.
const ASK_ABOVE: Duration = Duration::from_secs(60 * 60);

impl Node {
    /// Makes an invite that is good for one device.
    ///
    /// # Errors
    /// A [`MakeInviteError`]; there is then no invite.
    pub fn invite(&self, request: &InviteRequest) -> Result<InviteReply, MakeInviteError> {
        let mesh = self.lookup(&request.mesh)?;
        let role = request.role.unwrap_or(RoleName::Writer);
        self.invite_to(&mesh, role.into(), ttl(request.ttl_seconds)?, request.ask)
    }

    /// The invites that are still good.
    #[must_use]
    pub fn invites(&self) -> InvitesReply {
        let invites = self.network().invites().into_iter();
        let known = invites.filter_map(|invite| {
            let mesh = self.local_mesh(&invite.mesh)?.reference();
            Some(reply(mesh, &invite))
        });
        InvitesReply {
            invites: known.collect(),
        }
    }

    /// The devices that wait to be admitted.
    #[must_use]
    pub fn asking(&self) -> AskingReply {
        let asking = self.network().asking();
        let known = asking.iter().filter_map(|asking| self.asking_info(asking));
        AskingReply {
            devices: known.collect(),
        }
    }

    /// Admits or refuses a device that waits.
    ///
    /// # Errors
    /// A [`DecideError`]; nothing is decided then.
    pub fn decide(&self, request: &DecideRequest) -> Result<DecideReply, DecideError> {
        let wanted = request.device.trim();
        let prefix = wanted.to_ascii_lowercase();
        let mut waiting = self.network().asking();
        waiting.retain(|asking| {
            let id = asking.device.to_string();
            let by_id = wanted.len() >= SHORTEST_PREFIX && id.starts_with(&prefix);
            by_id || status::shown(&asking.name) == wanted || words(&asking.device) == prefix
        });
        let device = || wanted.to_owned();
        let [asking] = waiting.as_slice() else {
            return Err(match waiting.is_empty() {
                true => DecideError::NotWaiting { device: device() },
                false => DecideError::Ambiguous { device: device() },
            });
        };
        let info = self.asking_info(asking);
        let info = info.ok_or_else(|| DecideError::NotWaiting { device: device() })?;
        let (mesh, id) = (asking.mesh, asking.device);
        if !self.network().decide(mesh, id, request.admit) {
            return Err(DecideError::NotWaiting { device: device() });
        }
        Ok(DecideReply {
            device: info,
            admitted: request.admit,
        })
    }

    fn asking_info(&self, asking: &Asking) -> Option<AskingInfo> {
        Some(AskingInfo {
            mesh: self.local_mesh(&asking.mesh)?.reference(),
            device: asking.device.to_string(),
            name: status::shown(&asking.name),
            words: words(&asking.device),
            role: asking.role.into(),
            expires_ms: asking.expires.0 / 1_000_000,
        })
    }

    pub(super) fn invite_to(
        &self,
        mesh: &LocalMesh,
        role: Role,
        ttl: Duration,
        ask: Option<bool>,
    ) -> Result<InviteReply, MakeInviteError> {
        let ask = ask.unwrap_or(role == Role::Admin || ttl > ASK_ABOVE);
        let offer = InviteOffer { role, ttl, ask };
        let invite = self.network().invite(mesh.id(), offer)?;
        let invite = reply(mesh.reference(), &invite);
        self.events().raise(EventKind::InviteCreated {
            mesh: invite.mesh.clone(),
            role: invite.role,
            expires_ms: invite.expires_ms,
        });
        Ok(invite)
    }
}

fn reply(mesh: MeshRef, invite: &Invite) -> InviteReply {
    InviteReply {
        mesh,
        code: invite.code.reveal().to_string(),
        link: invite.link.reveal().to_string(),
        role: invite.role.into(),
        expires_ms: invite.expires.0 / 1_000_000,
        ask: invite.ask,
    }
}

/// How long an invite is good for.
pub(super) fn ttl(seconds: Option<u64>) -> Result<Duration, MakeInviteError> {
    match seconds {
        None => Ok(DEFAULT_TTL),
        Some(seconds) if ALLOWED_TTL_SECONDS.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(MakeInviteError::Ttl { seconds }),
    }
}
