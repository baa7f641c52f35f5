//! Why this device did not leave a mesh.

use crate::error::{LookupError, OpenMeshError};

/// Why this device did not leave a mesh.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The mesh is not clear.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The others would have nobody who can admit or remove a device.
    #[error("this device is the only admin of mesh {name:?}")]
    LastAdmin {
        /// The name of the mesh.
        name: String,
    },
    /// That this device goes could not be recorded.
    #[error("the others cannot be told that this device goes")]
    Member(#[source] wormhole_crdt::MemberError),
    /// What only this device has would be lost to the others.
    #[error("what this device has of mesh {name:?} may be nowhere else: {reason}")]
    NotHandedOver {
        /// The name of the mesh.
        name: String,
        /// What keeps it.
        reason: KeptBack,
    },
    /// The record could not be changed.
    #[error(transparent)]
    Record(#[from] OpenMeshError),
}

/// Why what a device has may be nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptBack {
    /// No other member is connected.
    #[error("no other device is connected")]
    Alone,
    /// Its store is all that it has.
    #[error("it is a seed, and its content goes with it")]
    Seed,
    /// A connected device is still getting something.
    #[error("{device} is connected and has not got everything yet")]
    Behind {
        /// Its name.
        device: String,
    },
    /// No connected device has all content.
    #[error(
        "no connected device keeps all of it ({device} has a part, or cannot apply everything)"
    )]
    Partly {
        /// The name of one that is connected.
        device: String,
    },
}

impl KeptBack {
    /// Whether it may be over in a moment.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Behind { .. } => true,
            Self::Alone | Self::Seed | Self::Partly { .. } => false,
        }
    }
}
