//! When the folder's marker gets another token: before the memory of what was recorded or shown is durable, at most once a
//! second, and in the end for what came within the second. `engine` ends its steps with it. Until then the memory says
//! which file the marker is: a copy can have its token, but is another file.

use std::time::{Duration, Instant};

use super::engine::{Engine, Outcome};
use super::marker::{self, Tokens};
use super::state::Batch;

/// The marker is renewed at most this often.
const RENEW: Duration = Duration::from_secs(1);
/// After a failure it is left alone for so long.
const RETRY: Duration = Duration::from_secs(30);
/// The note of the folder's memory that holds the tokens it knows.
pub(crate) const TOKENS: &str = "tokens";
/// The note of which file the marker is, while more is remembered than it stands for.
pub(crate) const BEHIND: &str = "behind";

/// When the marker is to be renewed: what was recorded since makes a copy of the directory an old one.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Something was.
    pub(super) due: bool,
    last: Option<Instant>,
    /// The memory says that the marker is behind it.
    noted: bool,
}

impl Renewal {
    /// At once: what a killed process recorded after it had renewed the marker is not known. `noted`: its memory says that
    /// there was something.
    pub(crate) fn new(noted: bool) -> Self {
        Self {
            due: true,
            last: None,
            noted,
        }
    }

    /// When, if it is.
    pub(crate) fn at(&self, now: Instant) -> Option<Instant> {
        self.due.then(|| self.last.map_or(now, |last| last + RENEW))
    }

    /// No later than with what is recorded next.
    pub(crate) fn hurry(&mut self) {
        self.last = None;
    }
}

impl Engine {
    /// Gives the marker a token that no copy of the directory has, before the memory of what changed since is durable.
    pub(super) fn renew_marker(&mut self, batch: &mut Batch) -> Outcome<()> {
        let now = Instant::now();
        if self.renewal.at(now).is_none_or(|at| at > now) {
            return Ok(());
        }
        self.renewal.last = Some(now);
        if self.is_itself().is_err() {
            // What stands there now must not be made the folder by this.
            return Ok(());
        }
        let next = self.ground.tokens().next;
        if let Err(error) = marker::write(&self.root, &self.owner, next) {
            // A full or read-only disk. The old token goes on to be known.
            self.renewal.last = Some(now + RETRY);
            tracing::debug!(%error, "the folder's marker cannot be renewed");
            return Ok(());
        }
        let tokens = Tokens::after(next);
        batch.set_note(TOKENS, &tokens.to_bytes())?;
        batch.remove_note(BEHIND)?;
        self.ground.renewed(tokens);
        self.renewal.due = false;
        self.renewal.noted = false;
        Ok(())
    }

    /// What this batch remembers may become durable before the marker is renewed. A process that is killed in between
    /// must be able to tell its folder from a copy that was made of it a moment before.
    pub(super) fn note_behind(&mut self, batch: &mut Batch) -> Outcome<()> {
        if self.renewal.noted || !self.renewal.due || !batch.is_changed() {
            return Ok(());
        }
        // A marker that cannot be looked at is not believed later.
        let file = marker::file(&self.root).unwrap_or_default();
        batch.set_note(BEHIND, &file)?;
        self.renewal.noted = true;
        Ok(())
    }
}
