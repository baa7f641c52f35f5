//! One of the three nodes: a child process, its home, its folder, and a client to talk to it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};
use wormhole_node::api::{Empty, NodeReply, Progress};
use wormhole_node::client::{Client, ClientError};

use super::{DemoError, file_error, story};

/// A node that itself waits for so long as the story has patience may answer a little later.
const GRACE: Duration = Duration::from_secs(10);

/// A node with a part in the story.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) name: &'static str,
    /// The synced folder.
    pub(super) folder: PathBuf,
    pub(super) client: Client,
    home: PathBuf,
    log: PathBuf,
    /// 0 until the system chose one; kept over restarts, so that the others find it again.
    port: u16,
    process: Option<Child>,
}

impl Actor {
    /// Not started yet.
    pub(super) fn new(name: &'static str, stage: &Path) -> Result<Self, DemoError> {
        let dir = stage.join(name);
        fs::create_dir(&dir).map_err(|source| file_error(&dir, source))?;
        let home = dir.join("home");
        Ok(Self {
            name,
            folder: dir.join("Shared"),
            client: Client::of_home(&home)?,
            home,
            log: dir.join("node.log"),
            port: 0,
            process: None,
        })
    }

    /// Where the others reach it.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Starts the process and returns when it answers.
    pub(super) async fn start(&mut self) -> Result<(), DemoError> {
        self.process = Some(
            self.spawn()
                .map_err(|source| file_error(&self.log, source))?,
        );
        let deadline = Instant::now() + story::PATIENCE;
        let node: NodeReply = loop {
            if let Ok(node) = self.client.get("/v1/node", &()).await {
                break node;
            }
            let ended = self
                .process
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                return Err(DemoError::NoStart {
                    name: self.name,
                    log: self.log.clone(),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let port = node.addresses.iter().find_map(|address| port(address));
        self.port = port.ok_or(DemoError::NoAddress { name: self.name })?;
        Ok(())
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        // The settings of the user's own node are not the demo's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WORMHOLE_") {
                command.env_remove(name);
            }
        }
        command
            .arg("--home")
            .arg(&self.home)
            .args(["up", "--device-name", self.name, "--discovery", "off"])
            .args(["--listen", "127.0.0.1", "--port", &self.port.to_string()])
            // However this process ends, its end of the pipe closes and the node stops.
            .args(["--until-stdin-ends"])
            // Ctrl-C is for the demo alone; it stops its nodes itself.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
    }

    /// Ends it as a power cut would end the program: SIGKILL.
    pub(super) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It can only fail when the process has ended by itself, which is what we want.
            drop(process.kill().await);
        }
    }

    /// Stops the process as a closed lid does: it neither hears nor says anything.
    pub(super) fn freeze(&self) -> Result<(), DemoError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(super) fn thaw(&self) -> Result<(), DemoError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), DemoError> {
        let pid = self.process.as_ref().and_then(Child::id);
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let sent = match pid {
            Some(pid) => kill_process(pid, signal).map_err(std::io::Error::from),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        sent.map_err(|source| DemoError::Signal {
            name: self.name,
            source,
        })
    }

    /// Stops it in order and waits for its end.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        self.tell("/v1/shutdown", &Empty {}).await?;
        if let Some(mut process) = self.process.take() {
            let ended = tokio::time::timeout(story::PATIENCE, process.wait()).await;
            if ended.is_err() {
                let what = format!("{} has stopped", self.name);
                return Err(DemoError::NotInTime { what });
            }
        }
        Ok(())
    }

    /// Asks the node.
    pub(super) async fn get<R: DeserializeOwned>(&self, route: &str) -> Result<R, DemoError> {
        self.answered(route, self.client.get(route, &())).await
    }

    /// Tells the node to do something.
    pub(super) async fn tell<B: Serialize>(&self, route: &str, body: &B) -> Result<(), DemoError> {
        self.post::<B, serde_json::Value>(route, body)
            .await
            .map(drop)
    }

    /// Tells the node to do something and wants to know the answer.
    pub(super) async fn post<B: Serialize, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &B,
    ) -> Result<R, DemoError> {
        self.answered(route, self.client.post(route, body)).await
    }

    /// The same for what takes long.
    pub(super) async fn steps<B: Serialize, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &B,
    ) -> Result<R, DemoError> {
        let mut ignore = |_: &Progress| {};
        let answer = self.client.steps(route, body, &mut ignore);
        self.answered(route, answer).await
    }

    /// A node that hangs is a failure of the demo, not its end in silence.
    async fn answered<R>(
        &self,
        route: &str,
        answer: impl Future<Output = Result<R, ClientError>>,
    ) -> Result<R, DemoError> {
        match tokio::time::timeout(story::PATIENCE + GRACE, answer).await {
            Ok(answer) => answer.map_err(|source| DemoError::Refused {
                name: self.name,
                source,
            }),
            Err(_) => Err(DemoError::NotInTime {
                what: format!("{} answers {route}", self.name),
            }),
        }
    }
}

/// The port of an address such as `127.0.0.1:4711` or `udp/127.0.0.1:4711`.
fn port(address: &str) -> Option<u16> {
    address
        .rsplit(':')
        .next()?
        .parse()
        .ok()
        .filter(|port| *port != 0)
}
