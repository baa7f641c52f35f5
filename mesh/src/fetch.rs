//! Brings contents from all members that hold them, at once.
//!
//! `plan` (pure) decides what is asked of whom; a `lane` speaks with one holder over one stream; `drive` runs one
//! call of [`Fetcher::fetch`]: it surveys the jobs, feeds the lanes, has arrived chunks verified and put into
//! their sinks on blocking threads, and ends each job with a reason. Every call has lanes of its own, so
//! that a small fetch does not wait behind a large one: the connection shares its rate among streams.
//! What arrived stays in the sinks; the same call, made again after any interruption, asks for the rest.

mod drive;
mod holder;
mod lane;
mod plan;
mod progress;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wormhole_crdt::MeshId;
use wormhole_store::{FetchJob, WriteError};

pub use self::progress::Transfer;
use self::{drive::Drive, progress::Running};
use crate::{attachment::Registry, streams::Streams};

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

/// Brings contents. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    registry: Registry,
    streams: Streams,
    running: Running,
}

impl Fetcher {
    pub(crate) fn new(registry: Registry, streams: Streams) -> Self {
        Self {
            registry,
            streams,
            running: Running::default(),
        }
    }

    /// Brings each job's content into its sink; the results stand in the order of the jobs.
    ///
    /// Cancel-safe: what arrived is in the sinks. With `cancel` it returns once the sinks are quiet.
    pub(crate) async fn fetch(
        &self,
        mesh: MeshId,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> Vec<Result<(), FetchError>> {
        let Some(mesh) = self.registry.get(mesh) else {
            return jobs.iter().map(|_| Err(FetchError::Stopped)).collect();
        };
        if jobs.is_empty() {
            return Vec::new();
        }
        let jobs: Arc<[FetchJob]> = jobs.into();
        let progress = self.running.enter(mesh.id(), Arc::clone(&jobs));
        Drive::new(mesh, self.streams.clone(), jobs, progress)
            .run(cancel)
            .await
    }

    /// What is being brought now, the jobs that have begun; see [`Transfer`].
    pub(crate) fn transfers(&self) -> Vec<Transfer> {
        self.running.snapshot()
    }
}

#[cfg(test)]
mod tests;
