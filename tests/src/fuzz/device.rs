//! A device of the live fuzzer: its node, the state that the fuzzer put it into, and what is set aside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::Peer;

/// What the node is doing, as far as the fuzzer decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Frozen,
    Down,
}

/// A file that a program opened and has not closed.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) file: File,
    pub(super) path: String,
    /// What is in it since the program wrote its first half.
    pub(super) half: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) peer: Peer,
    pub(super) state: State,
    pub(super) held: Option<Held>,
    pub(super) has_machine_copy: bool,
    pub(super) has_folder_copy: bool,
    set_aside: u32,
}

impl Device {
    pub(super) fn new(peer: Peer) -> Result<Self> {
        fs::create_dir_all(peer.dir("work"))?;
        Ok(Self {
            peer,
            state: State::Running,
            held: None,
            has_machine_copy: false,
            has_folder_copy: false,
            set_aside: 0,
        })
    }

    /// The folder's place.
    pub(super) fn root(&self) -> PathBuf {
        self.peer.dir("work")
    }

    /// Where the folder is while it is moved away.
    pub(super) fn elsewhere(&self) -> PathBuf {
        self.peer.dir("elsewhere")
    }

    pub(super) fn is_away(&self) -> bool {
        self.elsewhere().exists()
    }

    pub(super) fn machine_copy(&self) -> PathBuf {
        self.peer.dir("machine-copy")
    }

    pub(super) fn folder_copy(&self) -> PathBuf {
        self.peer.dir("folder-copy")
    }

    /// Moves something out of the way, for good.
    pub(super) fn put_aside(&mut self, path: &Path) -> Result<()> {
        self.set_aside += 1;
        let aside = self.peer.dir(&format!("aside-{}", self.set_aside));
        Ok(fs::rename(path, aside)?)
    }

    /// One word and a half for the story.
    pub(super) fn shown(&self) -> String {
        let state = match self.state {
            State::Running => "",
            State::Frozen => " (frozen)",
            State::Down => " (down)",
        };
        format!("{}{state}", self.peer.name())
    }
}

/// Copies a directory as `cp -a` does: modes, times and links as they are.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(
        status.success(),
        "cp -a {} {}",
        from.display(),
        to.display()
    );
    Ok(())
}
