//! `wormhole demo`: the main job, shown and checked on this machine.
//!
//! Three real nodes (processes of this very program, each with a home of its own, on loopback
//! only) share a folder, edit it at once, lose one another, are killed and come back; at the end
//! all three folders must be the same to the last bit, and nothing that was written may be gone.
//! The story is in `story`, the nodes in `actor`, the sample in `sample`, the proof in `ledger`.

mod actor;
mod ledger;
mod sample;
mod story;
mod tree;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use wormhole_node::client::ClientError;
use wormhole_node::home::HomeError;

use crate::cli::{CliError, Demo, Outcome, Output, note};
use story::Story;

/// Plays the story and cleans up after it.
///
/// # Errors
///
/// A [`DemoError`] that says what did not hold; the folders, homes and logs are then left in place.
pub(crate) async fn run(demo: Demo, output: Output) -> Result<Outcome, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Signals)?;
    let dir = stage()?;
    let mut story = Story::new(&dir, output)?;
    let played = tokio::select! {
        biased;
        _ = interrupt.recv() => Err(DemoError::Interrupted),
        _ = terminate.recv() => Err(DemoError::Interrupted),
        played = story.play(demo.from.as_deref()) => played,
    };
    story.end().await;
    let failed = !matches!(played, Ok(()) | Err(DemoError::Interrupted));
    if demo.keep || failed {
        note(&format!(
            "The folders, homes and logs are left in {}",
            dir.display()
        ));
    } else if let Err(error) = fs::remove_dir_all(&dir) {
        // What the story came to counts more than what stays behind.
        note(&format!("{} could not be removed: {error}", dir.display()));
    }
    played?;
    Ok(Outcome::Done)
}

/// A fresh directory for this user alone.
fn stage() -> Result<PathBuf, DemoError> {
    let dir = std::env::temp_dir().join(format!("wormhole-demo-{}", std::process::id()));
    let made = fs::DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(|source| file_error(&dir, source))?;
    // Where the system's temporary directory is a link, folders and answers would differ by name.
    dir.canonicalize()
        .map_err(|source| file_error(&dir, source))
}

fn file_error(path: &Path, source: io::Error) -> DemoError {
    DemoError::File {
        path: path.to_owned(),
        source,
    }
}

/// Why the demo did not come to its happy end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("interrupted; the three nodes were stopped")]
    Interrupted,
    #[error("cannot use {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error("node {name} does not start (its log is {})", log.display())]
    NoStart { name: &'static str, log: PathBuf },
    #[error("node {name} refused")]
    Refused {
        name: &'static str,
        source: ClientError,
    },
    #[error("node {name} cannot be frozen or thawed")]
    Signal {
        name: &'static str,
        source: io::Error,
    },
    #[error("node {name} listens on no address of this machine")]
    NoAddress { name: &'static str },
    #[error("{} s have passed and this is still not so: {what}", story::PATIENCE.as_secs())]
    NotInTime { what: String },
    #[error("nothing that was shared or written may be lost, and this is: {what}")]
    Lost { what: String },
    #[error("the folder has no directory that could be moved: choose another for --from")]
    NoDirectory,
    #[error("cannot write to the terminal")]
    Output { source: Box<CliError> },
}
