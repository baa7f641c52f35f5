//! Says to the mesh what was drafted, and remembers it.
//!
//! Many drafts are submitted as one envelope. When the mesh refuses one, the batch is halved until only the refused one is
//! left; it becomes a problem or is looked at again, and the others go through.

use std::collections::HashMap;
use std::path::Path;

use wormhole_crdt::{DeviceTag, Edit, EditError, Entry, EntryChange, EntryId, Mode, TreeError};

use super::Row;
use super::draft::{After, Draft, ENVELOPE_ENTRIES};
use crate::error::chain;
use crate::folder::beneath;
use crate::folder::engine::{BUSY_PAUSE, Engine, Outcome, Step, version_of};
use crate::folder::plan::Node;
use crate::folder::state::Keep;
use crate::folder::status::Reason;

impl Step<'_> {
    /// Says everything that was drafted.
    pub(crate) fn submit(&mut self) -> Outcome<()> {
        let mut drafts = std::mem::take(&mut self.drafts);
        if drafts.is_empty() {
            return Ok(());
        }
        self.siblings = None;
        if self.keep == Keep::Now {
            self.engine.store.commit()?;
        }
        while !drafts.is_empty() {
            let rest = drafts.split_off(fitting(&drafts));
            self.say(drafts)?;
            drafts = rest;
        }
        Ok(())
    }

    fn say(&mut self, mut drafts: Vec<Draft>) -> Outcome<()> {
        let edits: Vec<Edit> = drafts
            .iter()
            .flat_map(|draft| draft.edits.iter().cloned())
            .collect();
        if edits.is_empty() {
            return self.remember(drafts, &[]);
        }
        let now = Engine::now();
        let said = match self.keep {
            Keep::Now => self.engine.replica.edit(&edits, now),
            Keep::Later => self.engine.replica.edit_deferred(&edits, now),
        };
        match said {
            Ok(outcome) => {
                self.said = self.keep == Keep::Now;
                self.remember(drafts, &outcome.changes)
            }
            Err(EditError::Storage(error)) => Err(error.into()),
            Err(_) if drafts.len() > 1 => {
                let rest = drafts.split_off(drafts.len() / 2);
                self.say(drafts)?;
                self.say(rest)
            }
            Err(error) => drafts
                .into_iter()
                .try_for_each(|draft| self.refused(&draft, &error)),
        }
    }

    fn remember(&mut self, drafts: Vec<Draft>, changes: &[EntryChange]) -> Outcome<()> {
        let tag = self.tag();
        let mut written: HashMap<EntryId, Vec<&Entry>> = HashMap::new();
        for entry in changes.iter().filter_map(|change| change.after.as_ref()) {
            written.entry(entry.key.id).or_default().push(entry);
        }
        for draft in drafts {
            self.todo.progress = true;
            match draft.after {
                After::Done => {}
                After::Remove => {
                    self.batch.remove_tree(&draft.place)?;
                    self.engine
                        .store
                        .forgotten(&self.engine.config.id, &draft.path)?;
                    self.engine.problems.clear_tree(&draft.path);
                    self.unwatch(&draft.path);
                }
                After::Put(mut row) => {
                    let entries = written
                        .get(&row.key.id)
                        .map(Vec::as_slice)
                        .unwrap_or_default();
                    if let Some(entry) = entries.iter().find(|entry| is_ours(entry, &row, tag)) {
                        row.key = entry.key;
                        row.version = version_of(entry);
                        self.untold_mode(&draft.path, &mut row, entry.mode);
                    }
                    self.batch.put(&draft.place, &row)?;
                }
            }
        }
        Ok(())
    }

    /// A version that was written beside another one has the permissions of that: what the disk shows is a change of its
    /// own, to be told next.
    fn untold_mode(&mut self, path: &Path, row: &mut Row, shown: Mode) {
        if let Node::File { mode, .. } = &mut row.node
            && *mode != shown
        {
            *mode = shown;
            row.seen = row.seen.with_mode(beneath::file_mode(shown));
            self.todo.paths.push(path.to_owned());
        }
    }

    fn refused(&mut self, draft: &Draft, error: &EditError) -> Outcome<()> {
        if let After::Done = draft.after {
            // Its row was written ahead; without it everything there is found again.
            self.batch.remove_tree(&draft.place)?;
            self.forget_dirs();
        }
        match error {
            EditError::NotWriter { .. } => {
                self.engine
                    .problems
                    .report(&draft.path, Reason::ReadOnlyMember);
            }
            // The mesh moved on between looking and saying.
            EditError::Tree(TreeError::NotFound { .. } | TreeError::NameTaken { .. }) => {
                self.todo.later.push((draft.path.to_path_buf(), BUSY_PAUSE));
            }
            _ => {
                let reason = Reason::Refused {
                    message: chain(error),
                };
                self.engine.problems.report(&draft.path, reason);
            }
        }
        Ok(())
    }
}

/// How many of the drafts fit into one envelope: at least one.
fn fitting(drafts: &[Draft]) -> usize {
    let mut entries = 0;
    let fit = drafts.iter().take_while(|draft| {
        entries += draft.entries;
        entries <= ENVELOPE_ENTRIES
    });
    fit.count().max(1)
}

/// Whether this is the version that we have just written.
fn is_ours(entry: &Entry, row: &Row, tag: DeviceTag) -> bool {
    match (&row.node, entry.file) {
        (Node::File { content, .. }, Some(file)) => {
            file.content == *content && file.version.device == tag
        }
        (Node::Symlink { target }, None) => {
            entry.target.as_ref() == Some(target) && entry.version.device == tag
        }
        _ => false,
    }
}
