//! Who has joined a mesh of this device since a person looked: shown by `status` until it was seen.
//!
//! Kept in a file of the home, so that a join at night is still told in the morning, after a restart. A lost or damaged
//! file loses only that: who is a member is in the membership log.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wormhole_crdt::{Member, MeshId};

use super::{Node, blocking};
use crate::api::{Newcomer, SeenRequest};
use crate::event::now_ms;
use crate::home::{Home, write_private};
use crate::status;

/// Newcomers that are remembered; of more the oldest are forgotten.
const MAX_NEWCOMERS: usize = 256;

/// A file of ours is never larger; one that is, is not read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The newcomers that nobody has seen yet.
#[derive(Debug, Default)]
pub(super) struct Newcomers(Mutex<Vec<Newcomer>>);

/// Where they are kept.
fn path(home: &Home) -> PathBuf {
    home.dir().join("newcomers.json")
}

impl Newcomers {
    /// Reads what was kept.
    pub(super) fn load(home: &Home) -> Self {
        let path = path(home);
        let read = || {
            if fs::metadata(&path)?.len() > MAX_FILE_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            fs::read(&path)
        };
        let kept = read().map(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        match kept.flatten() {
            Ok(kept) => Self(Mutex::new(kept)),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "who joined lately is forgotten");
                }
                Self::default()
            }
        }
    }

    fn add(&self, newcomer: Newcomer) {
        let mut list = self.lock();
        let is_it = |known: &Newcomer| {
            (&known.mesh.id, &known.device) == (&newcomer.mesh.id, &newcomer.device)
        };
        list.retain(|known| !is_it(known));
        list.push(newcomer);
        let surplus = list.len().saturating_sub(MAX_NEWCOMERS);
        list.drain(..surplus);
    }

    fn seen(&self, request: &SeenRequest) {
        self.lock().retain(|known| {
            let mut seen = request.newcomers.iter();
            !seen.any(|seen| seen == known)
        });
    }

    fn list(&self) -> Vec<Newcomer> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Newcomer>> {
        // The list is whole after each call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// A device became a member of a mesh that this device was in before.
    pub(crate) fn note_newcomer(&self, mesh: MeshId, member: &Member) {
        let Some(mesh) = self.local_mesh(&mesh) else {
            return;
        };
        if member.device == self.network().device_id() {
            return;
        }
        self.inner.newcomers.add(Newcomer {
            mesh: mesh.reference(),
            device: member.device.to_string(),
            name: status::shown(&member.name),
            role: member.role.into(),
            at_ms: now_ms(),
        });
        self.keep_newcomers();
    }

    /// Who joined and was not seen yet, the first one first.
    pub(crate) fn newcomers(&self) -> Vec<Newcomer> {
        let mut list = self.inner.newcomers.list();
        list.retain(|newcomer| {
            let mut meshes = self.local_meshes().into_iter();
            meshes.any(|mesh| mesh.reference().id == newcomer.mesh.id)
        });
        list
    }

    /// A person has seen these.
    pub(crate) fn seen(&self, request: &SeenRequest) {
        self.inner.newcomers.seen(request);
        self.keep_newcomers();
    }

    fn keep_newcomers(&self) {
        let node = self.clone();
        let keep = async move {
            let _one_at_a_time = node.inner.steering.lock().await;
            let path = path(node.home());
            let list = node.inner.newcomers.list();
            let json = serde_json::to_vec(&list).expect("plain data encodes");
            let kept = {
                let path = path.clone();
                blocking(move || write_private(&path, &json)).await
            };
            // They are still told until the next start.
            if let Err(error) = kept {
                tracing::warn!(%error, path = %path.display(), "who joined lately cannot be kept");
            }
        };
        if self.tasks().spawn("newcomers", keep).is_err() {
            tracing::debug!("the node is stopping: who joined just now is not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MeshRef, RoleName};

    fn newcomer(n: usize) -> Newcomer {
        Newcomer {
            mesh: MeshRef {
                id: "00".to_owned(),
                name: "Designs".to_owned(),
            },
            device: n.to_string(),
            name: "tablet".to_owned(),
            role: RoleName::Writer,
            at_ms: 0,
        }
    }

    #[test]
    fn newcomers_stand_until_they_were_seen_and_are_bounded() {
        let newcomers = Newcomers::default();
        for n in 0..2 * MAX_NEWCOMERS {
            newcomers.add(newcomer(n));
            newcomers.add(newcomer(n));
        }
        assert_eq!(newcomers.list().len(), MAX_NEWCOMERS);
        let seen = newcomers.list();
        newcomers.add(newcomer(0));
        newcomers.seen(&SeenRequest { newcomers: seen });
        assert_eq!(newcomers.list(), [newcomer(0)], "it came after the look");
    }

    #[test]
    fn a_damaged_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert!(Newcomers::load(&home).list().is_empty());
        fs::write(path(&home), b"[{").unwrap();
        assert!(Newcomers::load(&home).list().is_empty());
        let kept = serde_json::to_vec(&[newcomer(1)]).unwrap();
        fs::write(path(&home), kept).unwrap();
        assert_eq!(Newcomers::load(&home).list(), [newcomer(1)]);
    }
}
