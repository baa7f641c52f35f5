//! `join`: reading the code where nobody else can see it, and following the first sync.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use wormhole_node::api::{
    Agreement, JoinReply, JoinRequest, Keep, Progress, ProposeReply, ProposeRequest, Stage,
};
use wormhole_node::client::Client;

use super::args::Join;
use super::figure::{duration, until};
use super::follow::{self, Spinner};
use super::output::{note, printable};
use super::status::{path_name, role};
use super::{CliError, Desk, Outcome, interruptible, told};

pub(super) async fn run(desk: &Desk, join: Join) -> Result<Outcome, CliError> {
    // Before anything is read: the code would be typed in vain.
    let can_ask = io::stdin().is_terminal() && desk.output.is_for_people();
    if !join.yes && !can_ask {
        return Err(CliError::Usage {
            problem: "nobody can be asked here whether to join what the code leads to",
            advice: "say --yes to join it, whatever it is",
        });
    }
    let ticket = ticket(join.ticket.as_deref())?;
    let dir = join.dir.as_deref().map(told).transpose()?;
    let (stay, no_stay) = (join.wait, join.no_wait);
    let client = desk.client().await?;
    let agreed = if join.yes {
        Agreement::Anything
    } else {
        ask(desk, &client, &ticket, &join.peer).await?
    };
    let request = JoinRequest {
        ticket,
        dir,
        keep: if join.seed { Keep::Seed } else { Keep::Folder },
        peers: join.peer,
        agreed,
    };
    let spinner = Spinner::new(desk.output);
    let mut told = false;
    let mut progress = |step: &Progress| {
        spinner.show(stage_text(step.stage));
        if step.stage == Stage::Waiting && !std::mem::replace(&mut told, true) {
            spinner.say(WAITS);
        }
    };
    let joining = client.steps("/v1/join", &request, &mut progress);
    let reply: JoinReply = interruptible(joining, STOPPED).await?;
    spinner.clear();
    desk.output.answer(&reply, join_text)?;
    let stay = stay || (desk.output.is_lively() && !no_stay);
    if stay {
        let watching = follow::first_sync(desk, &client, &reply.mesh);
        return interruptible(watching, WATCHED).await;
    }
    Ok(Outcome::Done)
}

const WAITS: &str =
    "Somebody has to let this device in: `wormhole admit` on the device that invited";

const STOPPED: &str = "if the other device had let this one in already, the same code lets it in again, as long as \
    it is good";

const WATCHED: &str = "the node goes on: `wormhole status` shows how far it is";

/// Shows what the code leads to, and asks whether to join it.
async fn ask(
    desk: &Desk,
    client: &Client,
    ticket: &str,
    peers: &[String],
) -> Result<Agreement, CliError> {
    let request = ProposeRequest {
        ticket: ticket.to_owned(),
        peers: peers.to_vec(),
    };
    let spinner = Spinner::new(desk.output);
    let mut progress = |step: &Progress| spinner.show(stage_text(step.stage));
    let proposing = client.steps("/v1/propose", &request, &mut progress);
    let proposal: ProposeReply = interruptible(proposing, "nothing was joined").await?;
    spinner.clear();
    note(&proposal_text(&proposal));
    let line = interruptible(prompted("Join it? [y/N] "), "nothing was joined").await?;
    if !matches!(line.trim().to_lowercase().as_str(), "y" | "yes") {
        return Err(CliError::NotAgreed);
    }
    Ok(Agreement::To {
        mesh: proposal.mesh.id,
        role: proposal.role,
        from_device: proposal.from_device,
    })
}

/// A line that the user types. It is read by a thread of its own, which nobody waits for when there is none.
async fn prompted(question: &str) -> Result<String, CliError> {
    {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question}")
            .and_then(|()| stderr.flush())
            .map_err(CliError::Input)?;
    }
    let (typed, line) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let stdin = io::Read::take(io::stdin().lock(), TICKET_BYTES_MAX);
        let read = io::BufReader::new(stdin).read_line(&mut line);
        // Unheard: the user pressed Ctrl-C.
        drop(typed.send(read.map(|_| line)));
    });
    let line = line.await.unwrap_or_else(|_| Ok(String::new()));
    line.map_err(CliError::Input)
}

fn proposal_text(proposal: &ProposeReply) -> String {
    let mesh = printable(&proposal.mesh.name);
    let from = printable(&proposal.from);
    let mut text = format!(
        "{from} invites this device into \"{mesh}\" as {}\n  its fingerprint:    {}",
        role(proposal.role),
        proposal.from_words
    );
    if proposal.ask {
        text.push_str(&format!(
            "\n  your fingerprint:   {}\n  {from} has to let this device in (`wormhole admit`), within {}",
            proposal.words,
            duration(until(proposal.expires_ms))
        ));
    }
    text
}

pub(super) fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Meeting => "Looking for the device that invited",
        Stage::Waiting => "Waiting until somebody lets this device in",
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
