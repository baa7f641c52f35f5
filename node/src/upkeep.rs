//! Housekeeping that nobody waits for: freeing the disk space of content that no file has any more.

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
            // A sweep that has begun goes to its end: it is the store's own unit of work.
            if node.tasks().cancel().is_cancelled() {
                return;
            }
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
            Ok::<_, wormhole_crdt::StorageError>(mesh.store().sweep(&mut live.into_iter()))
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
