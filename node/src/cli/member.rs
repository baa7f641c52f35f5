//! `revoke` and `role`: what an admin changes about the devices of a mesh.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use wormhole_node::api::{MemberReply, RevokeRequest, RoleName, RoleRequest};

use super::args::Revoke;
use super::output::printable;
use super::status;
use super::{CliError, Desk};

pub(super) async fn revoke(desk: &Desk, revoke: Revoke) -> Result<(), CliError> {
    let client = desk.client().await?;
    if !revoke.yes {
        ask(&revoke.device)?;
    }
    let request = RevokeRequest {
        mesh: revoke.mesh,
        device: revoke.device,
    };
    let reply: MemberReply = client.post("/v1/revoke", &request).await?;
    desk.output.answer(&reply, |reply| {
        format!(
            "{} is no longer in \"{}\": it gets nothing new. What it had it may keep",
            printable(&reply.name),
            printable(&reply.mesh.name)
        )
    })
}

/// Asks whether the device is meant; nobody is asked by a pipe.
fn ask(device: &str) -> Result<(), CliError> {
    let stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        return Err(CliError::Usage {
            problem: "nobody is there to ask whether the device shall be removed",
            advice: "add --yes",
        });
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "Remove {}? [y/N] ", printable(device))
        .and_then(|()| stderr.flush())
        .map_err(CliError::Input)?;
    let mut line = String::new();
    io::Read::take(stdin, 64)
        .read_line(&mut line)
        .map_err(CliError::Input)?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::Usage {
            problem: "nothing was removed",
            advice: "answer y to remove the device",
        }),
    }
}

pub(super) async fn role(
    desk: &Desk,
    device: String,
    role: RoleName,
    mesh: Option<String>,
) -> Result<(), CliError> {
    let request = RoleRequest { mesh, device, role };
    let reply: MemberReply = desk.client().await?.post("/v1/role", &request).await?;
    desk.output.answer(&reply, |reply| {
        format!(
            "{} is {} in \"{}\" now",
            printable(&reply.name),
            status::role(reply.role),
            printable(&reply.mesh.name)
        )
    })
}
