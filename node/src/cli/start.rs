//! Starting a node in the background, and waiting until it answers.
//!
//! The node is this same program (`wormhole up`) in a session of its own, so that it outlives the
//! terminal. When it fails to start, what it said is the error of the command that wanted it. Two
//! commands may start one at the same time: one of them wins the home's lock, both go on.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use wormhole_node::api::NodeReply;
use wormhole_node::client::{Client, ClientError};

use super::CliError;

/// May a command start a node when there is none?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starting {
    Allowed,
    Forbidden,
}

/// Opening many large meshes after a crash takes a while; more than this is a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is asked; a start takes some tens of milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// How long another process that has the home gets before a start is tried again, at first and at
/// most: it may be opening large meshes, or be about to end.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(5);

/// A client of a node that answers.
pub(super) async fn client(home: &Path, starting: Starting) -> Result<Client, CliError> {
    let client = Client::of_home(home)?;
    if running(&client).await?.is_some() {
        return Ok(client);
    }
    match starting {
        Starting::Forbidden => Err(CliError::NotRunning {
            home: home.to_owned(),
        }),
        Starting::Allowed => {
            background(home, &[], &client).await?;
            Ok(client)
        }
    }
}

/// Who answers in this home, if somebody does.
pub(super) async fn running(client: &Client) -> Result<Option<NodeReply>, CliError> {
    running_within(PATIENCE, client).await
}

async fn running_within(
    patience: Duration,
    client: &Client,
) -> Result<Option<NodeReply>, CliError> {
    match tokio::time::timeout(patience, client.get("/v1/node", &())).await {
        Ok(Ok(node)) => Ok(Some(node)),
        Ok(Err(ClientError::NotRunning { .. })) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_elapsed) => Err(CliError::Silent {
            seconds: patience.as_secs(),
        }),
    }
}

/// Starts `wormhole up` with `arguments` and returns when it answers.
pub(super) async fn background(
    home: &Path,
    arguments: &[OsString],
    client: &Client,
) -> Result<NodeReply, CliError> {
    let deadline = Instant::now() + PATIENCE;
    let mut child = spawn(home, arguments)?;
    let mut again = AGAIN;
    loop {
        // A node that stops at this very moment breaks the connection: ask again.
        if let Ok(Some(node)) = running(client).await {
            return Ok(node);
        }
        if let Ok(Some(status)) = child.try_wait() {
            if status.code() != Some(i32::from(crate::HOME_IN_USE)) {
                let said = last_words(&mut child).await;
                return Err(CliError::StartFailed {
                    said,
                    log: home.join("node.log"),
                });
            }
            // Somebody else starts a node here, or one is about to end: wait for either.
            match answer_within(again, client).await {
                Some(node) => return Ok(node),
                None => child = spawn(home, arguments)?,
            }
            again = (again * 2).min(AGAIN_MOST);
        }
        if Instant::now() > deadline {
            let seconds = PATIENCE.as_secs();
            return Err(CliError::StartTimedOut {
                seconds,
                log: home.join("node.log"),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits for the node that somebody else starts.
async fn answer_within(span: Duration, client: &Client) -> Option<NodeReply> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Ok(Some(node)) = running(client).await {
            return Some(node);
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

fn spawn(home: &Path, arguments: &[OsString]) -> Result<Child, CliError> {
    let program = |source| CliError::Program {
        path: "wormhole".into(),
        source,
    };
    let path = std::env::current_exe().map_err(program)?;
    // Whoever started this command may wait for the end of a pipe, or for a lock, that it handed down.
    close_fds::set_fds_cloexec_threadsafe(FIRST_INHERITED, &[]);
    Command::new(&path)
        .arg("--home")
        .arg(home)
        .args(["up", "--own-session"])
        .args(arguments)
        // The node must not keep a disk busy that its user wants to unmount.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| CliError::Program { path, source })
}

/// All descriptors but the standard streams.
const FIRST_INHERITED: i32 = 3;

async fn last_words(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What could be read before an error is all that can be told.
        drop(stderr.take(LAST_WORDS_BYTES).read_to_end(&mut said).await);
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().trim_start_matches("wormhole: ");
    if said.is_empty() {
        "it ended without a word".to_owned()
    } else {
        said.to_owned()
    }
}

/// A message with all its causes; more than this is noise.
const LAST_WORDS_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_never_answers_is_told_and_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let client = Client::of_home(home.path()).unwrap();
        let _frozen = tokio::net::UnixListener::bind(client.socket()).unwrap();
        let answer = running(&client).await;
        assert!(
            matches!(answer, Err(CliError::Silent { seconds: 60 })),
            "{answer:?}"
        );
    }
}
