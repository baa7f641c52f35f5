//! Why a content was not brought.

use wormhole_store::WriteError;

/// Why a content was not brought. What arrived of it stays in its sink.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connected member has all of it. Worth trying again when another one connects.
    #[error("no connected device has this content; it comes when one that has it is online")]
    NoHolder,
    /// The caller gave up.
    #[error("fetching was cancelled")]
    Cancelled,
    /// The mesh is paused on this device.
    #[error("the mesh is paused on this device")]
    Paused,
    /// It could not be kept here, or its manifest makes no sense.
    #[error("fetched content could not be kept")]
    Sink(#[from] WriteError),
    /// This node no longer carries the mesh, or is stopping.
    #[error("the mesh is not carried by this node any more")]
    Stopped,
}
