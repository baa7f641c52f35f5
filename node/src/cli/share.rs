//! `share` and `invite`: a new mesh, and how other devices get into it.

use std::io::{self, IsTerminal};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use wormhole_node::api::{
    InviteReply, InviteRequest, Problem, Progress, RoleName, ShareReply, ShareRequest, Stage,
};

use super::args::{Offer, Share};
use super::figure::{bytes, duration, many, until};
use super::follow::Spinner;
use super::output::printable;
use super::{CliError, Desk, told};

pub(super) async fn run(desk: &Desk, share: Share) -> Result<(), CliError> {
    let request = ShareRequest {
        dir: told(&share.dir)?,
        name: share.name,
        role: Some(share.offer.role),
        ttl_seconds: Some(share.offer.ttl.as_secs()),
    };
    let client = desk.client().await?;
    let spinner = Spinner::new(desk.output);
    let mut progress = |step: &Progress| spinner.show(&stage_text(step));
    let reply: ShareReply = client.steps("/v1/share", &request, &mut progress).await?;
    spinner.clear();
    desk.output.answer(&reply, share_text)
}

pub(super) async fn invite(desk: &Desk, mesh: String, offer: &Offer) -> Result<(), CliError> {
    let request = InviteRequest {
        mesh,
        role: Some(offer.role),
        ttl_seconds: Some(offer.ttl.as_secs()),
    };
    let reply: InviteReply = desk.client().await?.post("/v1/invites", &request).await?;
    desk.output.answer(&reply, |reply| {
        let name = printable(&reply.mesh.name);
        format!("Invite to \"{name}\"\n{}", invite_text(reply))
    })
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
        Stage::Meeting => "Looking for the device that invited".to_owned(),
        Stage::Opening => "Opening the folder".to_owned(),
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
    // Terminals are dark more often than not: scanners want the light parts lit.
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Dark)
        .light_color(Dense1x2::Light)
        .build();
    format!("{image}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_a_square_of_blocks() {
        let code = qr("wormhole://join/abc");
        let lines: Vec<&str> = code.lines().collect();
        let width = lines.first().unwrap().chars().count();
        assert!(lines.len() >= 14 && lines.iter().all(|line| line.chars().count() == width));
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
