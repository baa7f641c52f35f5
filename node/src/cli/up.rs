//! `up` and `down`: running the node in this process or in the background, and stopping it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, setsid, test_kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wormhole_node::api::{Empty, NodeReply};
use wormhole_node::config::{Config, Overrides};
use wormhole_node::error::SpawnError;
use wormhole_node::home::{Home, HomeError};
use wormhole_node::log::{self, LogTarget};
use wormhole_node::node::{Ended, Node};

use super::args::{OnOff, Up};
use super::output::{note, printable};
use super::{CliError, Desk, start};

/// Runs a node until a signal, `wormhole down` or a fault ends it.
pub(super) async fn run(desk: &Desk, up: Up) -> Result<(), CliError> {
    if up.detach {
        return detach(desk, &up).await;
    }
    let own_session = up.own_session;
    let mut owner = Owner::of(&up)?;
    // The terminal's end must not be the node's; done first, before a Ctrl-C can come.
    let session = if own_session {
        setsid().map(|_| ())
    } else {
        Ok(())
    };
    let home = Home::open(&desk.home).map_err(home_error)?;
    let config = Config::load(&home.config_path(), &overrides(up))?;
    let target = if own_session {
        LogTarget::File(home.log_path())
    } else {
        LogTarget::Stderr
    };
    log::start(&config.log_level, config.log_format, &target)?;
    if own_session {
        // The terminal is gone; a panic's message belongs into the log.
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
    if let Err(error) = session {
        tracing::warn!(%error, "no session of its own: the node ends with the terminal");
    }
    // Before the start, so that an impatient Ctrl-C stops in order, too.
    let mut signals = Signals::listen()?;
    let node = tokio::select! {
        biased;
        () = signals.next() => return Ok(()),
        node = Node::spawn(home, config) => node.map_err(spawn_error)?,
    };
    if !own_session {
        desk.output.say(&format!(
            "Running in {}; Ctrl-C stops it",
            desk.home.display()
        ))?;
    }
    let ended = tokio::select! {
        biased;
        () = signals.next() => Ended::Asked,
        () = owner.gone() => Ended::Asked,
        ended = node.join() => ended,
    };
    tokio::select! {
        () = node.shutdown() => {}
        () = signals.next() => note("wormhole: stopped at once; the next start repairs what is left"),
    }
    match ended {
        Ended::Asked => Ok(()),
        Ended::TaskPanicked { name } => Err(CliError::Crashed { task: name }),
    }
}

/// The program that this node belongs to, when it belongs to one: it ends with it, however that ends.
struct Owner {
    pipe: Option<pipe::Receiver>,
}

impl Owner {
    fn of(up: &Up) -> Result<Self, CliError> {
        if !up.until_stdin_ends {
            return Ok(Self { pipe: None });
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let pipe = stdin.and_then(pipe::Receiver::from_owned_fd);
        pipe.map(|pipe| Self { pipe: Some(pipe) })
            .map_err(CliError::Input)
    }

    /// Waits for its end; for ever without one. What it writes is not read for anything.
    async fn gone(&mut self) {
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        let mut unread = [0; 64];
        while let Ok(1..) = pipe.read(&mut unread).await {}
    }
}

fn home_error(error: HomeError) -> CliError {
    if matches!(error, HomeError::Locked { .. }) {
        CliError::HomeInUse(error)
    } else {
        CliError::Home(error)
    }
}

fn spawn_error(error: SpawnError) -> CliError {
    if let SpawnError::Home(error) = error {
        home_error(error)
    } else {
        CliError::Spawn(error)
    }
}

fn overrides(up: Up) -> Overrides {
    Overrides {
        port: up.port,
        listen: (!up.listen.is_empty()).then_some(up.listen),
        device_name: up.device_name,
        discovery: up
            .discovery
            .map(|switch| matches!(switch, OnOff::On).into()),
        log_level: up.log_level,
        log_format: None,
    }
}

async fn detach(desk: &Desk, up: &Up) -> Result<(), CliError> {
    let client = wormhole_node::client::Client::of_home(&desk.home)?;
    let (node, word) = match start::running(&client).await? {
        Some(node) => (node, "runs already"),
        None => (
            start::background(&desk.home, &again(up), &client).await?,
            "is up",
        ),
    };
    desk.output.answer(&node, |node| up_text(node, word))
}

fn up_text(node: &NodeReply, word: &str) -> String {
    let name = printable(&node.device_name);
    format!(
        "Node {name} {word} (process {}, home {})",
        node.pid,
        node.home.display()
    )
}

/// The arguments of `up` once more, for the process in the background.
fn again(up: &Up) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([OsString::from(name), OsString::from(value)]);
        }
    };
    add("--port", up.port.map(|port| port.to_string()));
    for address in &up.listen {
        add("--listen", Some(address.to_string()));
    }
    add("--device-name", up.device_name.clone());
    let discovery = up.discovery.map(|switch| match switch {
        OnOff::On => "on".to_owned(),
        OnOff::Off => "off".to_owned(),
    });
    add("--discovery", discovery);
    add("--log-level", up.log_level.clone());
    arguments
}

/// The two signals that ask a program to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(CliError::Signals);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Long enough to write the last bytes to a slow disk.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// Stops the node and returns when its process has ended.
pub(super) async fn down(desk: &Desk) -> Result<(), CliError> {
    let client = wormhole_node::client::Client::of_home(&desk.home)?;
    let Some(node) = start::running(&client).await? else {
        return desk.output.answer(&Stopped { was_running: false }, |_| {
            format!("No node was running in {}", desk.home.display())
        });
    };
    let Empty {} = client.post("/v1/shutdown", &Empty {}).await?;
    let deadline = Instant::now() + STOP_PATIENCE;
    while alive(node.pid) {
        if Instant::now() > deadline {
            let seconds = STOP_PATIENCE.as_secs();
            return Err(CliError::StillRunning {
                seconds,
                pid: node.pid,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    desk.output.answer(&Stopped { was_running: true }, |_| {
        "The node has stopped".to_owned()
    })
}

#[derive(Debug, serde::Serialize)]
struct Stopped {
    was_running: bool,
}

fn alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid).is_ok())
}
