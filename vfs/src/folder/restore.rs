//! Brings back what is in the trash: to where it stood, as a change made here. What stands there now goes into the trash
//! itself, so nothing is lost by bringing back the wrong one.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::beneath::{self, Audience, SeenKind};
use super::engine::{Engine, Outcome, Step, Todo};
use super::name;
use super::state::Keep;
use super::status::StopReason;
use super::trash::when::When;
use super::trash::{Trash, Trashed};

/// Why something did not come back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing that stood there is kept.
    #[error("nothing of {} is in the trash", path.display())]
    NotKept {
        /// What was asked for.
        path: PathBuf,
    },
    /// Not so many versions are kept.
    #[error("only {kept} versions of {} are in the trash", path.display())]
    NoSuchVersion {
        /// What was asked for.
        path: PathBuf,
        /// How many there are.
        kept: u64,
    },
    /// A directory stands there, or what stands there cannot be kept; or something else stands where a directory is needed.
    #[error("what is at {} now is in the way and cannot be put aside: move it away first", path.display())]
    InTheWay {
        /// What stands there.
        path: PathBuf,
    },
    /// Something new stands in the place of everything that would come back.
    #[error(
        "nothing came back of {}: something new stands at {}, and so it is with all that is kept; move it away, or \
         bring back one after the other",
        path.display(), first.display()
    )]
    AllTaken {
        /// What was asked for.
        path: PathBuf,
        /// The first place that is taken.
        first: PathBuf,
    },
    /// The system refused.
    #[error("cannot bring back {}", path.display())]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The folder is stopped.
    #[error("the folder is stopped: {0}")]
    Stopped(StopReason),
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files and links that are in their places again, relative to the folder.
    pub paths: Vec<PathBuf>,
    /// Files of a directory that stayed in the trash, because something new stands in their places.
    pub left: Vec<PathBuf>,
}

impl Engine {
    /// Everything in the trash.
    pub(crate) fn trashed(&self) -> Result<Vec<Trashed>, RestoreError> {
        Trash::list(&self.root).map_err(|source| RestoreError::Io {
            path: name::TRASH.into(),
            source,
        })
    }

    /// Removes from the trash what is too old or too much.
    pub(crate) fn clear_trash(&mut self) -> Outcome<Todo> {
        match self.trash.clear_out(&self.root, When::now()) {
            Ok(gone) => {
                for path in gone {
                    self.store.forgotten(&self.config.id, &path)?;
                }
            }
            Err(error) => tracing::warn!(%error, "the trash cannot be cleared out"),
        }
        Ok(Todo::default())
    }

    /// Brings back a version of a file, or the last of everything that is kept of a directory.
    pub(crate) fn restore(
        &mut self,
        path: &Path,
        version: u64,
    ) -> Outcome<(Todo, Result<Restored, RestoreError>)> {
        let mut step = self.begin(Keep::Later)?;
        let restored = step.restore(path, version);
        Ok((step.end()?, restored))
    }
}

impl Step<'_> {
    fn restore(&mut self, path: &Path, version: u64) -> Result<Restored, RestoreError> {
        let mut all = self.engine.trashed()?;
        let exact = all.iter().filter(|one| one.path == path).count() as u64;
        if exact > 0 {
            let wanted = all
                .into_iter()
                .find(|one| one.path == path && one.version == version)
                .ok_or_else(|| RestoreError::NoSuchVersion {
                    path: path.to_owned(),
                    kept: exact,
                })?;
            self.look_above(path)?;
            self.bring_back(&wanted)?;
            return Ok(Restored {
                paths: vec![wanted.path],
                left: Vec::new(),
            });
        }
        all.retain(|one| one.path.starts_with(path));
        if all.is_empty() {
            return Err(RestoreError::NotKept {
                path: path.to_owned(),
            });
        }
        if version != 1 {
            return Err(RestoreError::NoSuchVersion {
                path: path.to_owned(),
                kept: 1,
            });
        }
        self.look_above(path)?;
        self.check_directory(path)?;
        let mut restored = Restored::default();
        let mut seen = HashSet::new();
        for one in all {
            if !seen.insert(one.path.clone()) {
                continue;
            }
            if self.is_free(&one.path) {
                self.bring_back(&one)?;
                restored.paths.push(one.path);
            } else {
                restored.left.push(one.path);
            }
        }
        match restored.left.first() {
            Some(first) if restored.paths.is_empty() => Err(RestoreError::AllTaken {
                path: path.to_owned(),
                first: first.clone(),
            }),
            Some(_) | None => Ok(restored),
        }
    }

    /// Whether a path is, or can become, one in the folder: nothing but directories stands above it.
    fn look_above(&self, path: &Path) -> Result<(), RestoreError> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        above
            .into_iter()
            .try_for_each(|dir| self.check_directory(dir))
    }

    /// Whether a directory stands at a path, or nothing does.
    fn check_directory(&self, path: &Path) -> Result<(), RestoreError> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let Ok(dir) = self.engine.root.open_dir(above) else {
            return Ok(());
        };
        match beneath::look(dir.as_fd(), name) {
            Ok(Some(stands)) if stands.kind != SeenKind::Directory => {
                let path = path.to_owned();
                Err(RestoreError::InTheWay { path })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn is_free(&self, path: &Path) -> bool {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return false;
        };
        match self.engine.root.open_dir(above) {
            Ok(dir) => matches!(beneath::look(dir.as_fd(), name), Ok(None)),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn bring_back(&mut self, trashed: &Trashed) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Io {
            path: trashed.path.clone(),
            source,
        };
        let in_the_way = || RestoreError::InTheWay {
            path: trashed.path.clone(),
        };
        let root = std::sync::Arc::clone(&self.engine.root);
        let name = trashed.path.file_name().unwrap_or(OsStr::new(""));
        let above = trashed.path.parent().unwrap_or(Path::new(""));
        let kept_in = trashed.kept.parent().unwrap_or(Path::new(name::TRASH));
        let dir = beneath::make_dirs(&root, above, Audience::Umask).map_err(failed)?;
        let kept = root.open_dir(kept_in).map_err(failed)?;
        if let Some(stands) = beneath::look(dir.as_fd(), name).map_err(failed)? {
            if stands.kind == SeenKind::Directory || stands.kind == SeenKind::Special {
                return Err(in_the_way());
            }
            let berth = self.berth(&trashed.path, stands.stamp.size);
            let berth = berth.ok_or_else(in_the_way)?;
            beneath::rename_new((dir.as_fd(), name), berth.at()).map_err(failed)?;
            self.rests(&berth);
        }
        beneath::rename_new((kept.as_fd(), name), (dir.as_fd(), name)).map_err(failed)?;
        let engine = &mut *self.engine;
        engine.trash.gave(trashed);
        let moved = engine
            .store
            .moved(&engine.config.id, &trashed.kept, &trashed.path);
        if let Err(error) = moved {
            tracing::debug!(%error, "it is read again");
        }
        self.todo.paths.push(trashed.path.clone());
        Ok(())
    }
}
