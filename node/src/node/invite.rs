//! `invite`: a code and a link that let one more device in.

use std::time::Duration;

use wormhole_crdt::Role;
use wormhole_mesh::InviteOffer;

use super::{LocalMesh, Node};
use crate::api::{InviteReply, InviteRequest, RoleName};
use crate::error::MakeInviteError;
use crate::event::EventKind;

/// Long enough to walk to the other device and type.
const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

/// Shorter ones nobody could type in time; longer ones would be open doors.
const ALLOWED_TTL_SECONDS: std::ops::RangeInclusive<u64> = 10..=7 * 24 * 60 * 60;

impl Node {
    /// Makes an invite that is good for one device.
    ///
    /// # Errors
    /// A [`MakeInviteError`]; there is then no invite.
    pub fn invite(&self, request: &InviteRequest) -> Result<InviteReply, MakeInviteError> {
        let mesh = self.lookup(&request.mesh)?;
        let role = request.role.unwrap_or(RoleName::Writer);
        self.invite_to(&mesh, role.into(), ttl(request.ttl_seconds)?)
    }

    pub(super) fn invite_to(
        &self,
        mesh: &LocalMesh,
        role: Role,
        ttl: Duration,
    ) -> Result<InviteReply, MakeInviteError> {
        let offer = InviteOffer { role, ttl };
        let invite = self.network().invite(mesh.id(), offer)?;
        let expires_ms = invite.expires.0 / 1_000_000;
        self.events().raise(EventKind::InviteCreated {
            mesh: mesh.reference(),
            role: role.into(),
            expires_ms,
        });
        Ok(InviteReply {
            mesh: mesh.reference(),
            code: invite.code.reveal().to_string(),
            link: invite.link.reveal().to_string(),
            role: role.into(),
            expires_ms,
        })
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
