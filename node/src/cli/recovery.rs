//! `recovery` and `recover`: a phrase on paper that makes a device admin when no admin is left.
//!
//! The phrase is made here and shown once, on a terminal only; the node and the mesh hear of its public key.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use wormhole_node::api::{MemberReply, RecoverRequest, RecoveryReply, RecoveryRequest};
use wormhole_node::recovery::Phrase;
use zeroize::Zeroizing;

use super::output::printable;
use super::{CliError, Desk, note};

/// More than any phrase.
const LONGEST_LINE: u64 = 1024;

pub(super) async fn make(desk: &Desk, mesh: String) -> Result<(), CliError> {
    let client = desk.client().await?;
    if !desk.output.is_lively() || !io::stdin().is_terminal() {
        return Err(CliError::Usage {
            problem: "a recovery phrase is shown on a terminal only",
            advice: "run this in a terminal, without --json and without a pipe",
        });
    }
    let phrase = Phrase::random().map_err(|_| CliError::Usage {
        problem: "the system gives no random bytes",
        advice: "try again",
    })?;
    let text = Zeroizing::new(format!(
        "The recovery phrase of \"{}\":\n\n    {}\n\nWhoever has it can become admin of the mesh and remove \
         everybody. It is shown once: write it on paper.\n",
        printable(&mesh),
        *phrase.reveal()
    ));
    desk.output.say(&text)?;
    let answer = ask("Is it on paper? [y/N] ")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return Err(CliError::Usage {
            problem: "the phrase is forgotten, and the mesh is as it was",
            advice: "run the command again for another one",
        });
    }
    let request = RecoveryRequest {
        mesh,
        key: phrase.public().to_string(),
    };
    let reply: RecoveryReply = client.post("/v1/recovery", &request).await?;
    desk.output.answer(&reply, |reply| {
        format!(
            "The phrase is good for \"{}\": `wormhole recover` on any device of it",
            printable(&reply.mesh.name)
        )
    })
}

pub(super) async fn recover(desk: &Desk, mesh: String) -> Result<(), CliError> {
    let client = desk.client().await?;
    let line = ask("Recovery phrase: ")?;
    let phrase: Phrase = line.trim().parse().map_err(|_| CliError::Usage {
        problem: "that is not a recovery phrase",
        advice: "it has eight groups of four letters and digits; look for a mistyped one",
    })?;
    let request = RecoverRequest {
        mesh,
        phrase: phrase.reveal().to_string(),
    };
    let reply: MemberReply = client.post("/v1/recover", &request).await?;
    desk.output.answer(&reply, |reply| {
        format!(
            "This device is admin of \"{}\" now; `wormhole members` shows whom to remove",
            printable(&reply.mesh.name)
        )
    })
}

/// A line from the terminal, or from a pipe.
fn ask(question: &str) -> Result<Zeroizing<String>, CliError> {
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{question}")
            .and_then(|()| stderr.flush())
            .map_err(CliError::Input)?;
    }
    let mut line = Zeroizing::new(String::new());
    io::Read::take(stdin, LONGEST_LINE)
        .read_line(&mut line)
        .map_err(CliError::Input)?;
    if line.is_empty() {
        note("note: nothing was typed");
    }
    Ok(line)
}
