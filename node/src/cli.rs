//! The command line: what each command asks of the node, and how its answer looks.
//!
//! Glue only. Every command but `up`, `demo`, `completions` and `man` is a client of the local API
//! (see [`wormhole_node::client`]) and starts the node in the background when there is none. Exit
//! codes are `main`'s.

mod admit;
mod args;
mod control;
mod error;
mod figure;
mod follow;
mod join;
mod manual;
mod member;
mod output;
mod recovery;
mod share;
mod start;
mod status;
mod table;
mod trash;
mod tree;
mod up;

use std::path::{Path, PathBuf};

use wormhole_node::client::Client;
use wormhole_node::home::Home;

use args::{Command, Global};
pub(crate) use args::{Demo, Line};
pub(crate) use error::CliError;
pub(crate) use figure::{bytes, count, duration};
pub(crate) use follow::watch;
pub(crate) use output::{Output, json, note};
use start::Starting;

/// How a command that did not fail has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    NotInSync,
    /// Something stored is damaged and could not be healed.
    Damaged,
}

/// What every command needs: a home, a way to answer, and leave to start a node or not.
#[derive(Debug)]
struct Desk {
    home: PathBuf,
    output: Output,
    starting: Starting,
}

impl Desk {
    /// A client of a node that runs, started first if need be.
    async fn client(&self) -> Result<Client, CliError> {
        start::client(&self.home, self.starting).await
    }
}

/// Runs one command.
///
/// # Errors
///
/// A [`CliError`]; nothing has been printed about it yet.
pub(crate) fn run(line: Line) -> Result<Outcome, CliError> {
    let Line { global, command } = line;
    match command {
        Command::Completions { shell } => manual::completions(shell).map(|()| Outcome::Done),
        Command::Man => manual::page().map(|()| Outcome::Done),
        Command::Demo(demo) => {
            runtime()?.block_on(crate::demo::run(demo, Output::new(global.json)))
        }
        command => {
            let desk = desk(global)?;
            runtime()?.block_on(dispatch(&desk, command))
        }
    }
}

fn desk(global: Global) -> Result<Desk, CliError> {
    let home = match global.home {
        Some(home) => absolute(&home)?,
        None => Home::default_dir()?,
    };
    let starting = if global.no_start {
        Starting::Forbidden
    } else {
        Starting::Allowed
    };
    Ok(Desk {
        home,
        output: Output::new(global.json),
        starting,
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)
}

async fn dispatch(desk: &Desk, command: Command) -> Result<Outcome, CliError> {
    match command {
        Command::Wait(wait) => return follow::wait(desk, wait).await,
        Command::Join(join) => return join::run(desk, join).await,
        Command::Check { mesh } => return control::check(desk, mesh).await,
        Command::Up(up) => up::run(desk, up).await?,
        Command::Down => up::down(desk).await?,
        Command::Status { path: Some(path) } => status::explain(desk, &path).await?,
        Command::Status { path: None } => status::run(desk).await?,
        Command::Events => status::events(desk).await?,
        Command::Share(share) => share::run(desk, share).await?,
        Command::Invite(invite) => share::invite(desk, invite).await?,
        Command::Admit { device: None } => admit::list(desk).await?,
        Command::Admit {
            device: Some(device),
        } => admit::decide(desk, device, true).await?,
        Command::Refuse { device } => admit::decide(desk, device, false).await?,
        Command::Sync { place, dir } => control::sync(desk, place, &dir).await?,
        Command::Leave(leave) => control::leave(desk, leave).await?,
        Command::Recovery { mesh } => recovery::make(desk, mesh).await?,
        Command::Recover { mesh } => recovery::recover(desk, mesh).await?,
        Command::Revoke(revoke) => member::revoke(desk, revoke).await?,
        Command::Role { device, role, mesh } => member::role(desk, device, role, mesh).await?,
        Command::Unbind { dir } => control::unbind(desk, &dir).await?,
        Command::Move { dir, to } => control::move_folder(desk, &dir, &to).await?,
        Command::Rescan { dir } => control::rescan(desk, &dir).await?,
        Command::Trash { dir } => trash::list(desk, dir.as_deref()).await?,
        Command::Restore { path, version } => trash::restore(desk, &path, version).await?,
        Command::ConfirmDeletions { dir, undo } => {
            control::confirm_deletions(desk, &dir, undo).await?;
        }
        Command::Pause { mesh } => control::pause(desk, mesh).await?,
        Command::Resume { mesh } => control::resume(desk, mesh).await?,
        Command::Limit(limit) => control::limit(desk, &limit).await?,
        Command::Dial { peer } => control::dial(desk, peer).await?,
        Command::Ls { place } => tree::list(desk, place).await?,
        Command::Cat { place } => tree::cat(desk, place).await?,
        Command::Conflicts { mesh } => tree::conflicts(desk, mesh).await?,
        Command::Resolve { path, keep } => tree::resolve(desk, &path, keep).await?,
        Command::Meshes => status::meshes(desk).await?,
        Command::Members { mesh } => status::members(desk, &mesh).await?,
        Command::Peers => status::peers(desk).await?,
        Command::Transfers => status::transfers(desk).await?,
        // Handled before there was a desk.
        Command::Demo(_) | Command::Completions { .. } | Command::Man => {}
    }
    Ok(Outcome::Done)
}

/// Waits for something long, or until the user has enough of it. Once this has been used, Ctrl-C ends nothing else.
async fn interruptible<R, E>(
    operation: impl Future<Output = Result<R, E>>,
    advice: &'static str,
) -> Result<R, CliError>
where
    CliError: From<E>,
{
    tokio::select! {
        reply = operation => Ok(reply?),
        pressed = tokio::signal::ctrl_c() => {
            pressed.map_err(CliError::Signals)?;
            Err(CliError::Interrupted { advice })
        }
    }
}

/// `path` from the root; the node does not know the directory that we are in.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// The same of a path that the node is told: names in a mesh are UTF-8, and so is the API.
fn told(path: &Path) -> Result<PathBuf, CliError> {
    let path = absolute(path)?;
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err(CliError::NotUtf8 { path }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_path_that_is_not_utf8_is_named_with_the_reason() {
        let refused = told(Path::new(OsStr::from_bytes(b"/folder/caf\xe9"))).unwrap_err();
        let message = refused.to_string();
        assert!(message.contains("/folder/caf\\xe9"), "{message}");
        assert!(message.contains("UTF-8"), "{message}");
        assert!(refused.hint().is_some());
    }
}
