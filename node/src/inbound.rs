//! The way in, seen from the conductor: a change made elsewhere is known here.
//!
//! It was checked and merged before the news came (`mesh` and `crdt`). Folders listen to the replica
//! themselves: they fetch through [`source`](crate::source) and show the file. What is left is to
//! decide what else is wanted now (a seed wants everything: [`policy`](crate::policy)) and to tell
//! the people who follow.

use std::sync::Arc;

use crate::change::News;
use crate::event::EventKind;
use crate::node::{LocalMesh, Node};
use crate::outbound::{follow_members, tell_entries};

/// Carries news of a change made on another device.
pub(crate) async fn carry(node: &Node, mesh: &Arc<LocalMesh>, news: News) {
    if news.members {
        follow_members(node, mesh).await;
    }
    if let Some(seed) = mesh.seed() {
        seed.want(news.entries.as_deref());
    }
    mesh.wake.notify_one();
    if let Some(entries) = news.entries
        && node.events().is_followed()
    {
        let received = |mesh, path, change| EventKind::FileReceived { mesh, path, change };
        tell_entries(node, mesh, entries, received).await;
    }
}
