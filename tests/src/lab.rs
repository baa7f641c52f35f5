//! The lab: a directory, a network, and the peers in them. Dropping it ends every process and
//! takes the network away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::peer::Peer;
use crate::switch::Switch;

/// How long [`Lab::eventually`] tries before it calls a promise broken. It is a safety net for
/// hangs, far above what any case needs; no case measures speed with it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A place for whole nodes to run in.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
    switch: Option<Switch>,
    program: PathBuf,
}

impl Lab {
    /// A lab whose peers listen on the loopback address only and are told of one another by
    /// address.
    ///
    /// # Errors
    /// When the program has not been built or no directory can be made.
    pub fn on_loopback() -> Result<Self> {
        Ok(Self {
            dir: TempDir::new()?,
            switch: None,
            program: program()?,
        })
    }

    /// A lab whose peers live in network namespaces of their own, all plugged into one switch, as
    /// machines on one LAN. Needs root and the `ip` command.
    ///
    /// # Errors
    /// As [`Lab::on_loopback`], and when namespaces cannot be made: a missing capability fails.
    pub fn on_lan() -> Result<Self> {
        Ok(Self {
            dir: TempDir::new()?,
            switch: Some(Switch::new()?),
            program: program()?,
        })
    }

    /// A new peer with an empty home; its process is not started yet.
    ///
    /// # Errors
    /// When its home or its namespace cannot be made.
    pub fn peer(&self, name: &str) -> Result<Peer> {
        let place = self.dir.path().join(name);
        std::fs::create_dir_all(&place)?;
        let namespace = self
            .switch
            .as_ref()
            .map(|switch| switch.plug(name))
            .transpose()?;
        Ok(Peer::new(name, &self.program, place, namespace))
    }

    /// A started peer.
    ///
    /// # Errors
    /// As [`Lab::peer`] and [`Peer::start`].
    pub fn started(&self, name: &str) -> Result<Peer> {
        let mut peer = self.peer(name)?;
        peer.start()?;
        Ok(peer)
    }

    /// Pulls the network cable of `peer`.
    ///
    /// # Errors
    /// When the lab has no switch, or `ip` fails.
    pub fn cut(&self, peer: &Peer) -> Result<()> {
        self.cable(peer, "down")
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// As [`Lab::cut`].
    pub fn heal(&self, peer: &Peer) -> Result<()> {
        self.cable(peer, "up")
    }

    /// The lab's own directory, for files that belong to no peer.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Tries `check` until it holds.
    ///
    /// # Errors
    /// With the last reason `check` gave, when it does not hold within the lab's patience.
    pub fn eventually(what: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        loop {
            match check() {
                Ok(()) => return Ok(()),
                Err(reason) if started.elapsed() > PATIENCE => {
                    return Err(reason).with_context(|| format!("gave up waiting: {what}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn cable(&self, peer: &Peer, state: &str) -> Result<()> {
        let Some(switch) = &self.switch else {
            bail!("a lab on loopback has no cables")
        };
        switch.cable(peer.name(), state)
    }
}

/// The `wormhole` program of this build: `WORMHOLE_PROGRAM`, or the one beside the test binary.
fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WORMHOLE_PROGRAM") {
        return Ok(PathBuf::from(path));
    }
    let test = std::env::current_exe()?;
    test.ancestors()
        .skip(1)
        .map(|dir| dir.join("wormhole"))
        .find(|path| path.is_file())
        .context("the wormhole program is not built: run `cargo build -p wormhole-node` first")
}
