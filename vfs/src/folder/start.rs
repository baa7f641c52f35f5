//! Opens a folder: marker, state, what a crash left behind. Blocking; called once, before the actor runs.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use wormhole_crdt::{EntryKey, EntryName, Replica, VersionVector};
use wormhole_store::Store;

use super::base::Noted;
use super::beneath::{self, Root};
use super::config::{FolderConfig, Memory};
use super::engine::{Engine, Outcome, Step, Todo, Touched};
use super::ground::Ground;
use super::guard::Guard;
use super::held::Held;
use super::ignore::Rules;
use super::marker::{Owner, Token, Tokens};
use super::name::{self, Place};
use super::problem::Problems;
use super::renewal::{BEHIND, Renewal, TOKENS};
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
        mut config: FolderConfig,
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
        let owner = Owner {
            id: config.id,
            device: replica.device(),
        };
        let found = match mark(&root, &owner, &config).map_err(control_error)? {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        let tmp = Temporary::open(Arc::clone(&root)).map_err(control_error)?;
        let state = State::open(&config.state).map_err(state_error)?;
        store
            .add_root(&config.id, &config.dir)
            .map_err(|source| OpenError::Store {
                dir: config.dir.clone(),
                source,
            })?;
        let kept = Kept::load(&state, &config, &replica, &found).map_err(state_error)?;
        if let Some(base) = &kept.base {
            config.base = base.id();
        }
        Ok(Ok(Self {
            guard: Guard::new(config.deletion_guard),
            trash: Trash::new(config.trash),
            owner,
            afresh: kept.afresh,
            base: kept.base,
            at_home: kept.at_home,
            renewal: Renewal::new(kept.behind),
            ground: Arc::new(Ground::new(&config.dir, config.id, &root, kept.tokens)),
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
            counts: kept.counts,
            wanted: HashSet::new(),
            caught_up: None,
            held: Held::default(),
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
        self.load_held()?;
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

/// Makes sure that the directory has a marker, and gives the token in it. A folder that was synced before has one; one that
/// was not gets it now.
fn mark(
    root: &Root,
    owner: &Owner,
    config: &FolderConfig,
) -> io::Result<Result<Marker, StopReason>> {
    let token = match marker::check(root, &config.id)? {
        Ok(Some(found)) => found,
        Ok(None) => {
            let token = Token::random();
            marker::write(root, owner, token)?;
            token
        }
        Err(StopReason::MarkerGone) if !config.state.exists() => {
            let token = Token::random();
            marker::create(root, owner, token)?;
            token
        }
        Err(reason) => return Ok(Err(reason)),
    };
    let file = marker::file(root)?;
    Ok(Ok(Marker { token, file }))
}

/// The marker that was found.
struct Marker {
    token: Token,
    file: [u8; 24],
}

/// What the memory of the last sync says of the folder as a whole.
struct Kept {
    base: Option<Noted>,
    tokens: Tokens,
    counts: Counts,
    /// There was a memory of another state of the directory: it was forgotten.
    afresh: bool,
    /// Everything was compared once.
    at_home: bool,
    /// More is remembered than the marker stands for.
    behind: bool,
}

impl Kept {
    /// Reads it, once it is known to be of this directory and of no other future.
    fn load(
        state: &State,
        config: &FolderConfig,
        replica: &Replica,
        found: &Marker,
    ) -> Result<Self, StateError> {
        let mut batch = state.begin()?;
        match config.memory {
            Memory::Kept => forget_another_future(&mut batch, replica)?,
            Memory::Afresh => batch.clear()?,
        }
        let base = Noted::load(&batch, config.base)?;
        let afresh = forget_an_older_copy(&mut batch, found)?;
        let at_home = batch.is_compared()?;
        let behind = batch.note(BEHIND)?.is_some();
        if behind {
            // It may be the next one already, of which the memory was cut off.
            batch.set_note(BEHIND, &found.file)?;
        }
        let tokens = Tokens::after(found.token);
        batch.set_note(TOKENS, &tokens.to_bytes())?;
        let counts = batch.commit(Keep::Now)?;
        Ok(Self {
            base,
            tokens,
            counts,
            afresh,
            at_home,
            behind,
        })
    }
}

/// If the directory has a token that this memory does not know, it is a copy that was made earlier and put in the place of
/// the folder. What it lacks was not deleted, and what differs in it was not written after what the mesh shows: everything
/// is compared afresh. Answers whether there was anything to forget.
fn forget_an_older_copy(batch: &mut Batch, found: &Marker) -> Result<bool, StateError> {
    let known = batch.note(TOKENS)?;
    let known = known.as_deref().and_then(Tokens::from_bytes);
    let is_known = known.is_some_and(|known| known.know(found.token));
    // Killed before the marker was renewed: a copy that was made just before has the same token.
    let is_renewed = known.is_some_and(|known| known.next == found.token);
    let behind = batch.note(BEHIND)?;
    let is_copy = !is_renewed && behind.is_some_and(|file| file != found.file);
    if (is_known && !is_copy) || batch.counts() == Counts::default() {
        return Ok(false);
    }
    tracing::warn!("this is not the folder that was synced last: comparing everything afresh");
    batch.clear()?;
    batch.remove_note(BEHIND)?;
    Ok(true)
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
