//! Why a command failed, and what its user can do.
//!
//! One family for the whole command line: `main` prints it and derives the exit code from it.

use std::io;
use std::path::PathBuf;

use wormhole_node::client::ClientError;
use wormhole_node::config::ConfigError;
use wormhole_node::error::SpawnError;
use wormhole_node::home::HomeError;
use wormhole_node::log::LogError;

use crate::demo::DemoError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The arguments are well formed and do not make sense.
    #[error("{problem}")]
    Usage {
        problem: &'static str,
        advice: &'static str,
    },
    #[error("no node is running in {}", home.display())]
    NotRunning { home: PathBuf },
    #[error("the node does not start: {said}")]
    StartFailed { said: String, log: PathBuf },
    #[error("the node was started and does not answer after {seconds} s")]
    StartTimedOut { seconds: u64, log: PathBuf },
    #[error("the node does not answer within {seconds} s")]
    Silent { seconds: u64 },
    #[error("cannot start {}", path.display())]
    Program { path: PathBuf, source: io::Error },
    #[error("cannot use {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{} is not valid UTF-8: nothing of that name is synced", path.as_os_str().as_encoded_bytes().escape_ascii())]
    NotUtf8 { path: PathBuf },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Another process holds the home: told apart because a second start may simply wait for it.
    #[error(transparent)]
    HomeInUse(HomeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Spawn(SpawnError),
    /// A fault of the program; the log has the panic's message.
    #[error("the node stopped because a part of it failed ({task})")]
    Crashed { task: &'static str },
    #[error("the node was asked to stop and still runs after {seconds} s (process {pid})")]
    StillRunning { seconds: u64, pid: u32 },
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot read the standard input")]
    Input(#[source] io::Error),
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("the invite {how}")]
    InviteOver { how: &'static str },
    /// The user pressed Ctrl-C while the node was at it.
    #[error("stopped")]
    Interrupted { advice: &'static str },
    #[error("nothing was joined")]
    NotAgreed,
}

impl CliError {
    /// What to do about it, when there is something.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { advice, .. } => Some((*advice).to_owned()),
            Self::NotUtf8 { .. } => Some("rename it".to_owned()),
            Self::Interrupted { advice } => Some((*advice).to_owned()),
            Self::InviteOver { .. } => Some("make another: wormhole invite MESH".to_owned()),
            Self::NotRunning { .. } => {
                Some("start one with `wormhole up --detach`, or leave --no-start away".to_owned())
            }
            Self::StartFailed { log, .. } | Self::StartTimedOut { log, .. } => {
                // A node that refused its home has written none.
                log.is_file()
                    .then(|| format!("its log is {}", log.display()))
            }
            Self::Silent { .. } => Some(
                "its process may be stopped, or wait for a disk that hangs: let it go on, or kill it and start again"
                    .to_owned(),
            ),
            Self::Client(ClientError::Refused(fault)) => fault.hint.clone(),
            Self::Client(_)
            | Self::Program { .. }
            | Self::Directory { .. }
            | Self::Home(_)
            | Self::HomeInUse(_)
            | Self::Config(_)
            | Self::Log(_)
            | Self::Spawn(_)
            | Self::Crashed { .. }
            | Self::StillRunning { .. }
            | Self::Signals(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Json(_)
            | Self::Demo(_)
            | Self::NotAgreed => None,
        }
    }

    /// A stable word for programs.
    pub(crate) fn name(&self) -> serde_json::Value {
        let name = match self {
            Self::Client(ClientError::Refused(fault)) => {
                return serde_json::to_value(fault.code).unwrap_or_default();
            }
            Self::Usage { .. } => "usage",
            Self::NotUtf8 { .. } => "bad_request",
            Self::NotRunning { .. } => "not_running",
            Self::StartFailed { .. } | Self::StartTimedOut { .. } | Self::Spawn(_) => {
                "start_failed"
            }
            Self::Home(_) => "bad_home",
            Self::Config(_) | Self::Log(_) => "bad_config",
            Self::Crashed { .. } => "crashed",
            Self::StillRunning { .. } => "still_running",
            Self::HomeInUse(_) => "home_in_use",
            Self::Client(_) | Self::Silent { .. } => "connection",
            Self::Demo(_) => "demo_failed",
            Self::InviteOver { .. } => "ticket_expired",
            Self::Interrupted { .. } => "interrupted",
            Self::NotAgreed => "agreement_needed",
            Self::Program { .. }
            | Self::Directory { .. }
            | Self::Signals(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::Runtime(_)
            | Self::Json(_) => "system",
        };
        name.into()
    }
}
