//! Opens a folder: marker, state, what a crash left behind. Blocking; called once, before the actor runs.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use wormhole_crdt::{EntryKey, EntryName, Replica, VersionVector};
use wormhole_store::Store;

use super::beneath::{self, Root};
use super::config::{FolderConfig, Memory};
use super::engine::{Engine, Outcome, Step, Todo, Touched};
use super::ground::Ground;
use super::guard::Guard;
use super::ignore::Rules;
use super::name::{self, Place};
use super::problem::Problems;
use super::state::{Batch, Keep, STASH, State};
use super::status::{Counts, StopReason};
use super::taken::{Judgement, Taken};
use super::temporary::Temporary;
use super::trash::Trash;
use super::{marker, name::TMP};
use crate::error::{OpenError, StateError};

/// Names that are tried for what is put back.
const MAX_ASIDE: u32 = 100;

impl Engine {
    /// Opens everything. `Err` inside means that the folder is there but must not be touched.
    pub(crate) fn open(
        config: FolderConfig,
        replica: Replica,
        store: Store,
    ) -> Result<Result<Self, StopReason>, OpenError> {
        let dir_error = |source| OpenError::Dir {
            dir: config.dir.clone(),
            source,
        };
        let control_error = |source| OpenError::Control {
            path: name::CONTROL.into(),
            source,
        };
        let state_error = |source| OpenError::State {
            path: config.state.clone(),
            source,
        };
        let root = Arc::new(Root::open(&config.dir).map_err(dir_error)?);
        let dev = root
            .open_dir(Path::new(""))
            .and_then(|top| beneath::look_at(top.as_fd()))
            .map_err(dir_error)?
            .stamp
            .dev;
        // A folder that was synced before has a marker. One that was not gets it now.
        match marker::check(&root, &config.id).map_err(control_error)? {
            Ok(()) => {}
            Err(StopReason::MarkerGone) if !config.state.exists() => {
                marker::create(&root, &config.id).map_err(control_error)?;
            }
            Err(reason) => return Ok(Err(reason)),
        }
        let tmp = Temporary::open(Arc::clone(&root)).map_err(control_error)?;
        let state = State::open(&config.state).map_err(state_error)?;
        store
            .add_root(&config.id, &config.dir)
            .map_err(|source| OpenError::Store {
                dir: config.dir.clone(),
                source,
            })?;
        let mut batch = state.begin().map_err(state_error)?;
        match config.memory {
            Memory::Kept => forget_another_future(&mut batch, &replica).map_err(state_error)?,
            Memory::Afresh => batch.clear().map_err(state_error)?,
        }
        let counts = batch.commit(Keep::Now).map_err(state_error)?;
        Ok(Ok(Self {
            guard: Guard::new(config.deletion_guard),
            trash: Trash::new(config.trash),
            ground: Arc::new(Ground {
                dir: config.dir.clone(),
                id: config.id,
                root: Arc::clone(&root),
            }),
            config,
            root,
            dev,
            keeps_modes: beneath::keeps_modes(tmp.dir().as_fd()),
            tmp,
            state,
            replica,
            store,
            rules: Rules::default(),
            problems: Problems::default(),
            refusals: 0,
            watcher: None,
            unwatched: 0,
            counts,
            wanted: HashSet::new(),
            caught_up: None,
            held: 0,
            touched: Touched::default(),
            #[cfg(test)]
            fault: super::tests::fault::Fault::default(),
        }))
    }

    /// Puts right what a crash left in the temporary directory. Answers entries that have to be brought to their places.
    pub(crate) fn recover(&mut self) -> Outcome<Vec<EntryKey>> {
        let mut names: Vec<OsString> = Vec::new();
        let tmp = self.tmp.dir();
        if let Err(error) = beneath::list(tmp.as_fd(), &mut |name| names.push(name.to_owned())) {
            self.io_problem(Path::new(TMP), &error);
        }
        let mut step = self.begin(Keep::Now)?;
        let mut keys = Vec::new();
        for name in names {
            let text = name.to_string_lossy();
            if Taken::is_one(&text) {
                step.recover_taken(&name)?;
            } else if text.starts_with("link-") {
                if let Err(error) = beneath::remove_file(tmp.as_fd(), &name) {
                    step.engine.io_problem(Path::new(TMP), &error);
                }
            } else if text.starts_with("stash-")
                && let Ok(Some(seen)) = beneath::look(tmp.as_fd(), &name)
                && let Ok(entry) = name::parse(&name)
                && let Some((place, row)) = step.batch.by_inode(&seen)?
            {
                // Moved out of the way before the crash, perhaps without the memory of it.
                step.batch.relocate(&place, &Place::new(STASH, entry))?;
                keys.push(row.key);
            }
        }
        step.end()?;
        Ok(keys)
    }

    /// Removes unfinished files that nobody waits for any more. To be called when everything that is wanted is known.
    pub(crate) fn tidy(&mut self, keep: &HashSet<OsString>) -> Outcome<Todo> {
        let mut names: Vec<OsString> = Vec::new();
        let tmp = self.tmp.dir();
        let listed = beneath::list(tmp.as_fd(), &mut |name| {
            let ours = name.to_string_lossy();
            let other =
                Taken::is_one(&ours) || ours.starts_with("link-") || ours.starts_with("stash-");
            if !other && !keep.contains(name) {
                names.push(name.to_owned());
            }
        });
        if let Err(error) = listed {
            self.io_problem(Path::new(TMP), &error);
            return Ok(Todo::default());
        }
        self.drop_parts(&names)
    }

    /// Removes unfinished files, but for those that a transfer has.
    pub(crate) fn drop_parts(&mut self, names: &[OsString]) -> Outcome<Todo> {
        let tmp = self.tmp.dir();
        let removed = names
            .iter()
            .filter(|name| !self.tmp.is_claimed(name))
            .try_for_each(|name| beneath::remove_file(tmp.as_fd(), name));
        match removed {
            Ok(()) => self.problems.clear(Path::new(TMP)),
            Err(error) => self.io_problem(Path::new(TMP), &error),
        }
        Ok(Todo::default())
    }

    /// How much is synced.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}

impl Step<'_> {
    /// What a crash left of a file that was to be removed. If somebody changed it, or put it there at the last moment, it is
    /// put back beside where it stood, to be recorded.
    fn recover_taken(&mut self, name: &OsStr) -> Outcome<()> {
        let tmp = self.engine.tmp.dir();
        let found = match beneath::look(tmp.as_fd(), name) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.engine.io_problem(Path::new(TMP), &error);
                return Ok(());
            }
        };
        let taken = name.to_str().and_then(Taken::parse);
        let stood = match &taken {
            Some(taken) => self.batch.by_key(&EntryKey::from(taken.id))?,
            None => None,
        };
        let stood = stood.map(|(place, _row)| place);
        let removed = match taken.map(|taken| taken.judge(&found)) {
            Some(Judgement::Ours) => beneath::remove_file(tmp.as_fd(), name),
            Some(Judgement::AsSynced) => {
                let path = match &stood {
                    Some(place) => self.path_of(place)?,
                    None => None,
                };
                let berth = path.and_then(|path| self.berth(&path, found.stamp.size));
                self.dispose(name, berth)
            }
            Some(Judgement::Changed) | None => self.put_back(name, stood)?,
        };
        if let Err(error) = removed {
            self.engine.io_problem(Path::new(TMP), &error);
        }
        Ok(())
    }

    /// Moves something from the temporary directory to a free name beside a place, or to the top of the folder.
    fn put_back(&mut self, name: &OsStr, stood: Option<Place>) -> Outcome<io::Result<()>> {
        let base = self.engine.config.base;
        let (wanted, parent) = match stood {
            Some(place) => (place.name, place.parent),
            None => match EntryName::parse("recovered") {
                Ok(recovered) => (recovered, base),
                Err(_) => return Ok(Ok(())),
            },
        };
        let dir = match self.dir(parent)? {
            Some(dir) => dir,
            None => match self.dir(base)? {
                Some(top) => top,
                None => return Ok(Ok(())),
            },
        };
        let tmp = self.engine.tmp.dir();
        for attempt in 1..MAX_ASIDE {
            let Some(aside) = name::aside(&wanted, attempt) else {
                break;
            };
            let to = Place::new(parent, aside);
            match beneath::rename_new((tmp.as_fd(), name), dir.at(to.os_name())) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                moved => {
                    tracing::warn!(path = %name::display(&name::child(&dir.path, &to.name)), "kept a change that a crash had cut off");
                    return Ok(moved);
                }
            }
        }
        Ok(Err(io::ErrorKind::AlreadyExists.into()))
    }
}

/// If the replica knows less than when this memory was written, it was replaced by an older copy. Then absence from it says
/// nothing, and everything on disk is compared afresh.
fn forget_another_future(batch: &mut Batch, replica: &Replica) -> Result<(), StateError> {
    let Some(noted) = batch.note("vector")? else {
        return Ok(());
    };
    let known: VersionVector = postcard::from_bytes(&noted).map_err(|_bad| StateError::Damaged)?;
    if !replica.vector().covers(&known) {
        tracing::warn!(
            "the mesh's metadata is older than this folder: comparing everything afresh"
        );
        batch.clear()?;
    }
    Ok(())
}
