//! What a client of the local API is told about each error: a stable code, a sentence, a hint.

use std::error::Error;

use super::{
    ControlError, DecideError, FolderOperationError, JoinMeshError, KeptBack, LeaveError,
    LookupError, MakeInviteError, MemberChangeError, OpenMeshError, ResolveConflictError,
    ShareError, TreeError,
};
use crate::api::{Fault, FaultCode};
use crate::binding::BindingError;
use crate::tasks::Closed;
use wormhole_crdt::EditError;
use wormhole_mesh::JoinError;
use wormhole_vfs::RestoreError;

/// An error and its sources in one sentence.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn fault(code: FaultCode, error: &dyn Error) -> Fault {
    Fault::new(code, sentence(error))
}

impl Fault {
    fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl From<Closed> for Fault {
    fn from(error: Closed) -> Self {
        fault(FaultCode::Stopping, &error)
    }
}

impl From<LookupError> for Fault {
    fn from(error: LookupError) -> Self {
        match &error {
            LookupError::Unknown { known, .. } if known.is_empty() => {
                fault(FaultCode::UnknownMesh, &error).with_hint(
                    "make one with `wormhole share DIR` or join one with `wormhole join`",
                )
            }
            LookupError::Unknown { known, .. } => fault(FaultCode::UnknownMesh, &error)
                .with_hint(format!("known meshes: {}", known.join(", "))),
            LookupError::Closed { .. } => fault(FaultCode::Storage, &error),
            LookupError::Ambiguous { candidates, .. } => {
                let short = |id: &wormhole_crdt::MeshId| id.to_string().chars().take(12).collect();
                let ids: Vec<String> = candidates.iter().map(short).collect();
                fault(FaultCode::AmbiguousMesh, &error)
                    .with_hint(format!("use the beginning of an id: {}", ids.join(", ")))
            }
        }
    }
}

impl From<BindingError> for Fault {
    fn from(error: BindingError) -> Self {
        let is_itself = matches!(&error, BindingError::Taken { dir, bound } if dir == bound);
        let fault = fault(directory_code(&error), &error);
        if is_itself {
            return fault.with_hint(
                "to let another device in: `wormhole invite MESH` (`wormhole meshes` lists the names)",
            );
        }
        fault
    }
}

fn directory_code(error: &BindingError) -> FaultCode {
    match error {
        BindingError::Taken { .. }
        | BindingError::Marked { .. }
        | BindingError::Moved { .. }
        | BindingError::Inside { .. }
        | BindingError::Surrounds { .. } => FaultCode::DirectoryTaken,
        BindingError::NotEmpty { .. } => FaultCode::DirectoryNotEmpty,
        BindingError::Relative { .. }
        | BindingError::NotUtf8 { .. }
        | BindingError::Root { .. }
        | BindingError::NoParent { .. }
        | BindingError::NotADirectory { .. }
        | BindingError::Symlink { .. }
        | BindingError::NotWritable { .. }
        | BindingError::Home { .. }
        | BindingError::Mount { .. }
        | BindingError::System { .. }
        | BindingError::Name { .. }
        | BindingError::Unreadable { .. } => FaultCode::BadDirectory,
    }
}

impl From<OpenMeshError> for Fault {
    fn from(error: OpenMeshError) -> Self {
        let code = match &error {
            OpenMeshError::Stopping(_) => FaultCode::Stopping,
            OpenMeshError::Replica { source, .. }
                if matches!(**source, wormhole_crdt::OpenError::BadLabel) =>
            {
                FaultCode::BadRequest
            }
            OpenMeshError::Directory { .. } => FaultCode::BadDirectory,
            OpenMeshError::Home(_)
            | OpenMeshError::Database { .. }
            | OpenMeshError::Replica { .. }
            | OpenMeshError::Store { .. }
            | OpenMeshError::Damaged { .. }
            | OpenMeshError::DamagedFolder { .. }
            | OpenMeshError::Folder { .. } => FaultCode::Storage,
        };
        fault(code, &error)
    }
}

impl From<MakeInviteError> for Fault {
    fn from(error: MakeInviteError) -> Self {
        match error {
            MakeInviteError::Lookup(error) => error.into(),
            MakeInviteError::Ttl { .. } => fault(FaultCode::BadRequest, &error),
            MakeInviteError::Network(_) => fault(FaultCode::NotAllowed, &error),
        }
    }
}

impl From<ShareError> for Fault {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::Binding(error) => error.into(),
            ShareError::Open(error) => error.into(),
            ShareError::Name { .. } => fault(FaultCode::BadRequest, &error),
            ShareError::Folder { .. } => fault(FaultCode::Storage, &error),
            ShareError::Invite(error) => error.into(),
        }
    }
}

impl From<DecideError> for Fault {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::NotWaiting { .. } => fault(FaultCode::NotFound, &error)
                .with_hint("`wormhole admit` lists the devices that wait"),
            DecideError::Ambiguous { .. } => fault(FaultCode::BadRequest, &error)
                .with_hint("use the beginning of its id: `wormhole admit` lists them"),
        }
    }
}

impl From<JoinMeshError> for Fault {
    fn from(error: JoinMeshError) -> Self {
        match error {
            JoinMeshError::Ticket(error) => fault(FaultCode::BadTicket, &error),
            JoinMeshError::Address(error) => fault(FaultCode::BadRequest, &error),
            JoinMeshError::Agreement => fault(FaultCode::BadRequest, &error),
            JoinMeshError::Network(error) => fault(refusal(&error), &error),
            JoinMeshError::Binding(error) => error.into(),
            JoinMeshError::AlreadyMember { .. } => fault(FaultCode::AlreadyMember, &error),
            JoinMeshError::NoPlace {
                ref name,
                ref source,
                ..
            } => {
                let code = match source {
                    Some(source) => directory_code(source),
                    None => FaultCode::BadDirectory,
                };
                fault(code, &error).with_hint(format!("choose one: wormhole sync {name:?} DIR"))
            }
            JoinMeshError::NotSynced { ref name, .. } => fault(FaultCode::BadDirectory, &error)
                .with_hint(format!(
                    "choose another directory: wormhole sync {name:?} DIR"
                )),
            JoinMeshError::Open(error) => error.into(),
        }
    }
}

fn refusal(error: &JoinError) -> FaultCode {
    match error {
        JoinError::WrongCode { .. } | JoinError::NoSuchInvite => FaultCode::TicketRefused,
        JoinError::Expired | JoinError::Used | JoinError::Burnt => FaultCode::TicketExpired,
        JoinError::NobodyAnswers => FaultCode::NobodyFound,
        JoinError::AlreadyMember { .. } => FaultCode::AlreadyMember,
        JoinError::Declined => FaultCode::TicketRefused,
        JoinError::Undecided { .. } => FaultCode::AgreementNeeded,
        JoinError::Busy | JoinError::Taken => FaultCode::Busy,
        JoinError::Cancelled | JoinError::Stopped => FaultCode::Stopping,
        // The rest, and what a later network may add: it did not work out with that device.
        _ => FaultCode::Unreachable,
    }
}

impl From<TreeError> for Fault {
    fn from(error: TreeError) -> Self {
        let code = match error {
            TreeError::Lookup(error) => return error.into(),
            TreeError::Path { .. }
            | TreeError::NotAFile { .. }
            | TreeError::NotADirectory { .. } => FaultCode::BadRequest,
            TreeError::Absent { .. } => FaultCode::NotFound,
            TreeError::Fetch { .. } => FaultCode::Unavailable,
            TreeError::Replica(_) | TreeError::Read { .. } => FaultCode::Storage,
        };
        fault(code, &error)
    }
}

impl From<ResolveConflictError> for Fault {
    fn from(error: ResolveConflictError) -> Self {
        let code = match error {
            ResolveConflictError::Folder(error) => return error.into(),
            ResolveConflictError::Tree(error) => return error.into(),
            ResolveConflictError::Root => FaultCode::BadRequest,
            ResolveConflictError::Conflict(_) => {
                return fault(FaultCode::NoConflict, &error)
                    .with_hint("`wormhole conflicts` lists the conflict copies");
            }
            ResolveConflictError::Edit(EditError::NotWriter { .. }) => FaultCode::NotAllowed,
            ResolveConflictError::Edit(EditError::Storage(_)) => FaultCode::Storage,
            ResolveConflictError::Edit(_) => FaultCode::Busy,
        };
        fault(code, &error)
    }
}

impl From<LeaveError> for Fault {
    fn from(error: LeaveError) -> Self {
        match error {
            LeaveError::Lookup(error) => error.into(),
            LeaveError::Record(error) => error.into(),
            LeaveError::LastAdmin { .. } => fault(FaultCode::NotAllowed, &error)
                .with_hint("make another device admin first: `wormhole role DEVICE admin`"),
            LeaveError::Member(_) => fault(FaultCode::Storage, &error),
            LeaveError::NotHandedOver { ref reason, .. } => {
                let what = match reason {
                    KeptBack::Alone => "connect another device",
                    KeptBack::Seed => "have another device keep all content first",
                    KeptBack::Behind { .. } => "try again after `wormhole wait`",
                    KeptBack::Partly { .. } => "`wormhole members` says how the others stand",
                };
                fault(FaultCode::NotHandedOver, &error).with_hint(format!(
                    "{what}; or leave all the same with --yes: the files in synced folders stay either way"
                ))
            }
        }
    }
}

impl From<MemberChangeError> for Fault {
    fn from(error: MemberChangeError) -> Self {
        use wormhole_crdt::MemberError;
        match &error {
            MemberChangeError::Lookup(_) => match error {
                MemberChangeError::Lookup(error) => error.into(),
                other => fault(FaultCode::Internal, &other),
            },
            MemberChangeError::UnknownDevice { known, .. } if known.is_empty() => {
                fault(FaultCode::NotFound, &error).with_hint("this device is in no mesh")
            }
            MemberChangeError::UnknownDevice { known, .. } => fault(FaultCode::NotFound, &error)
                .with_hint(format!("known devices: {}", known.join(", "))),
            MemberChangeError::AmbiguousDevice { candidates, .. } => {
                let short = candidates.iter().map(|device| {
                    let id = device.to_string();
                    id.chars().take(12).collect::<String>()
                });
                let ids: Vec<String> = short.collect();
                fault(FaultCode::BadRequest, &error)
                    .with_hint(format!("use the beginning of an id: {}", ids.join(", ")))
            }
            MemberChangeError::AmbiguousMesh { meshes, .. } => fault(FaultCode::BadRequest, &error)
                .with_hint(format!("name one with --mesh: {}", meshes.join(", "))),
            MemberChangeError::BadKey | MemberChangeError::BadPhrase(_) => {
                fault(FaultCode::BadRequest, &error)
            }
            MemberChangeError::ThisDevice => fault(FaultCode::BadRequest, &error)
                .with_hint("`wormhole leave MESH` takes this device out of a mesh"),
            MemberChangeError::Refused(refused) => match refused {
                MemberError::Storage(_) => fault(FaultCode::Storage, &error),
                MemberError::NotAdmin { .. }
                | MemberError::LastAdmin
                | MemberError::HasRecovery
                | MemberError::WrongRecovery
                | MemberError::Outranked { .. }
                | MemberError::Refused(_) => fault(FaultCode::NotAllowed, &error),
                MemberError::AlreadyMember { .. } => fault(FaultCode::AlreadyMember, &error),
                MemberError::NotMember { .. } => fault(FaultCode::NotFound, &error),
            },
        }
    }
}

impl From<FolderOperationError> for Fault {
    fn from(error: FolderOperationError) -> Self {
        match error {
            FolderOperationError::Lookup(error) => error.into(),
            FolderOperationError::Binding(error) => error.into(),
            FolderOperationError::Tree(error) => error.into(),
            FolderOperationError::Open(error) => error.into(),
            FolderOperationError::NotBound { .. } => fault(FaultCode::NotFound, &error)
                .with_hint("`wormhole status` lists the synced folders"),
            FolderOperationError::NotOpen { .. } | FolderOperationError::Record(_) => {
                fault(FaultCode::Storage, &error)
            }
            FolderOperationError::OtherDeletions { .. } => fault(FaultCode::Busy, &error),
            FolderOperationError::NotItself { .. } | FolderOperationError::Rename { .. } => {
                fault(FaultCode::BadDirectory, &error)
            }
            FolderOperationError::Restore(error) => error.into(),
        }
    }
}

impl From<RestoreError> for Fault {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::NotKept { .. } | RestoreError::NoSuchVersion { .. } => {
                fault(FaultCode::NotFound, &error)
                    .with_hint("`wormhole trash` lists what can be brought back")
            }
            RestoreError::InTheWay { .. }
            | RestoreError::AllTaken { .. }
            | RestoreError::Io { .. }
            | RestoreError::Stopped(_) => fault(FaultCode::Storage, &error),
        }
    }
}

impl From<ControlError> for Fault {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::Lookup(error) => return error.into(),
            ControlError::Limit { .. } | ControlError::Address(_) => FaultCode::BadRequest,
            ControlError::Home(_) | ControlError::Check { .. } => FaultCode::Storage,
            ControlError::Stopping(_) => FaultCode::Stopping,
            ControlError::Dial(_) => FaultCode::Unreachable,
        };
        fault(code, &error)
    }
}
