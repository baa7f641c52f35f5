//! Drafts of edits: what is to be said to the mesh, and what to remember once it was said. `submit` says it.

use std::path::Path;
use std::sync::Arc;

use wormhole_crdt::{
    DeviceTag, Edit, Entry, EntryId, EntryKey, FileInput, NewAttributes, NewNode, Version,
};

use super::{Place, Row};
use crate::folder::beneath::{self, Seen};
use crate::folder::engine::{BUSY_PAUSE, Outcome, Step, node_of, version_of};
use crate::folder::name;
use crate::folder::plan::Node;
use crate::folder::status::Reason;

/// Entries that the drafts of one envelope speak of. Each can take more than a kibibyte, if names are long.
pub(super) const ENVELOPE_ENTRIES: usize = 400;

/// One thing to say.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(super) edits: Vec<Edit>,
    /// Entries that the edits speak of: many, if a directory goes with all below it.
    pub(super) entries: usize,
    pub(super) place: Place,
    pub(super) path: Arc<Path>,
    /// What to remember afterwards; its version is filled in from the answer.
    pub(super) after: After,
}

/// What to remember once a draft was said.
#[derive(Debug)]
pub(super) enum After {
    Put(Row),
    /// The row was written when the draft was made.
    Done,
    /// Forget the place and all below it.
    Remove,
}

impl Step<'_> {
    /// Drafts the difference between what was last synced and what the disk shows.
    #[expect(
        clippy::too_many_arguments,
        reason = "the three sides of a merge, and where"
    )]
    pub(crate) fn draft(
        &mut self,
        place: &Place,
        path: &Path,
        row: Option<Row>,
        entry: Option<Entry>,
        node: Node,
        seen: Seen,
        racy: bool,
    ) -> Outcome<()> {
        let read_only = self.engine.is_read_only();
        if let Some(row) = &row
            && row.node.is_directory()
            && node.is_directory()
            && (read_only || entry.is_none())
        {
            // Other permissions bring no directory back, and move none out of the way.
            let (key, row) = (row.key, row.clone());
            self.batch.put(place, &Row { seen, ..row })?;
            self.todo.keys.push(key);
            return Ok(());
        }
        if read_only
            && let (Some(row), Some(_)) = (&row, &entry)
            && differ_in_time_only(&row.node, &node)
        {
            // What was put back is as the mesh has it, however late that was.
            self.batch.put(
                place,
                &Row {
                    seen,
                    ..row.clone()
                },
            )?;
            self.engine.problems.clear(path);
            return Ok(());
        }
        if read_only {
            return self.keep_local(place, path, row.as_ref(), entry.as_ref());
        }
        let new = Row {
            key: row.as_ref().map_or(EntryKey::ROOT, |row| row.key),
            version: row.as_ref().and_then(|row| row.version),
            node,
            seen,
            racy,
        };
        match (row, entry) {
            (Some(row), Some(entry)) => {
                let base = in_hand(&row, &entry);
                let edits = differences(&row, &new, base);
                self.push_draft(edits, place, path, After::Put(new));
                Ok(())
            }
            // Deleted there, changed here: what was changed survives, as a new entry.
            (Some(_), None) => {
                self.batch.remove(place)?;
                self.draft_new(place, path, new)
            }
            (None, Some(entry)) => self.draft_beside(place, path, &entry, new),
            (None, None) => self.draft_new(place, path, new),
        }
    }

    /// Something here of which nothing is remembered, where the mesh shows something of its own: it was there before the
    /// folder was joined, or its memory was lost, or both are new. What everybody knows keeps the name, and this goes
    /// beside it, however old or new it is.
    fn draft_beside(&mut self, place: &Place, path: &Path, entry: &Entry, new: Row) -> Outcome<()> {
        // A directory that is remembered there vanished, and is to be judged as such.
        let is_free = self.batch.get(place)?.is_none();
        let Some(node) = new_leaf(&new.node).filter(|_| is_free) else {
            return self.step_aside(place, path, Some(entry.key));
        };
        let id = self.fresh_id(place.parent)?;
        let edit = Edit::CreateBeside {
            id,
            parent: place.parent,
            name: place.name.clone(),
            node,
            mode: new.node.mode(),
        };
        let key = EntryKey::from(id);
        self.push_draft(vec![edit], place, path, After::Put(Row { key, ..new }));
        // It may have its name once this has been said, and moved away.
        self.todo.keys.extend([key, entry.key]);
        Ok(())
    }

    fn draft_new(&mut self, place: &Place, path: &Path, new: Row) -> Outcome<()> {
        let taken = self
            .engine
            .replica
            .lookup(place.parent, place.name.as_str())?;
        if let Some(other) = taken {
            return self.draft_taken(place, path, &other, &new);
        }
        let Some(place) = self.living_place(place, path)? else {
            return Ok(());
        };
        let node = new_leaf(&new.node).unwrap_or(NewNode::Directory);
        let mode = new.node.mode();
        let id = self.fresh_id(place.parent)?;
        let edit = Edit::Create {
            id,
            parent: place.parent,
            name: place.name.clone(),
            node,
            mode,
        };
        let new = Row {
            key: EntryKey::from(id),
            ..new
        };
        if new.node.is_directory() {
            // What is in it needs its id at once.
            self.batch.put(&place, &new)?;
            self.push_draft(vec![edit], &place, path, After::Done);
        } else {
            self.push_draft(vec![edit], &place, path, After::Put(new));
        }
        Ok(())
    }

    /// The mesh shows something synced at another place, or in another spelling, under this name.
    fn draft_taken(&mut self, place: &Place, path: &Path, other: &Entry, new: &Row) -> Outcome<()> {
        let Some((at, row)) = self.batch.by_key(&other.key)? else {
            return self.step_aside(place, path, Some(other.key));
        };
        let shown_there = at == Place::new(other.parent, other.name.clone());
        let free = match self.dir(at.parent)? {
            Some(dir) => matches!(self.look(&dir, at.os_name()), Ok(None)),
            None => self.is_dir_gone(at.parent)?,
        };
        if shown_there && free && row.seen.kind == new.seen.kind && at != *place {
            // The old spelling went away and the new one came: a rename of the same entry.
            let edits = vec![move_edit(&row, other, place)];
            self.batch.relocate(&at, place)?;
            self.push_draft(edits, place, path, After::Done);
            self.todo.paths.push(path.to_owned());
            return Ok(());
        }
        if shown_there {
            let other = other.name.display().to_string();
            self.engine
                .problems
                .report(path, Reason::CaseClash { other });
            return Ok(());
        }
        self.step_aside(place, path, Some(other.key))
    }

    /// Drafts a rename. Answers where it leads: another directory may stand there for one that was deleted elsewhere. `None`
    /// when it is no rename to the mesh; the path is then looked at again.
    pub(crate) fn draft_move(
        &mut self,
        from: &Place,
        to: &Place,
        path: &Path,
        row: &Row,
    ) -> Outcome<Option<Place>> {
        if self.is_drafted(row.key.id) {
            self.submit()?;
        }
        let Some(entry) = self.shown(&row.key)? else {
            // Deleted there, renamed here: it survives as something new.
            self.batch.remove_tree(from)?;
            self.todo.paths.push(path.to_owned());
            return Ok(None);
        };
        if entry.parent == to.parent && entry.name == to.name {
            return Ok(Some(to.clone()));
        }
        let taken = self.engine.replica.lookup(to.parent, to.name.as_str())?;
        if let Some(other) = taken.filter(|other| other.key != row.key) {
            let waits_for_deletion = self.batch.by_key(&other.key)?.is_some();
            if waits_for_deletion {
                self.engine.problems.report(
                    path,
                    Reason::CaseClash {
                        other: other.name.display().to_string(),
                    },
                );
                self.todo.later.push((path.to_owned(), BUSY_PAUSE));
            } else {
                self.step_aside(to, path, Some(other.key))?;
            }
            return Ok(None);
        }
        let Some(to) = self.living_place(to, path)? else {
            return Ok(None);
        };
        self.push_draft(vec![move_edit(row, &entry, &to)], &to, path, After::Done);
        Ok(Some(to))
    }

    /// Drafts the deletion of so many entries at a place and below it; without edits, of the memory alone.
    pub(super) fn draft_removal(
        &mut self,
        place: &Place,
        path: &Path,
        edits: Vec<Edit>,
        entries: usize,
    ) {
        self.push_draft(edits, place, path, After::Remove);
        if let Some(draft) = self.drafts.last_mut() {
            draft.entries = entries;
        }
    }

    fn push_draft(&mut self, edits: Vec<Edit>, place: &Place, path: &Path, after: After) {
        self.drafts.push(Draft {
            entries: edits.len(),
            edits,
            place: place.clone(),
            path: Arc::from(path),
            after,
        });
    }

    /// Drafts a directory that nothing on disk stands for.
    pub(crate) fn draft_directory(&mut self, edit: Edit, place: &Place) {
        self.push_draft(vec![edit], place, Path::new(""), After::Done);
    }

    pub(crate) fn is_drafted(&self, id: EntryId) -> bool {
        self.drafts.iter().any(|draft| {
            draft
                .edits
                .iter()
                .any(|edit| matches!(edit, Edit::Create { id: new, .. } if *new == id))
        })
    }

    /// The place with a parent that the mesh still shows. A directory that was deleted elsewhere while something was put
    /// into it here comes back as a new one; what else was put into it is then looked for. `None` when nothing can be told
    /// of the path yet.
    fn living_place(&mut self, place: &Place, path: &Path) -> Outcome<Option<Place>> {
        let parent = place.parent;
        if parent == self.engine.config.base {
            let is_shown = self.revive_base()?;
            let place = Place::new(self.engine.config.base, place.name.clone());
            return Ok(is_shown.then_some(place));
        }
        if self.is_drafted(parent)
            || self
                .engine
                .replica
                .entry(&EntryKey::from(parent))?
                .is_some()
        {
            return Ok(Some(place.clone()));
        }
        let Some((at, row)) = self.batch.by_key(&EntryKey::from(parent))? else {
            // Another directory stands for it since this one was looked up.
            self.todo.paths.push(path.to_owned());
            return Ok(None);
        };
        let above = path.parent().unwrap_or(Path::new(""));
        let Some(at) = self.living_place(&at, above)? else {
            return Ok(None);
        };
        let path = self.path_of(&at)?.unwrap_or_default();
        let id = self.fresh_id(at.parent)?;
        let edit = Edit::Create {
            id,
            parent: at.parent,
            name: at.name.clone(),
            node: NewNode::Directory,
            mode: row.node.mode(),
        };
        self.rekey_children(&at, EntryKey::from(id))?;
        self.batch.put(
            &at,
            &Row {
                key: EntryKey::from(id),
                ..row
            },
        )?;
        self.push_draft(vec![edit], &at, &path, After::Done);
        self.todo.scans.push(path);
        Ok(Some(Place::new(id, place.name.clone())))
    }

    fn fresh_id(&mut self, parent: EntryId) -> Outcome<EntryId> {
        Ok(self.engine.replica.fresh_id(parent, &mut rand::rng())?)
    }

    pub(super) fn tag(&self) -> DeviceTag {
        self.engine.replica.device().tag()
    }

    /// The name is needed for something else: what is here gets a name beside it, and is looked at again.
    fn step_aside(&mut self, place: &Place, path: &Path, for_key: Option<EntryKey>) -> Outcome<()> {
        let Some(dir) = self.dir(place.parent)? else {
            return Ok(());
        };
        for attempt in 1..100 {
            let Some(aside) = name::aside(&place.name, attempt) else {
                break;
            };
            let taken = self
                .engine
                .replica
                .lookup(place.parent, aside.as_str())?
                .is_some();
            if taken {
                continue;
            }
            let to = Place::new(place.parent, aside);
            match beneath::rename_new(dir.at(place.os_name()), dir.at(to.os_name())) {
                Ok(()) => {
                    self.touch(&dir);
                    self.todo.keys.extend(for_key);
                    self.todo.paths.push(name::child(&dir.path, &to.name));
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    self.engine.io_problem(path, &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A read-only member changed something: it stays, is reported, and makes way if the mesh needs the name.
    fn keep_local(
        &mut self,
        place: &Place,
        path: &Path,
        row: Option<&Row>,
        entry: Option<&Entry>,
    ) -> Outcome<()> {
        let wanted = match (row, entry) {
            (None, Some(_)) => true,
            (Some(row), Some(entry)) => node_of(entry).as_ref() != Some(&row.node),
            (Some(_), None) => true,
            (None, None) => false,
        };
        if !wanted {
            self.engine.problems.report(path, Reason::ReadOnlyMember);
            return Ok(());
        }
        if row.is_some() {
            self.batch.remove_tree(place)?;
        }
        self.step_aside(place, path, entry.map(|entry| entry.key))
    }
}

/// The version that this device has, where the mesh shows `entry`. What is shown now was seen, too, if it is the
/// same: somebody has written it once more.
fn in_hand(row: &Row, entry: &Entry) -> Option<Version> {
    match node_of(entry).as_ref() == Some(&row.node) {
        true => version_of(entry),
        false => row.version,
    }
}

fn move_edit(row: &Row, shown: &Entry, to: &Place) -> Edit {
    Edit::Move {
        key: row.key,
        parent: to.parent,
        name: to.name.clone(),
        base: in_hand(row, shown),
    }
}

/// Whether two files have the same bytes and permissions.
fn differ_in_time_only(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (
            Node::File { content, mode, .. },
            Node::File {
                content: bytes,
                mode: shown,
                ..
            },
        ) => content == bytes && mode == shown,
        _ => false,
    }
}

/// What a new file or symlink is to the mesh. `None` for a directory.
fn new_leaf(node: &Node) -> Option<NewNode> {
    match node {
        Node::Directory { .. } => None,
        Node::Symlink { target } => Some(NewNode::Symlink(target.clone())),
        Node::File { content, mtime, .. } => Some(NewNode::File(FileInput {
            content: *content,
            mtime: *mtime,
        })),
    }
}

/// The edits that turn what was last synced into what the disk shows. `base` is the version that was seen.
fn differences(old: &Row, new: &Row, base: Option<Version>) -> Vec<Edit> {
    let key = old.key;
    let mode = match (old.node.mode(), new.node.mode()) {
        (Some(was), Some(mode)) => Some(mode).filter(|mode| *mode != was),
        _ => None,
    };
    let mut attributes = NewAttributes { mode, mtime: None };
    let mut edits = Vec::new();
    match (&old.node, &new.node) {
        (
            Node::File {
                content: was,
                mtime: then,
                ..
            },
            Node::File { content, mtime, .. },
        ) if was == content => attributes.mtime = Some(*mtime).filter(|mtime| mtime != then),
        (Node::File { .. }, Node::File { content, mtime, .. }) => edits.push(Edit::Write {
            key,
            content: FileInput {
                content: *content,
                mtime: *mtime,
            },
            base,
        }),
        (Node::Symlink { .. }, Node::Symlink { target }) => edits.push(Edit::Retarget {
            key,
            target: target.clone(),
            base,
        }),
        _ => {}
    }
    if attributes != NewAttributes::default() {
        // Those of a version that was just written are not seen by anybody else.
        let base = base.filter(|_| edits.is_empty());
        edits.push(Edit::SetAttributes {
            key,
            attributes,
            base,
        });
    }
    edits
}
