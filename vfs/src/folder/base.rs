//! Which directory of the mesh a folder shows.
//!
//! For all of a mesh that is the root, which never changes. A directory can be made apart by two devices, and then one
//! stands for both; it can be renamed, be removed, and be made again under its name. The folder follows: it remembers the
//! directory that stands for its own, and the path of that. When there is none, nothing is shown here, and what is put
//! into the folder makes the directory again.

use wormhole_crdt::{Edit, EntryId, EntryKey, EntryPath, Kind, NewNode};

use super::engine::{Outcome, Step};
use super::name::Place;
use super::state::Batch;
use super::status::Reason;
use crate::error::StateError;

/// The note of the folder's memory that holds it.
const NOTE: &str = "base";

/// The directory of the mesh as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    id: EntryId,
    /// In the mesh; empty when it was never seen there.
    path: String,
}

impl Noted {
    /// What is remembered, or else the directory that the folder was bound to. `None` for the root.
    pub(crate) fn load(batch: &Batch, bound: EntryId) -> Result<Option<Self>, StateError> {
        if bound == EntryId::ROOT {
            return Ok(None);
        }
        let Some(note) = batch.note(NOTE)? else {
            return Ok(Some(Self {
                id: bound,
                path: String::new(),
            }));
        };
        let (id, path) = note.split_first_chunk().ok_or(StateError::Damaged)?;
        let path = std::str::from_utf8(path).map_err(|_bad| StateError::Damaged)?;
        Ok(Some(Self {
            id: EntryId::from_bytes(*id),
            path: path.to_owned(),
        }))
    }

    pub(crate) fn id(&self) -> EntryId {
        self.id
    }

    fn save(&self, batch: &mut Batch) -> Result<(), StateError> {
        let mut note = self.id.as_bytes().to_vec();
        note.extend_from_slice(self.path.as_bytes());
        batch.set_note(NOTE, &note)
    }
}

impl Step<'_> {
    /// Looks which directory of the mesh stands for the one that this folder shows.
    pub(super) fn find_base(&mut self) -> Outcome<()> {
        let Some(noted) = self.engine.base.clone() else {
            return Ok(());
        };
        let replica = self.engine.replica.clone();
        let mut shown = replica.entry(&EntryKey::from(noted.id))?;
        if shown.is_none()
            && !noted.path.is_empty()
            && let Ok(path) = noted.path.parse::<EntryPath>()
        {
            shown = replica.resolve(&path)?;
        }
        let Some(shown) = shown.filter(|entry| entry.kind == Kind::Directory) else {
            return Ok(());
        };
        let path = replica.path_of(&shown.key)?;
        let path = path.map_or_else(|| noted.path.clone(), |path| path.to_string());
        let id = shown.key.id;
        self.note_base(Noted { id, path })
    }

    /// The folder shows this directory from now on: what was synced of the one before is of this one.
    fn note_base(&mut self, now: Noted) -> Outcome<()> {
        if self.engine.base.as_ref() == Some(&now) {
            return Ok(());
        }
        let before = self.engine.config.base;
        if before != now.id {
            for (from, _row) in self.batch.children(before)? {
                let to = Place::new(now.id, from.name.clone());
                self.batch.relocate(&from, &to)?;
            }
            self.forget_dirs();
            self.engine.config.base = now.id;
            self.todo.audit = true;
        }
        now.save(&mut self.batch)?;
        self.engine.base = Some(now);
        Ok(())
    }

    /// Makes the folder's directory again if the mesh does not show it any more, because something was put into the folder.
    /// False when it cannot be: that was reported.
    pub(crate) fn revive_base(&mut self) -> Outcome<bool> {
        let Some(noted) = self.engine.base.clone() else {
            return Ok(true);
        };
        let replica = self.engine.replica.clone();
        if self.is_drafted(noted.id) || replica.entry(&EntryKey::from(noted.id))?.is_some() {
            return Ok(true);
        }
        let taken = |reason: &str| Reason::Refused {
            message: format!(
                "the directory of the mesh that this folder shows was removed, and {reason}"
            ),
        };
        let path = noted.path.parse::<EntryPath>().ok();
        let Some(path) = path.filter(|path| !path.is_root()) else {
            self.engine
                .problems
                .report_folder(taken("where it was is not known; unbind the folder"));
            return Ok(false);
        };
        let mut at = EntryId::ROOT;
        for name in path.names() {
            match replica.lookup(at, name.as_str())? {
                _ if self.is_drafted(at) => {}
                Some(there) if there.kind == Kind::Directory => {
                    at = there.key.id;
                    continue;
                }
                Some(_) => {
                    let reason =
                        taken("its name is taken; unbind the folder, or rename what has it");
                    self.engine.problems.report_folder(reason);
                    return Ok(false);
                }
                None => {}
            }
            let id = replica.fresh_id(at, &mut rand::rng())?;
            let edit = Edit::Create {
                id,
                parent: at,
                name: name.clone(),
                node: NewNode::Directory,
                mode: None,
            };
            let place = Place::new(at, name.clone());
            self.draft_directory(edit, &place);
            at = id;
        }
        self.engine.problems.clear_folder(&taken(""));
        let path = noted.path;
        self.note_base(Noted { id: at, path })?;
        Ok(true)
    }
}
