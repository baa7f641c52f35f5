//! The way out, seen from the conductor: a change was made here, and the others shall know.
//!
//! The bytes have come as far as the replica already: a folder saw the file settle, the store cut
//! and kept it, an edit said what it is. What is left is to remember and to announce. Remembering
//! is [`change::flush`](crate::change::flush); the network listens to the replica itself and
//! announces whatever is durable. So the paragraph is short: tell the people who follow, and let
//! those who wait for content look again, because an entry that moved may need nothing any more.

use std::collections::HashSet;

use wormhole_crdt::{EntryChange, EntryId, EntryKey};

use crate::api::MeshRef;
use crate::change::News;
use crate::event::{ChangeName, EventKind};
use crate::node::{LocalMesh, Node, blocking};

/// Carries news of a change made on this device.
pub(crate) async fn carry(node: &Node, mesh: &std::sync::Arc<LocalMesh>, news: News) {
    if news.members {
        follow_members(node, mesh).await;
    }
    if let Some(seed) = mesh.seed() {
        seed.reconsider(news.entries.as_deref());
    }
    mesh.wake.notify_one();
    if let Some(entries) = news.entries
        && node.events().is_followed()
    {
        let sent = |mesh, path, change| EventKind::FileSent { mesh, path, change };
        tell_entries(node, mesh, entries, sent).await;
    }
}

/// Tells the followers about each entry, under the path where it is (or was) shown.
pub(crate) async fn tell_entries(
    node: &Node,
    mesh: &std::sync::Arc<LocalMesh>,
    entries: Vec<EntryChange>,
    event: impl Fn(MeshRef, String, ChangeName) -> EventKind,
) {
    let replica = mesh.replica().clone();
    let named = blocking(move || {
        let stood = Stood::before(&entries);
        let named = entries.iter().filter_map(|change| {
            let shown = change.after.as_ref().or(change.before.as_ref())?;
            // A path that cannot be read any more is one that changed again: its own news follows.
            let path = match replica.path_of(&shown.key) {
                Ok(Some(path)) => path.display().to_string(),
                Ok(None) | Err(_) => shown.name.display().to_string(),
            };
            let conflict = stood.is_new(change);
            Some((path, what_happened(change)?, conflict))
        });
        named.collect::<Vec<_>>()
    });
    for (path, change, conflict) in named.await {
        node.events()
            .raise(event(mesh.reference(), path.clone(), change));
        if conflict {
            node.events().raise(EventKind::ConflictAppeared {
                mesh: mesh.reference(),
                path,
            });
        }
    }
}

fn what_happened(change: &EntryChange) -> Option<ChangeName> {
    match (&change.before, &change.after) {
        (None, None) => None,
        (None, Some(_)) => Some(ChangeName::Created),
        (Some(_), None) => Some(ChangeName::Removed),
        (Some(before), Some(after)) => {
            let moved = before.parent != after.parent || before.name != after.name;
            Some(if moved {
                ChangeName::Moved
            } else {
                ChangeName::Changed
            })
        }
    }
}

/// The conflict copies that stood before a change: by key, and by place.
struct Stood<'a> {
    keys: HashSet<EntryKey>,
    places: HashSet<(EntryId, &'a str)>,
}

impl<'a> Stood<'a> {
    fn before(changes: &'a [EntryChange]) -> Self {
        let copies = || {
            let before = changes.iter().filter_map(|change| change.before.as_ref());
            before.filter(|entry| entry.conflict)
        };
        Self {
            keys: copies().map(|entry| entry.key).collect(),
            places: copies()
                .map(|entry| (entry.parent, entry.name.as_str()))
                .collect(),
        }
    }

    /// A copy that only became an entry of its own, under the name that it had, is none that appeared.
    fn is_new(&self, change: &EntryChange) -> bool {
        change.after.as_ref().is_some_and(|after| {
            after.conflict
                && !self.keys.contains(&after.key)
                && !self.places.contains(&(after.parent, after.name.as_str()))
        })
    }
}

/// Carries a change of the members: tells it, and has the folders look anew when this device may do other things now.
pub(crate) async fn follow_members(node: &Node, mesh: &LocalMesh) {
    tell_members(node, mesh);
    if !mesh.has_other_role() {
        return;
    }
    if let Some(removed) = node.removal(mesh) {
        tracing::warn!(
            mesh = mesh.name(),
            by = removed.by,
            "this device was removed"
        );
        node.events().raise(EventKind::DeviceRemoved {
            mesh: mesh.reference(),
            by: removed.by,
            name: removed.by_name,
        });
    }
    for folder in mesh.folders() {
        folder.rescan().await;
    }
}

/// Tells the followers which devices became members.
fn tell_members(node: &Node, mesh: &LocalMesh) {
    for member in mesh.newly_admitted() {
        node.note_newcomer(mesh.id(), &member);
        node.events().raise(EventKind::MemberAdmitted {
            mesh: mesh.reference(),
            device: member.device.to_string(),
            name: crate::status::shown(&member.name),
            role: member.role.into(),
        });
    }
}
