//! Brings contents from all members that hold them, at once.
//!
//! `plan` (pure) decides what is asked of whom; a `lane` speaks with one holder over one stream; `drive` runs one
//! call of [`Fetcher::fetch`]: it surveys the jobs, feeds the lanes, has arrived chunks verified and put into
//! their sinks on blocking threads, and ends each job with a reason. Every call has lanes of its own, so
//! that a small fetch does not wait behind a large one: the connection shares its rate among streams.
//! What arrived stays in the sinks; the same call, made again after any interruption, asks for the rest.

mod drive;
mod error;
mod holder;
mod lane;
mod plan;
mod progress;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wormhole_crdt::MeshId;
use wormhole_store::FetchJob;

use self::{drive::Drive, progress::Running};
pub use self::{error::FetchError, progress::Transfer};
use crate::{attachment::Registry, streams::Streams};

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
