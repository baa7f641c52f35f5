//! One of the three nodes: a child process, its home, its folder, and a client to talk to it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};
use wormhole_node::api::{Empty, NodeReply};
use wormhole_node::client::{Client, ClientError};

use super::{DemoError, file_error, story};

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
            // Ctrl-C is for the demo alone; it stops its nodes itself.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
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
        self.client
            .get(route, &())
            .await
            .map_err(|source| self.refused(source))
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
        self.client
            .post(route, body)
            .await
            .map_err(|source| self.refused(source))
    }

    /// The same for what takes long.
    pub(super) async fn steps<B: Serialize, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &B,
    ) -> Result<R, DemoError> {
        let answer = self.client.steps(route, body, &mut |_| {}).await;
        answer.map_err(|source| self.refused(source))
    }

    fn refused(&self, source: ClientError) -> DemoError {
        DemoError::Refused {
            name: self.name,
            source,
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
