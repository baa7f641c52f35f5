//! What has to go makes room without being lost: it is moved to the folder's trash, and only what that does not take is
//! removed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::folder::beneath::{self, Seen};
use crate::folder::engine::{Engine, Outcome, Step};
use crate::folder::name;
use crate::folder::plan::Node;
use crate::folder::stamp::unchanged;
use crate::folder::state::Row;
use crate::folder::trash::Berth;
use crate::folder::trash::when::When;

impl Step<'_> {
    /// Whether what is seen is what was last synced, so that it may be replaced or removed. A file of whose bytes the store
    /// lost sight may have others than its stamp says.
    pub(crate) fn is_believed(&self, row: &Row, seen: &Seen, path: &Path) -> Outcome<bool> {
        if !unchanged(row, seen) {
            return Ok(false);
        }
        Ok(match &row.node {
            Node::File { content, .. } if !content.is_empty() => {
                self.engine.store.refers_to(&self.engine.file_path(path))?
            }
            Node::File { .. } | Node::Directory { .. } | Node::Symlink { .. } => true,
        })
    }

    /// Before what was synced at a path is replaced or removed: finds room for it in the trash. Without room its bytes are
    /// kept if anything else waits for them.
    pub(super) fn take_leave(&mut self, row: Option<&Row>, path: &Path) -> Outcome<Option<Berth>> {
        let Some(row) = row else { return Ok(None) };
        let berth = self.berth(path, row.seen.stamp.size);
        if berth.is_none() {
            self.let_go(row, path)?;
        }
        Ok(berth)
    }

    /// Room in the trash for what stands at a path.
    pub(crate) fn berth(&self, path: &Path, size: u64) -> Option<Berth> {
        let Engine { trash, root, .. } = &*self.engine;
        match trash.berth(root, path, size, When::now()) {
            Ok(berth) => berth,
            Err(error) => {
                tracing::warn!(path = %name::display(path), %error, "cannot be kept in the trash");
                None
            }
        }
    }

    /// Moves what was taken out of the tree to its berth, or removes it.
    pub(crate) fn dispose(&mut self, taken: &OsStr, berth: Option<Berth>) -> io::Result<()> {
        let tmp = self.engine.tmp.dir();
        let Some(berth) = berth else {
            return beneath::remove_file(tmp.as_fd(), taken);
        };
        // If that fails it stays where it is, and the next start tries again.
        beneath::rename_new((tmp.as_fd(), taken), berth.at())?;
        self.rests(&berth);
        Ok(())
    }

    /// Something is in the trash now: others can still have its bytes.
    pub(crate) fn rests(&mut self, berth: &Berth) {
        let engine = &mut *self.engine;
        engine.trash.took(berth);
        let stood: std::path::PathBuf = berth.path().components().skip(3).collect();
        let moved = engine.store.moved(&engine.config.id, &stood, berth.path());
        if let Err(error) = moved {
            tracing::debug!(path = %name::display(&stood), %error, "cannot be had from the trash");
        }
    }
}
