//! Housekeeping that nobody waits for: space of content that no file has any more is given back
//! (`sweep_stores`), stored bytes are read again before somebody needs them (`check`), and what
//! turns out damaged is brought back or told (`heal`, `health`).

pub(crate) mod check;
mod heal;
pub(crate) mod health;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::node::{LocalMesh, Node, blocking};

/// A sweep reads the whole list of live contents, so it is rare.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// Sweeps the stores now and then, until the node stops.
pub(crate) async fn sweep_stores(node: Node) {
    loop {
        tokio::select! {
            biased;
            () = node.tasks().cancel().cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        for mesh in node.local_meshes() {
            sweep(mesh).await;
        }
    }
}

async fn sweep(mesh: Arc<LocalMesh>) {
    let swept = blocking({
        let mesh = mesh.clone();
        move || {
            let mut live = Vec::new();
            mesh.replica()
                .contents(&mut |content| live.push(*content))?;
            let mut watch = || while_open(&mesh);
            let swept = mesh.store().sweep(&mut live.into_iter(), &mut watch);
            Ok::<_, wormhole_crdt::StorageError>(swept)
        }
    });
    match swept.await {
        Ok(Ok(swept)) => tracing::info!(mesh = mesh.name(), ?swept, "swept the store"),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(mesh = mesh.name(), error, "the store cannot be swept");
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                mesh = mesh.name(),
                error,
                "the live contents cannot be listed"
            );
        }
    }
}

/// Lets long work on a store go on until the mesh, or the node, stops.
fn while_open(mesh: &LocalMesh) -> ControlFlow<()> {
    match mesh.stop.is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}
