//! The port through which files ask for bytes that are not on this device.
//!
//! The conductor implements [`Source`] by asking the network; tests implement it by copying from another store. The
//! folder never learns who held the bytes, only whether they came.

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use wormhole_store::{FetchJob, WriteError};

/// Brings contents to their sinks.
pub trait Source: Send + Sync + 'static {
    /// Fetches every job, in any order and concurrently, and answers in the order of `jobs`.
    ///
    /// The implementation brings the manifest blobs into the store, calls [`wormhole_store::ChunkSink::prepare`]
    /// once they are there, and then puts each missing slot. `Ok` means that every slot was put.
    fn fetch(
        &self,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Vec<Result<(), FetchFailure>>>;
}

/// Why a content did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// No connected device has it; it is asked for again when one appears.
    #[error("no connected device has this content")]
    NoHolder,
    /// The caller's token was cancelled.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The bytes came, but could not be written here.
    #[error("the content could not be written")]
    Sink(#[source] WriteError),
    /// The network of this device is stopping.
    #[error("the network of this device is stopping")]
    Stopped,
}
