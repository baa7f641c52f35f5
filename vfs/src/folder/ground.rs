//! What a folder stands on: the directory that was opened, at its path, with its marker.
//!
//! A directory that was moved away, deleted, or hidden by a mount or an unmount goes on to exist for whoever holds it
//! open. Before anything is believed to be missing, and whenever somebody asks how the folder is, it is looked for anew.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wormhole_store::RootId;

use super::beneath::{self, Root};
use super::marker::{self, Tokens};
use super::status::StopReason;

/// A marker that is being renewed is read again so often.
const LOOKS: usize = 3;

/// The folder as it was opened.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) dir: PathBuf,
    pub(crate) id: RootId,
    pub(crate) root: Arc<Root>,
    pub(crate) tokens: Mutex<Tokens>,
}

impl Ground {
    pub(crate) fn new(dir: &Path, id: RootId, root: &Arc<Root>, tokens: Tokens) -> Self {
        Self {
            dir: dir.to_owned(),
            id,
            root: Arc::clone(root),
            tokens: Mutex::new(tokens),
        }
    }

    /// Whether the folder is still the one that was opened. Blocks for a few system calls.
    pub(crate) fn is_itself(&self) -> Result<(), StopReason> {
        let here = Root::open(&self.dir).and_then(|root| identity(&root));
        match (here, identity(&self.root)) {
            (Ok(here), Ok(opened)) if here == opened => {}
            (Err(error), _) | (Ok(_), Err(error)) => {
                tracing::warn!(dir = %self.dir.display(), %error, "the folder is not where it was");
                return Err(StopReason::DirectoryGone);
            }
            (Ok(_), Ok(_)) => return Err(StopReason::DirectoryGone),
        }
        for _look in 0..LOOKS {
            match marker::check(&self.root, &self.id) {
                Ok(Ok(Some(token))) if self.tokens().know(token) => return Ok(()),
                // Renewed between the two looks, or not one that this folder ever wrote.
                Ok(Ok(_)) => {}
                Ok(Err(reason)) => return Err(reason),
                Err(error) => {
                    tracing::warn!(dir = %self.dir.display(), %error, "cannot read the folder's marker");
                    return Err(StopReason::MarkerGone);
                }
            }
        }
        Err(StopReason::OlderCopy)
    }

    /// The tokens that are known now.
    pub(crate) fn tokens(&self) -> Tokens {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The marker holds `tokens.now` from now on.
    pub(crate) fn renewed(&self, tokens: Tokens) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = tokens;
    }
}

fn identity(root: &Root) -> io::Result<(u64, u64)> {
    let top = root.open_dir(Path::new(""))?;
    let seen = beneath::look_at(top.as_fd())?;
    Ok((seen.stamp.dev, seen.stamp.ino))
}
