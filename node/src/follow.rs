//! Turns what the network and the folders tell into events.
//!
//! Each function is a task that ends with the node or with what it follows. All of it only tells:
//! losing an event here loses no state.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use wormhole_crdt::{DeviceId, MeshId};
use wormhole_mesh::NetworkEvent;
use wormhole_vfs::{Folder, FolderStatus};

use crate::api::{Direction, MeshRef, TransferInfo};
use crate::event::EventKind;
use crate::node::Node;
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
        NetworkEvent::PeerUp { device, path } => {
            wake_all(node).await;
            let name = name_of(node, &device);
            let device = device.to_string();
            events.raise(EventKind::PeerUp {
                device,
                name,
                path: path.into(),
            });
        }
        NetworkEvent::PeerDown { device } => {
            let name = name_of(node, &device);
            events.raise(EventKind::PeerDown {
                device: device.to_string(),
                name,
            });
        }
        NetworkEvent::PeerMisbehaved { device, reason } => {
            tracing::warn!(%device, %reason, "a peer misbehaved and was cut off");
            let reason = reason.to_string();
            events.raise(EventKind::PeerMisbehaved {
                device: device.to_string(),
                reason,
            });
        }
        NetworkEvent::InviteUsed { mesh, device } => {
            let Some(mesh) = reference(node, &mesh) else {
                return;
            };
            let name = name_of(node, &device);
            events.raise(EventKind::InviteUsed {
                mesh,
                device: device.to_string(),
                name,
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
    let mut known: BTreeMap<TransferKey, u64> = BTreeMap::new();
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
        let now: Vec<TransferInfo> = node.transfers().transfers;
        for event in compare(&mut known, &now) {
            node.events().raise(event);
        }
    }
}

type TransferKey = (String, String, Direction);

/// What changed since the last look; `known` becomes what is now.
fn compare(known: &mut BTreeMap<TransferKey, u64>, now: &[TransferInfo]) -> Vec<EventKind> {
    let mut before = std::mem::take(known);
    let mut events = Vec::new();
    for transfer in now {
        let TransferInfo {
            mesh,
            path,
            direction,
            done_bytes,
            total_bytes,
            ..
        } = transfer.clone();
        let key = (mesh.id.clone(), path.clone(), direction);
        match before.remove(&key) {
            None => {
                events.push(EventKind::TransferStarted {
                    mesh,
                    path,
                    direction,
                    total_bytes,
                });
            }
            Some(done) if done != done_bytes => events.push(EventKind::TransferProgress {
                mesh,
                path,
                direction,
                done_bytes,
                total_bytes,
            }),
            Some(_) => {}
        }
        known.insert(key, done_bytes);
    }
    for (id, path, direction) in before.into_keys() {
        let name = now.iter().find(|transfer| transfer.mesh.id == id);
        let name = name.map_or_else(String::new, |transfer| transfer.mesh.name.clone());
        events.push(EventKind::TransferFinished {
            mesh: MeshRef { id, name },
            path,
            direction,
        });
    }
    events
}

/// Follows a folder: its phase and its problems.
pub(crate) fn folder(
    node: Node,
    mesh: MeshRef,
    dir: PathBuf,
    folder: &Folder,
) -> impl Future<Output = ()> + Send + use<> {
    let mut statuses = folder.watch();
    async move {
        let mut before = FolderStatus::default();
        loop {
            let now = statuses.borrow_and_update().clone();
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

    fn transfer(path: &str, done_bytes: u64) -> TransferInfo {
        TransferInfo {
            mesh: MeshRef {
                id: "ab".to_owned(),
                name: "Designs".to_owned(),
            },
            path: path.to_owned(),
            direction: Direction::Down,
            done_bytes,
            total_bytes: 100,
            bytes_per_s: 1,
            peers: 1,
        }
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
