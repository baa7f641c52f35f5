//! `join`: reading the code where nobody else can see it, and following the first sync.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use wormhole_node::api::{JoinReply, JoinRequest, Keep, Progress, Stage};

use super::args::Join;
use super::follow::{self, Spinner};
use super::output::{note, printable};
use super::status::path_name;
use super::{CliError, Desk, told};

pub(super) async fn run(desk: &Desk, join: Join) -> Result<(), CliError> {
    let ticket = ticket(join.ticket.as_deref())?;
    let request = JoinRequest {
        ticket,
        dir: join.dir.as_deref().map(told).transpose()?,
        keep: if join.seed { Keep::Seed } else { Keep::Folder },
        peers: join.peer,
    };
    let client = desk.client().await?;
    let spinner = Spinner::new(desk.output);
    let mut progress = |step: &Progress| spinner.show(stage_text(step.stage));
    let reply: JoinReply = client.steps("/v1/join", &request, &mut progress).await?;
    spinner.clear();
    desk.output.answer(&reply, join_text)?;
    let stay = join.wait || (desk.output.is_lively() && !join.no_wait);
    if stay {
        follow::first_sync(desk, &client, &reply.mesh).await?;
    }
    Ok(())
}

fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Meeting => "Looking for the device that invited",
        Stage::Opening => "Opening the folder",
        Stage::Scanning => "Reading files",
        Stage::Inviting => "Making a code",
    }
}

fn join_text(reply: &JoinReply) -> String {
    let mesh = printable(&reply.mesh.name);
    let from = printable(&reply.from);
    let how = path_name(reply.path);
    let place = match (&reply.dir, reply.keep) {
        (Some(dir), _) => format!("Syncing into {}", printable(&dir.to_string_lossy())),
        (None, Keep::Seed | Keep::Folder) => "Keeping its content for the others".to_owned(),
    };
    format!("Joined \"{mesh}\" from {from} ({how}). {place}")
}

/// The code or link: from a prompt, a pipe, or the arguments if the user insists.
fn ticket(argument: Option<&str>) -> Result<String, CliError> {
    match argument {
        None => read_ticket(),
        Some("-") => read_ticket(),
        Some(text) if looks_like_a_ticket(text) => {
            note("note: while this runs, other users of this machine can see the code");
            Ok(text.to_owned())
        }
        Some(text) if Path::new(text).components().count() > 1 || Path::new(text).exists() => {
            Err(CliError::Usage {
                problem: "the first argument of join is a code or link, not a directory",
                advice: "to be asked for the code and sync into a directory: wormhole join - DIR",
            })
        }
        // Whatever it is, the node says best what is wrong with it.
        Some(text) => Ok(text.to_owned()),
    }
}

fn looks_like_a_ticket(text: &str) -> bool {
    let is_gap = |letter: char| letter == '-' || letter.is_whitespace();
    let (number, words) = text.trim().split_once(is_gap).unwrap_or_default();
    let is_code = !words.is_empty()
        && !number.is_empty()
        && number.chars().all(|digit| digit.is_ascii_digit());
    is_code || text.starts_with("wormhole:")
}

/// The longest line that can hold a link with many addresses.
const TICKET_BYTES_MAX: u64 = 64 << 10;

fn read_ticket() -> Result<String, CliError> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        let mut stderr = io::stderr().lock();
        write!(stderr, "Code: ")
            .and_then(|()| stderr.flush())
            .map_err(CliError::Input)?;
    }
    let mut line = String::new();
    io::Read::take(stdin, TICKET_BYTES_MAX)
        .read_line(&mut line)
        .map_err(CliError::Input)?;
    let ticket = line.trim();
    if ticket.is_empty() {
        return Err(CliError::Usage {
            problem: "there is no code",
            advice: "`wormhole share` or `wormhole invite` on another device makes one",
        });
    }
    Ok(ticket.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_links_are_told_from_directories() {
        assert!(looks_like_a_ticket("7-copper-violin-harvest-lantern"));
        assert!(looks_like_a_ticket(" 7 copper violin harvest lantern"));
        assert!(looks_like_a_ticket("wormhole://join/abc"));
        assert!(!looks_like_a_ticket("my-folder"));
        assert!(!looks_like_a_ticket("7"));
        assert!(matches!(
            ticket(Some("./here")),
            Err(CliError::Usage { .. })
        ));
        assert!(matches!(ticket(Some("/tmp")), Err(CliError::Usage { .. })));
    }
}
