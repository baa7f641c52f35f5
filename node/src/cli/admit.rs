//! `admit`, `refuse`, and `--wait` of `share` and `invite`: who comes with an invite.

use wormhole_node::api::{
    AskingInfo, AskingReply, DecideReply, DecideRequest, InviteReply, MeshRef,
};
use wormhole_node::client::Events;
use wormhole_node::event::EventKind;

use super::figure::{duration, until};
use super::output::{note, printable};
use super::table::table;
use super::{CliError, Desk, status};

pub(super) async fn list(desk: &Desk) -> Result<(), CliError> {
    let reply: AskingReply = desk.client().await?.get("/v1/asking", &()).await?;
    desk.output.answer(&reply, |reply| {
        if reply.devices.is_empty() {
            return "No device waits to be let in".to_owned();
        }
        let rows: Vec<_> = reply.devices.iter().map(row).collect();
        let head = ["DEVICE", "ID", "MESH", "AS", "FINGERPRINT", "FOR"];
        let mut text = table(head, &rows);
        text.push_str("Compare the fingerprint, then: wormhole admit DEVICE, or refuse DEVICE\n");
        text
    })
}

fn row(asking: &AskingInfo) -> [String; 6] {
    [
        asking.name.clone(),
        asking.device.chars().take(8).collect(),
        asking.mesh.name.clone(),
        status::role(asking.role).to_owned(),
        asking.words.clone(),
        duration(until(asking.expires_ms)),
    ]
}

pub(super) async fn decide(desk: &Desk, device: String, admit: bool) -> Result<(), CliError> {
    let request = DecideRequest { device, admit };
    let reply: DecideReply = desk.client().await?.post("/v1/decide", &request).await?;
    desk.output.answer(&reply, |reply| {
        let name = printable(&reply.device.name);
        let mesh = printable(&reply.device.mesh.name);
        if reply.admitted {
            let role = status::role(reply.device.role);
            format!(
                "Letting {name} into \"{mesh}\" as {role} ({})",
                reply.device.words
            )
        } else {
            format!("{name} is not let into \"{mesh}\", and its invite is over")
        }
    })
}

/// Stays until a device has joined with an invite, and says who. `events` was begun before the invite was made.
pub(super) async fn until_joined(
    desk: &Desk,
    mut events: Events,
    invite: &InviteReply,
) -> Result<(), CliError> {
    let is_it = |mesh: &MeshRef| mesh.id == invite.mesh.id;
    while let Some(event) = events.next().await? {
        match event.kind {
            EventKind::JoinAsked {
                mesh, name, words, ..
            } if is_it(&mesh) && desk.output.is_for_people() => {
                let name = printable(&name);
                note(&format!(
                    "{name} ({words}) waits to be let in: `wormhole admit {name}`, or refuse"
                ));
            }
            EventKind::InviteUsed {
                ref mesh,
                ref name,
                role,
                ..
            } if is_it(mesh) => {
                let role = role.map_or(String::new(), |role| format!(" as {}", status::role(role)));
                let (name, mesh) = (printable(name), printable(&mesh.name));
                return desk
                    .output
                    .answer(&event.kind, |_| format!("{name} joined \"{mesh}\"{role}"));
            }
            EventKind::InviteBurnt { mesh } if is_it(&mesh) => {
                return Err(CliError::InviteOver {
                    how: "was destroyed by wrong codes",
                });
            }
            EventKind::InviteExpired { mesh } if is_it(&mesh) => {
                return Err(CliError::InviteOver {
                    how: "was not used in time",
                });
            }
            EventKind::Missed { .. } if desk.output.is_for_people() => {
                note(
                    "some of what happened was missed: `wormhole members` lists who is in the mesh",
                );
            }
            _ => {}
        }
    }
    Err(CliError::InviteOver {
        how: "ended with the node",
    })
}
