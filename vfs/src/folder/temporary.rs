//! The folder's temporary directory, and who owns what is in it.
//!
//! An unfinished file belongs to one transfer at a time: whoever wants to write it claims its name first, and nobody else
//! writes, renames or removes a claimed one. The claim ends with the transfer's [`PartialFile`](super::partial::PartialFile),
//! once it is installed or given up. All else in here (`taken`, links, what is stashed) is the engine's, which is one
//! thread. A directory that somebody removes is made again; what was in it is fetched again.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::beneath::{self, Root};
use super::name;

/// The directory.
#[derive(Debug)]
pub(crate) struct Temporary {
    root: Arc<Root>,
    dir: Mutex<Arc<OwnedFd>>,
    claimed: Mutex<HashSet<OsString>>,
}

impl Temporary {
    /// Opens it, making it if it is not there. The control directory around it must be.
    pub(crate) fn open(root: Arc<Root>) -> io::Result<Arc<Self>> {
        let dir = make(&root)?;
        Ok(Arc::new(Self {
            root,
            dir: Mutex::new(Arc::new(dir)),
            claimed: Mutex::default(),
        }))
    }

    /// A handle to it. One that cannot be made again is a handle to nothing: whatever is done with it fails and says so.
    pub(crate) fn dir(&self) -> Arc<OwnedFd> {
        let mut dir = self.dir.lock().unwrap_or_else(PoisonError::into_inner);
        if beneath::is_unlinked(dir.as_fd()) {
            match make(&self.root) {
                Ok(made) => *dir = Arc::new(made),
                Err(error) => tracing::warn!(%error, "cannot make the temporary directory again"),
            }
        }
        Arc::clone(&dir)
    }

    /// Takes a name, if nobody has it.
    pub(crate) fn claim(self: &Arc<Self>, name: OsString) -> Option<Claim> {
        let mut claimed = self.claimed();
        claimed.insert(name.clone()).then(|| Claim {
            temporary: Arc::clone(self),
            name,
        })
    }

    /// Whether somebody has it.
    pub(crate) fn is_claimed(&self, name: &OsStr) -> bool {
        self.claimed().contains(name)
    }

    fn claimed(&self) -> std::sync::MutexGuard<'_, HashSet<OsString>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(root: &Root) -> io::Result<OwnedFd> {
    let control = root.open_dir(Path::new(name::CONTROL))?;
    beneath::make_dir(control.as_fd(), OsStr::new("tmp"))?;
    root.open_dir(Path::new(name::TMP))
}

/// The right to an unfinished file's name, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    temporary: Arc<Temporary>,
    name: OsString,
}

impl Claim {
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(crate) fn dir(&self) -> Arc<OwnedFd> {
        self.temporary.dir()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.temporary.claimed().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> (tempfile::TempDir, Arc<Temporary>) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(name::CONTROL)).unwrap();
        let root = Arc::new(Root::open(home.path()).unwrap());
        (home, Temporary::open(root).unwrap())
    }

    #[test]
    fn a_name_has_one_owner_at_a_time() {
        let (_home, temporary) = temporary();
        let claim = temporary.claim("part".into()).unwrap();
        assert!(temporary.claim("part".into()).is_none());
        assert!(temporary.claim("other".into()).is_some());
        drop(claim);
        assert!(!temporary.is_claimed(OsStr::new("part")));
        assert!(temporary.claim("part".into()).is_some());
    }

    #[test]
    fn a_removed_directory_is_made_again_but_not_the_control_directory() {
        let (home, temporary) = temporary();
        let place = home.path().join(name::TMP);
        std::fs::remove_dir(&place).unwrap();
        temporary.dir();
        assert!(place.is_dir());
        std::fs::remove_dir_all(home.path().join(name::CONTROL)).unwrap();
        temporary.dir();
        assert!(!home.path().join(name::CONTROL).exists());
    }
}
