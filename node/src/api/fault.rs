//! The one shape of every error that the local API answers with.
//!
//! [`Fault`] is what a client sees; [`FaultCode`] is its stable part, made for programs, and
//! decides the HTTP status. The sentences are for people. How the node's own errors become faults
//! is written once, in `error`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// What kind of failure, for programs.
    pub code: FaultCode,
    /// What happened, and to what.
    pub message: String,
    /// What to do about it, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }
}

/// Kinds of failures. Codes are never renamed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The request is not of the form that the API asks for.
    BadRequest,
    /// There is no such route, or nothing of that name.
    NotFound,
    /// No mesh has that name or id.
    UnknownMesh,
    /// More than one mesh has that name or beginning of an id.
    AmbiguousMesh,
    /// The directory cannot be bound: see the message.
    BadDirectory,
    /// The directory is inside, around or the same as one that is already bound.
    DirectoryTaken,
    /// The directory that a join would use by itself exists and has files in it.
    DirectoryNotEmpty,
    /// The code or link is not well formed (a word that is not in the list, …).
    BadTicket,
    /// The code is wrong, or was used up by wrong tries.
    TicketRefused,
    /// The invite is used or expired.
    TicketExpired,
    /// Nobody who knows the code was found.
    NobodyFound,
    /// This device is in that mesh already.
    AlreadyMember,
    /// The code leads to something that the user has not agreed to.
    AgreementNeeded,
    /// This device's role does not allow it.
    NotAllowed,
    /// What was named is no conflict, or it cannot be ended so: see the message.
    NoConflict,
    /// What this device holds of the mesh may be nowhere else.
    NotHandedOver,
    /// The content is not on this device and no connected member has it.
    Unavailable,
    /// The device could not be reached.
    Unreachable,
    /// A disk or database error on this device.
    Storage,
    /// The node is stopping.
    Stopping,
    /// Too many requests at once.
    Busy,
    /// A fault of the program itself.
    Internal,
}

impl FaultCode {
    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadTicket | Self::BadDirectory => 400,
            Self::NotAllowed | Self::TicketRefused => 403,
            Self::NotFound | Self::UnknownMesh | Self::NobodyFound => 404,
            Self::AmbiguousMesh
            | Self::DirectoryTaken
            | Self::DirectoryNotEmpty
            | Self::AlreadyMember
            | Self::NoConflict
            | Self::AgreementNeeded
            | Self::NotHandedOver => 409,
            Self::TicketExpired => 410,
            Self::Unreachable => 502,
            Self::Unavailable | Self::Stopping | Self::Busy => 503,
            Self::Storage | Self::Internal => 500,
        }
    }
}
