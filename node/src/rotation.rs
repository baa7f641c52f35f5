//! Has a new secret made when somebody who knows the current one is no member any more.
//!
//! Whoever removes a device makes one at once (`wormhole_crdt::Replica::revoke`). A device that goes by itself cannot: the
//! next admin does. So that not all of them do it at the same moment, they take turns in the order of their ids;
//! when two do all the same, that costs a list of keys and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use wormhole_crdt::{Change, DeviceId, Member, MemberError, Observer, Replica, Role};

use crate::node::{LocalMesh, blocking, now};

/// How much longer each admin waits for those before it: about as long as news needs to a connected device and back.
const TURN: Duration = Duration::from_secs(30);

/// After so many turns everybody makes one.
const MOST_TURNS: u32 = 20;

/// Hears when the membership changes.
#[derive(Debug, Default)]
struct Listener(Notify);

impl Observer for Listener {
    fn changed(&self, change: &Change) {
        if change.members {
            self.0.notify_one();
        }
    }
}

/// Looks after a mesh's secret until the mesh stops.
pub(crate) async fn follow(mesh: Arc<LocalMesh>) {
    let listener = Arc::new(Listener::default());
    let _subscription = mesh.replica().subscribe(listener.clone());
    loop {
        tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            () = rotate_in_turn(&mesh) => {}
        }
        tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            () = listener.0.notified() => {}
        }
    }
}

async fn rotate_in_turn(mesh: &LocalMesh) {
    let is_needed = || {
        let replica = mesh.replica().clone();
        blocking(move || replica.needs_rotation())
    };
    let turn = |replica: &Replica| turn_of(&replica.device(), &replica.members());
    let Some(turn) = turn(mesh.replica()) else {
        return;
    };
    if !is_needed().await {
        return;
    }
    tokio::time::sleep(TURN * turn).await;
    let replica = mesh.replica().clone();
    let made: Result<bool, MemberError> = blocking(move || replica.rotate_if_needed(now())).await;
    match made {
        Ok(true) => tracing::info!(mesh = mesh.name(), "made a new secret for those who stay"),
        Ok(false) => {}
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(mesh = mesh.name(), error, "no new secret can be made");
        }
    }
}

/// How many admins come before this device; `None` when it is none.
fn turn_of(device: &DeviceId, members: &[Member]) -> Option<u32> {
    let admins = members.iter().filter(|member| member.role == Role::Admin);
    let mut admins: Vec<DeviceId> = admins.map(|member| member.device).collect();
    admins.sort_unstable();
    let turn = admins.iter().position(|admin| admin == device)?;
    Some(u32::try_from(turn).unwrap_or(MOST_TURNS).min(MOST_TURNS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wormhole_crdt::Timestamp;

    #[test]
    fn admins_take_turns_and_nobody_else_does() {
        let member = |number: u8, role| Member {
            device: DeviceId::from_bytes([number; 32]),
            name: String::new(),
            role,
            admitted_by: None,
            admitted_at: Timestamp(0),
        };
        let members = [
            member(3, Role::Admin),
            member(2, Role::Writer),
            member(1, Role::Admin),
        ];
        let turn = |number: u8| turn_of(&DeviceId::from_bytes([number; 32]), &members);
        assert_eq!([1, 2, 3, 4].map(turn), [Some(0), None, Some(1), None]);
    }
}
