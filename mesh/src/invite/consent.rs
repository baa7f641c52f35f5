//! What a joiner is shown before it joins, and what the persons at both ends have to agree to.
//!
//! A stranger learns not even names: a proposal is made once both sides have proved that they know the secret.

use wormhole_crdt::{DeviceId, MeshId, Role, Timestamp};

/// What an invite leads to. Its names are what the inviter says: untrusted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Into which mesh.
    pub mesh: MeshId,
    /// What it is called.
    pub mesh_name: String,
    /// What this device would be in it.
    pub role: Role,
    /// Who invites.
    pub inviter: DeviceId,
    /// What that device calls itself.
    pub inviter_name: String,
    /// Whether a person there has to admit this device.
    pub ask: bool,
    /// When the invite ends.
    pub expires: Timestamp,
}

/// What a person has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// To nothing yet: the proposal is to be shown.
    Nothing,
    /// To what was shown: this mesh, in this role, by this inviter.
    To {
        /// The mesh.
        mesh: MeshId,
        /// The role.
        role: Role,
        /// The inviter.
        inviter: DeviceId,
    },
    /// To whatever the code or link leads to.
    Anything,
}

impl Consent {
    /// To exactly this proposal.
    #[must_use]
    pub const fn to(proposal: &Proposal) -> Self {
        Self::To {
            mesh: proposal.mesh,
            role: proposal.role,
            inviter: proposal.inviter,
        }
    }

    /// Whether the person agreed to this.
    pub(super) fn covers(&self, proposal: &Proposal) -> bool {
        match self {
            Self::Nothing => false,
            Self::To { .. } => *self == Self::to(proposal),
            Self::Anything => true,
        }
    }
}

/// A device that proved that it knows an invite's secret, and waits for a person here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Into which mesh.
    pub mesh: MeshId,
    /// Who.
    pub device: DeviceId,
    /// What it calls itself. Untrusted text.
    pub name: String,
    /// What it would be.
    pub role: Role,
    /// When its invite ends.
    pub expires: Timestamp,
}
