//! `share` and `invite`: a new mesh, and how other devices get into it.

use std::io::{self, IsTerminal};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use wormhole_node::api::{
    InviteReply, InviteRequest, InvitesReply, Problem, Progress, RoleName, ShareReply,
    ShareRequest, Stage,
};

use super::args::{Invite, Share};
use super::figure::{bytes, duration, many, until};
use super::follow::Spinner;
use super::output::printable;
use super::{CliError, Desk, admit, interruptible, told};

pub(super) async fn run(desk: &Desk, share: Share) -> Result<(), CliError> {
    let request = ShareRequest {
        dir: told(&share.dir)?,
        name: share.name,
        role: Some(share.offer.role),
        ttl_seconds: Some(share.offer.ttl.as_secs()),
        ask: share.offer.asks(),
    };
    let client = desk.client().await?;
    let events = client.events().await?;
    let spinner = Spinner::new(desk.output);
    let mut progress = |step: &Progress| spinner.show(&stage_text(step));
    let sharing = client.steps("/v1/share", &request, &mut progress);
    let reply: ShareReply = interruptible(sharing, GOES_ON).await?;
    spinner.clear();
    desk.output.answer(&reply, share_text)?;
    if share.offer.wait {
        let joined = admit::until_joined(desk, events, &reply.invite);
        interruptible(joined, STAYS_GOOD).await?;
    }
    Ok(())
}

const STAYS_GOOD: &str = "the invite stays good: `wormhole invite --list` shows it";

/// Half a share would be worse than a whole one.
const GOES_ON: &str = "the node goes on and shares the directory: `wormhole invite --list` shows the code when it has \
    one, and `wormhole leave MESH --yes` undoes it";

pub(super) async fn invite(desk: &Desk, invite: Invite) -> Result<(), CliError> {
    let client = desk.client().await?;
    let Some(mesh) = invite.mesh.filter(|_| !invite.list) else {
        let reply: InvitesReply = client.get("/v1/invites", &()).await?;
        return desk.output.answer(&reply, invites_text);
    };
    let offer = &invite.offer;
    let request = InviteRequest {
        mesh,
        role: Some(offer.role),
        ttl_seconds: Some(offer.ttl.as_secs()),
        ask: offer.asks(),
    };
    let events = client.events().await?;
    let reply: InviteReply = client.post("/v1/invites", &request).await?;
    desk.output.answer(&reply, titled)?;
    if offer.wait {
        interruptible(admit::until_joined(desk, events, &reply), STAYS_GOOD).await?;
    }
    Ok(())
}

fn titled(reply: &InviteReply) -> String {
    let name = printable(&reply.mesh.name);
    format!("Invite to \"{name}\"\n{}", invite_text(reply))
}

fn invites_text(reply: &InvitesReply) -> String {
    if reply.invites.is_empty() {
        return "No invite is open".to_owned();
    }
    let invites: Vec<String> = reply.invites.iter().map(titled).collect();
    invites.join("\n")
}

fn stage_text(step: &Progress) -> String {
    match step.stage {
        Stage::Scanning => {
            format!(
                "Reading {} ({})",
                many(step.files, "file"),
                bytes(step.bytes)
            )
        }
        Stage::Inviting => "Making a code".to_owned(),
        Stage::Meeting | Stage::Waiting | Stage::Opening => {
            super::join::stage_text(step.stage).to_owned()
        }
    }
}

fn share_text(reply: &ShareReply) -> String {
    let mut text = format!(
        "Sharing {} as mesh \"{}\" ({}, {}, nothing was copied)\n",
        printable(&reply.dir.to_string_lossy()),
        printable(&reply.mesh.name),
        many(reply.files, "file"),
        bytes(reply.bytes),
    );
    text.push_str(&problem_lines(&reply.problems));
    text.push_str(&invite_text(&reply.invite));
    text
}

/// Lines about files that are not synced; all of them are in `status`.
pub(super) fn problem_lines(problems: &[Problem]) -> String {
    const SHOWN: usize = 5;
    let mut text = String::new();
    for problem in problems.iter().take(SHOWN) {
        text.push_str(&format!(
            "  ! {}: {}",
            printable(&problem.path),
            problem.reason
        ));
        if !problem.action.is_empty() {
            text.push_str(&format!(" ({})", problem.action));
        }
        text.push('\n');
    }
    if let Some(more) = problems.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(
            "  ! and {more} more: see `wormhole status --json`\n"
        ));
    }
    text
}

fn invite_text(invite: &InviteReply) -> String {
    let span = duration(until(invite.expires_ms));
    let role = match invite.role {
        RoleName::Writer => String::new(),
        RoleName::Admin | RoleName::Reader | RoleName::Seed => {
            format!(", as {}", super::status::role(invite.role))
        }
    };
    let mut text = format!("Join code:  {}\n", invite.code);
    text.push_str(&format!("            good for one device, {span}{role}\n"));
    if invite.ask {
        text.push_str("            who comes with it waits for: wormhole admit\n");
    }
    text.push_str(&format!("Link:       {}\n", invite.link));
    if io::stdout().is_terminal() {
        text.push_str(&qr(&invite.link));
    }
    text.push_str("On the other device:  wormhole join\n");
    text
}

/// The link as a QR code of half-block characters; nothing when it does not fit the terminal.
fn qr(link: &str) -> String {
    let Ok(code) = QrCode::new(link) else {
        return String::new();
    };
    const QUIET_ZONE: usize = 8;
    let columns = code.width() + QUIET_ZONE;
    let terminal = rustix::termios::tcgetwinsize(io::stdout());
    if terminal.is_ok_and(|size| usize::from(size.ws_col) < columns) {
        return format!(
            "            (a terminal of {columns} columns would show it as a QR code)\n"
        );
    }
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Dark)
        .light_color(Dense1x2::Light)
        .build();
    // Scanners want dark on light, whatever colours the terminal has.
    const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
    const AS_BEFORE: &str = "\x1b[0m";
    let lines = image.lines();
    lines
        .map(|line| format!("{BLACK_ON_WHITE}{line}{AS_BEFORE}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_a_square_of_blocks_dark_on_light_on_every_terminal() {
        let code = qr("wormhole://join/abc");
        let plain = |line: &str| {
            let line = line.strip_prefix("\x1b[38;5;16;48;5;231m")?;
            Some(line.strip_suffix("\x1b[0m")?.to_owned())
        };
        let lines: Vec<String> = code.lines().map(|line| plain(line).unwrap()).collect();
        let width = lines.first().unwrap().chars().count();
        assert!(lines.len() >= 14 && lines.iter().all(|line| line.chars().count() == width));
        // The quiet zone is light, and a finder pattern in the corner begins dark.
        assert!(lines[0].chars().all(|block| block == ' '));
        assert_eq!(lines[2].chars().nth(4), Some('\u{2588}'));
    }

    #[test]
    fn only_some_problems_are_shown_and_the_rest_is_counted() {
        let problem = Problem {
            path: "a\n".into(),
            reason: "r".into(),
            action: String::new(),
        };
        let text = problem_lines(&vec![problem; 7]);
        assert_eq!(text.lines().count(), 6);
        assert!(text.ends_with("and 2 more: see `wormhole status --json`\n"));
    }
}
