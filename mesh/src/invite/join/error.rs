//! Why a device did not join, in words for people, and what to make of each reason.

use wormhole_crdt::MeshId;

use super::{ExchangeError, Proposal, Refusal};
use crate::{
    error::{DialError, OpenError},
    version::VersionMismatch,
};

/// Why a device did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The words are not those of the invite.
    #[error(
        "the code is wrong{}; check it and try again",
        .tries_left.map_or(String::new(), |left| match left {
            1 => " (1 more try)".to_owned(),
            left => format!(" ({left} more tries)"),
        })
    )]
    WrongCode {
        /// Further wrong ones that the inviter takes; `None` when it did not say.
        tries_left: Option<u8>,
    },
    /// The invite's time is over.
    #[error("the invite has expired; ask for a new one")]
    Expired,
    /// Somebody joined with it.
    #[error("the invite has been used by another device; ask for a new one")]
    Used,
    /// Too many wrong codes.
    #[error(
        "too many wrong codes were tried, so the invite takes no more of them; ask for a new one"
    )]
    Burnt,
    /// The devices that answer know nothing of it.
    #[error("the device that answers has no such invite; check the number in front of the code")]
    NoSuchInvite,
    /// Nobody was found.
    #[error(
        "no inviting device was found; is `wormhole` running there and on the same network? If it is \
         elsewhere, give its address with --peer"
    )]
    NobodyAnswers,
    /// The given address does not answer.
    #[error("the inviting device cannot be reached")]
    Unreachable(#[source] DialError),
    /// This device is in that mesh.
    #[error("this device is a member of \"{}\" already; the invite is still good", .name.escape_debug())]
    AlreadyMember {
        /// The mesh.
        mesh: MeshId,
        /// Its name, as the inviter says.
        name: String,
    },
    /// The programs are too far apart.
    #[error(transparent)]
    VersionMismatch(#[from] VersionMismatch),
    /// The other program speaks another major version.
    #[error("the other device speaks another version of wormhole; update the older of the two")]
    Unsupported,
    /// Another device is joining, or too many tried lately.
    #[error("the inviting device is busy with another join; try again in a few seconds")]
    Busy,
    /// Another device came first and waits for a person there.
    #[error(
        "another device waits to be admitted with this invite; try again when somebody there has answered it, or ask \
         for an invite of your own"
    )]
    Taken,
    /// A person there has to admit this device, and has not yet.
    #[error("nobody at the inviting device has admitted this one yet")]
    Waiting,
    /// A person there refused it.
    #[error("the inviting device refused this one")]
    Declined,
    /// Nobody here has agreed to what the invite leads to.
    #[error(
        "joining \"{}\" as {} has to be agreed to",
        .proposal.mesh_name.escape_debug(),
        .proposal.role
    )]
    Undecided {
        /// What it leads to.
        proposal: Box<Proposal>,
    },
    /// It could not.
    #[error("the inviting device could not admit this one; look at its log")]
    CannotAdmit,
    /// The connection broke, or the other side broke the protocol.
    #[error("the conversation with the inviting device broke off; try again")]
    Broken,
    /// The caller gave up.
    #[error("joining was cancelled")]
    Cancelled,
    /// The network is shutting down.
    #[error("the network is stopping")]
    Stopped,
}

impl JoinError {
    /// Whether a device that knows of the invite may have said this. Anybody may have.
    pub(super) fn is_answer(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable(_) | Self::NobodyAnswers | Self::NoSuchInvite
        )
    }

    /// Whether it may be otherwise in a moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::NobodyAnswers | Self::Busy | Self::Broken
        )
    }
}

impl From<OpenError> for JoinError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unreachable { source, .. } => Self::Unreachable(source),
            OpenError::Unsupported { .. } => Self::Unsupported,
            OpenError::PeerQuota { .. } | OpenError::Busy { .. } | OpenError::Backlog { .. } => {
                Self::Busy
            }
            OpenError::Lost { .. } => Self::NobodyAnswers,
            OpenError::Stopped => Self::Stopped,
        }
    }
}

impl From<ExchangeError> for JoinError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Version(mismatch) => Self::VersionMismatch(mismatch),
            ExchangeError::AlreadyMember { mesh, name } => Self::AlreadyMember { mesh, name },
            ExchangeError::Undecided(proposal) => Self::Undecided { proposal },
            ExchangeError::WrongSecret => Self::WrongCode { tries_left: None },
            ExchangeError::Io(_) | ExchangeError::Deadline | ExchangeError::Malformed => {
                Self::Broken
            }
            ExchangeError::Refused(refusal) => match refusal {
                Refusal::Unknown => Self::NoSuchInvite,
                Refusal::Expired => Self::Expired,
                Refusal::Used => Self::Used,
                Refusal::Burnt => Self::Burnt,
                Refusal::Wrong { tries_left } => Self::WrongCode {
                    tries_left: Some(tries_left),
                },
                Refusal::Busy => Self::Busy,
                Refusal::CannotAdmit => Self::CannotAdmit,
                Refusal::Waiting => Self::Waiting,
                Refusal::Declined => Self::Declined,
                Refusal::Taken => Self::Taken,
            },
        }
    }
}
