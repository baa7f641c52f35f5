//! Turns what the network and the folders tell into events.
//!
//! Each function is a task that ends with the node or with what it follows. All of it only tells:
//! losing an event here loses no state.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use wormhole_crdt::{DeviceId, MeshId};
use wormhole_mesh::NetworkEvent;
use wormhole_store::ContentId;
use wormhole_vfs::{Folder, FolderStatus};

use crate::api::{MeshRef, TransferInfo};
use crate::event::EventKind;
use crate::node::{LocalMesh, Node};
use crate::status;

/// How often transfers are looked at, while somebody follows.
const TRANSFER_TICK: Duration = Duration::from_secs(1);

/// Follows the network: peers and invites.
pub(crate) async fn network(node: Node) {
    let mut events = node.network().events();
    loop {
        let event = tokio::select! {
            biased;
            () = node.tasks().cancel().cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(event) => network_event(&node, event).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "missed events of the network");
                wake_all(&node).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn network_event(node: &Node, event: NetworkEvent) {
    let events = node.events();
    match event {
        // Whoever is in no mesh of ours, or has not proved it yet, has nothing to fetch: a
        // stranger's connection must not set folders to work.
        NetworkEvent::PeerUp { device, path } => {
            let name = name_of(node, &device);
            let device = device.to_string();
            events.raise(EventKind::PeerUp {
                device,
                name,
                path: path.into(),
            });
        }
        NetworkEvent::MemberPresent { mesh, device: _ } => {
            if let Some(mesh) = node.local_mesh(&mesh) {
                mesh.poke().await;
            }
        }
        NetworkEvent::PeerDown { device } => {
            let name = name_of(node, &device);
            events.raise(EventKind::PeerDown {
                device: device.to_string(),
                name,
            });
        }
        NetworkEvent::PeerMisbehaved { device, reason } => {
            let reason = reason.to_string();
            events.raise(EventKind::PeerMisbehaved {
                device: device.to_string(),
                reason,
            });
        }
        NetworkEvent::SameKey { addr } => node.note_twin(addr),
        event => invite_event(node, event),
    }
}

/// What became of an invite.
fn invite_event(node: &Node, event: NetworkEvent) {
    let events = node.events();
    match event {
        NetworkEvent::InviteUsed { mesh, device } => {
            let local = node.local_mesh(&mesh);
            let role = local.and_then(|mesh| mesh.replica().role_of(&device));
            let Some(mesh) = reference(node, &mesh) else {
                return;
            };
            let name = name_of(node, &device);
            tracing::info!(mesh = mesh.name, name, "a device joined with an invite");
            events.raise(EventKind::InviteUsed {
                mesh,
                device: device.to_string(),
                name,
                role: role.map(Into::into),
            });
        }
        NetworkEvent::JoinAsked {
            mesh,
            device,
            name,
            role,
        } => {
            let Some(mesh) = reference(node, &mesh) else {
                return;
            };
            events.raise(EventKind::JoinAsked {
                mesh,
                device: device.to_string(),
                name: status::shown(&name),
                words: wormhole_mesh::words(&device),
                role: role.into(),
            });
        }
        NetworkEvent::InviteBurnt { mesh } => {
            let Some(mesh) = reference(node, &mesh) else {
                return;
            };
            tracing::warn!(mesh = mesh.name, "an invite was used up by wrong codes");
            events.raise(EventKind::InviteBurnt { mesh });
        }
        NetworkEvent::InviteExpired { mesh } => {
            let Some(mesh) = reference(node, &mesh) else {
                return;
            };
            events.raise(EventKind::InviteExpired { mesh });
        }
        // The network may learn to tell more before this program does.
        _ => {}
    }
}

/// Somebody new may have what was missing.
async fn wake_all(node: &Node) {
    for mesh in node.local_meshes() {
        mesh.poke().await;
    }
}

fn reference(node: &Node, mesh: &MeshId) -> Option<MeshRef> {
    node.local_mesh(mesh).map(|mesh| mesh.reference())
}

/// What people call a device: its name as a member of one of our meshes, or what it calls itself.
pub(crate) fn name_of(node: &Node, device: &DeviceId) -> String {
    let member = node.local_meshes().into_iter().find_map(|mesh| {
        mesh.replica()
            .members()
            .into_iter()
            .find(|member| member.device == *device)
    });
    let peer = || {
        node.network()
            .peers()
            .into_iter()
            .find(|peer| peer.device == *device)
    };
    match member
        .map(|member| member.name)
        .or_else(|| peer().and_then(|peer| peer.name))
    {
        Some(name) => status::shown(&name),
        None => device.to_string().chars().take(8).collect(),
    }
}

/// Follows transfers: looks once a second, and only while somebody follows.
pub(crate) async fn transfers(node: Node) {
    let mut tick = tokio::time::interval(TRANSFER_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut known: BTreeMap<TransferKey, Known> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = node.tasks().cancel().cancelled() => return,
            _ = tick.tick() => {}
        }
        if !node.events().is_followed() {
            known.clear();
            continue;
        }
        let now = keyed(&node);
        for event in compare(&mut known, &now) {
            node.events().raise(event);
        }
    }
}

/// What a transfer is known by: two files of one name, or one file at two places, are two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TransferKey {
    mesh: MeshId,
    content: ContentId,
    path: Arc<str>,
}

/// What a transfer was when it was looked at last.
#[derive(Debug, Clone)]
struct Known {
    mesh: MeshRef,
    path: String,
    done_bytes: u64,
}

/// Transfers, under what each is known by.
fn keyed(node: &Node) -> Vec<(TransferKey, TransferInfo)> {
    let transfers = node.network().transfers().into_iter();
    let known = transfers.filter_map(|transfer| {
        let mesh = node.local_mesh(&transfer.mesh)?;
        let key = TransferKey {
            mesh: transfer.mesh,
            content: transfer.content.id,
            path: transfer.label.clone(),
        };
        Some((key, status::transfer(&mesh, &transfer)))
    });
    known.collect()
}

/// What changed since the last look; `known` becomes what is now.
fn compare(
    known: &mut BTreeMap<TransferKey, Known>,
    now: &[(TransferKey, TransferInfo)],
) -> Vec<EventKind> {
    let mut before = std::mem::take(known);
    let mut events = Vec::new();
    for (key, transfer) in now {
        let TransferInfo {
            mesh,
            path,
            done_bytes,
            total_bytes,
            ..
        } = transfer.clone();
        let seen = Known {
            mesh: mesh.clone(),
            path: path.clone(),
            done_bytes,
        };
        match before.remove(key) {
            None => {
                events.push(EventKind::TransferStarted {
                    mesh,
                    path,
                    total_bytes,
                });
            }
            Some(before) if before.done_bytes != done_bytes => {
                events.push(EventKind::TransferProgress {
                    mesh,
                    path,
                    done_bytes,
                    total_bytes,
                });
            }
            Some(_) => {}
        }
        known.insert(key.clone(), seen);
    }
    for gone in before.into_values() {
        events.push(EventKind::TransferFinished {
            mesh: gone.mesh,
            path: gone.path,
        });
    }
    events
}

/// Follows a folder: its phase and its problems.
pub(crate) fn folder(
    node: Node,
    mesh: &LocalMesh,
    dir: PathBuf,
    folder: &Folder,
) -> impl Future<Output = ()> + Send + use<> {
    let mut statuses = folder.watch();
    let (mesh, stir) = (mesh.reference(), Arc::clone(&mesh.stir));
    async move {
        let mut before = FolderStatus::default();
        loop {
            let now = statuses.borrow_and_update().clone();
            stir.notify_one();
            for event in differences(&mesh, &dir, &before, &now) {
                node.events().raise(event);
            }
            before = now;
            tokio::select! {
                biased;
                () = node.tasks().cancel().cancelled() => return,
                changed = statuses.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn differences(
    mesh: &MeshRef,
    dir: &std::path::Path,
    before: &FolderStatus,
    now: &FolderStatus,
) -> Vec<EventKind> {
    let mut events = Vec::new();
    if before.phase != now.phase {
        let (phase, reason) = status::phase(&now.phase);
        let (mesh, dir) = (mesh.clone(), Some(dir.to_owned()));
        events.push(EventKind::FolderPhase {
            mesh,
            dir,
            phase,
            reason,
        });
    }
    for problem in now
        .problems
        .iter()
        .filter(|problem| !before.problems.contains(problem))
    {
        let problem = status::problem(problem);
        events.push(EventKind::ProblemRaised {
            mesh: mesh.clone(),
            path: problem.path,
            reason: problem.reason,
            action: problem.action,
        });
    }
    for problem in before
        .problems
        .iter()
        .filter(|problem| !now.problems.contains(problem))
    {
        let path = problem.path.to_string();
        events.push(EventKind::ProblemCleared {
            mesh: mesh.clone(),
            path,
        });
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(path: &str, done_bytes: u64) -> (TransferKey, TransferInfo) {
        transfer_of(1, path, done_bytes)
    }

    fn transfer_of(content: u8, path: &str, done_bytes: u64) -> (TransferKey, TransferInfo) {
        let key = TransferKey {
            mesh: MeshId::from_bytes([0xab; 32]),
            content: ContentId::from_bytes([content; 32]),
            path: Arc::from(path),
        };
        let info = TransferInfo {
            mesh: MeshRef {
                id: "ab".to_owned(),
                name: "Designs".to_owned(),
            },
            path: path.to_owned(),
            done_bytes,
            total_bytes: 100,
            bytes_per_s: 1,
            peers: 1,
        };
        (key, info)
    }

    #[test]
    fn two_transfers_of_one_name_are_told_apart() {
        let mut known = BTreeMap::new();
        let now = [transfer_of(1, "a", 0), transfer_of(2, "a", 0)];
        assert_eq!(compare(&mut known, &now).len(), 2);
        assert_eq!(compare(&mut known, &now), [], "neither has begun anew");
    }

    #[test]
    fn a_transfer_is_told_when_it_starts_moves_and_ends() {
        let mut known = BTreeMap::new();
        let events = compare(&mut known, &[transfer("a", 0), transfer("b", 0)]);
        assert!(matches!(
            events.as_slice(),
            [
                EventKind::TransferStarted { .. },
                EventKind::TransferStarted { .. }
            ]
        ));
        let events = compare(&mut known, &[transfer("a", 50), transfer("b", 0)]);
        assert!(matches!(
            events.as_slice(),
            [EventKind::TransferProgress { done_bytes: 50, .. }]
        ));
        let events = compare(&mut known, &[transfer("b", 0)]);
        assert!(matches!(
            events.as_slice(),
            [EventKind::TransferFinished { path, .. }] if path == "a"
        ));
        assert_eq!(compare(&mut known, &[transfer("b", 0)]), []);
    }
}
