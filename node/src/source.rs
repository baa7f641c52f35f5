//! How folders get bytes that are not here: `vfs` asks, `mesh` brings.
//!
//! The two rooms do not know each other; this is the whole of what passes between them.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::MeshId;
use wormhole_mesh::{FetchError, Network};
use wormhole_store::FetchJob;
use wormhole_vfs::{FetchFailure, Source};

/// Fetches contents of one mesh from its members.
#[derive(Debug, Clone)]
pub(crate) struct MeshSource {
    network: Network,
    mesh: MeshId,
}

impl MeshSource {
    /// A source for the contents of `mesh`.
    pub(crate) fn new(network: Network, mesh: MeshId) -> Self {
        Self { network, mesh }
    }
}

impl Source for MeshSource {
    fn fetch(
        &self,
        jobs: Vec<FetchJob>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Vec<Result<(), FetchFailure>>> {
        async move {
            let fetched = self.network.fetch(self.mesh, jobs, cancel).await;
            fetched
                .into_iter()
                .map(|result| result.map_err(failure))
                .collect()
        }
        .boxed()
    }
}

fn failure(error: FetchError) -> FetchFailure {
    match error {
        // A pause ends like an absence: with a poke.
        FetchError::NoHolder | FetchError::Paused => FetchFailure::NoHolder,
        FetchError::Cancelled => FetchFailure::Cancelled,
        FetchError::Sink(error) => FetchFailure::Sink(error),
        FetchError::Stopped => FetchFailure::Stopped,
    }
}
