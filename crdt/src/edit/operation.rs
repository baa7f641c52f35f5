//! The operations: what each [`Edit`] checks, and which registers it writes.

use crate::edit::{Edit, FileInput, NewAttributes, NewNode, TreeError};
use crate::entry::{Entry, EntryKey, Kind, Mode, Version};
use crate::id::EntryId;
use crate::index::IndexError;
use crate::name::{EntryName, MAX_DEPTH};
use crate::register::{Body, ContentRecord, Extensions, Node, Origin, Placement, State};
use crate::rule::naming::conflict_name;
use crate::settle::{Draft, History};

impl Draft<'_> {
    /// Performs one edit, completely.
    pub(super) fn perform(&mut self, edit: &Edit) -> Result<(), TreeError> {
        match edit {
            Edit::Create {
                id,
                parent,
                name,
                node,
                mode,
            } => {
                let parent = self.directory(parent)?;
                self.check_free(&parent, name, &[])?;
                self.create(*id, parent, name, node, *mode)?;
            }
            Edit::CreateBeside {
                id,
                parent,
                name,
                node,
                mode,
            } => {
                if *node == NewNode::Directory {
                    return Err(TreeError::IsDirectory {
                        key: EntryKey::from(*id),
                    });
                }
                let parent = self.directory(parent)?;
                self.create(*id, parent, name, node, *mode)?;
            }
            Edit::Write {
                key,
                content: FileInput { content, mtime },
                base,
            } => {
                let (content, mtime) = (*content, *mtime);
                self.rewrite(key, Body::File { content, mtime }, *base)?;
            }
            Edit::Retarget { key, target, base } => {
                let target = target.clone();
                self.rewrite(key, Body::Link { target }, *base)?;
            }
            Edit::Move {
                key,
                parent,
                name,
                base,
            } => {
                let parent = self.directory(parent)?;
                self.move_to(key, *base, parent, name, None)?;
            }
            Edit::Replace { key, over, base } => self.replace(key, over, *base)?,
            Edit::Remove { key, base } => self.remove(key, *base)?,
            Edit::SetAttributes {
                key,
                attributes,
                base,
            } => self.set_attributes(key, *attributes, *base)?,
        }
        self.settle()
    }

    fn create(
        &mut self,
        id: EntryId,
        parent: EntryId,
        name: &EntryName,
        node: &NewNode,
        mode: Option<Mode>,
    ) -> Result<(), TreeError> {
        self.check_depth(&parent)?;
        if id == EntryId::ROOT || self.placement(&id)?.is_some() {
            return Err(TreeError::IdTaken { id });
        }
        let moved = self.tick();
        let (node, body) = match node {
            NewNode::Directory => (Node::Directory, None),
            NewNode::File(FileInput { content, mtime }) => (
                Node::Leaf,
                Some(Body::File {
                    content: *content,
                    mtime: *mtime,
                }),
            ),
            NewNode::Symlink(target) => (
                Node::Leaf,
                Some(Body::Link {
                    target: target.clone(),
                }),
            ),
        };
        self.put_placement(
            id,
            Placement {
                parent,
                name: name.clone(),
                node,
                state: State::Live,
                moved,
                written: moved,
                from: None,
                seen: Vec::new(),
                had: Vec::new(),
                copy_of: None,
                extensions: Extensions::default(),
            },
        );
        let kind = match &body {
            None => Kind::Directory,
            Some(Body::File { .. }) => Kind::File,
            Some(Body::Link { .. }) => Kind::Symlink,
        };
        if let Some(body) = body {
            let version = self.tick();
            self.put_content(
                id,
                ContentRecord {
                    version,
                    base: Vec::new(),
                    copied: Vec::new(),
                    origin: None,
                    body,
                    fence: None,
                    extensions: Extensions::default(),
                },
            );
        }
        match mode.filter(|mode| kind != Kind::Symlink && *mode != Mode::of_kind(kind)) {
            Some(mode) => Ok(self.put_attributes(id, NewAttributes::of_mode(mode))?),
            None => Ok(()),
        }
    }

    /// Puts other bytes, or another target, in the place of what the writer had in hand. When that has
    /// become a copy, it is the copy that is replaced, and what is shown now is kept.
    fn rewrite(
        &mut self,
        key: &EntryKey,
        body: Body,
        base: Option<Version>,
    ) -> Result<(), TreeError> {
        let copy = self.in_hand(key, base)?;
        let entry = self.leaf(key)?;
        let unseen = unseen(&entry, key, base);
        let kind = match &body {
            Body::File { .. } => Kind::File,
            Body::Link { .. } => Kind::Symlink,
        };
        // What came unseen may be of another kind.
        if entry.kind != kind && !unseen {
            return Err(TreeError::WrongKind { key: *key });
        }
        if unseen {
            self.keep_copy(&entry, &body)?;
            self.trash_in_hand(&entry.key.id, base, copy)?;
        }
        self.overwrite(&entry.key.id, body)
    }

    fn remove(&mut self, key: &EntryKey, base: Option<Version>) -> Result<(), TreeError> {
        let entry = self.entry(key)?;
        if entry.is_directory() {
            return match base {
                None => self.trash_tree(&entry.key.id),
                Some(_) => self.trash_alone(&entry.key.id),
            };
        }
        let copy = self.in_hand(key, base)?;
        let entry = self.leaf(key)?;
        if unseen(&entry, key, base) {
            return self.trash_in_hand(&entry.key.id, base, copy);
        }
        self.trash(&entry.key.id)
    }

    fn set_attributes(
        &mut self,
        key: &EntryKey,
        attributes: NewAttributes,
        base: Option<Version>,
    ) -> Result<(), TreeError> {
        let shown = self.entry(key)?;
        if shown.is_directory() {
            return self.change_attributes(&shown, attributes);
        }
        let copy = self.in_hand(key, base)?;
        let mut entry = self.leaf(key)?;
        let unseen = unseen(&entry, key, base);
        if let Some(copy) = copy.filter(|_| unseen)
            && let Some(now) = self.shown(&copy.key)?
        {
            entry = now;
        } else if unseen {
            let NewAttributes { mode, .. } = attributes;
            return self.change_attributes(&entry, NewAttributes { mode, mtime: None });
        }
        if entry.kind == Kind::Symlink {
            return Err(TreeError::WrongKind { key: *key });
        }
        self.change_attributes(&entry, attributes)
    }

    /// Writes what differs from what is shown.
    fn change_attributes(&mut self, entry: &Entry, new: NewAttributes) -> Result<(), TreeError> {
        let known = entry.file.map(|file| file.mtime);
        let new = NewAttributes {
            mode: new
                .mode
                .filter(|mode| entry.kind != Kind::Symlink && *mode != entry.mode),
            mtime: new
                .mtime
                .filter(|mtime| known.is_some_and(|known| known != *mtime)),
        };
        if new != NewAttributes::default() {
            self.put_attributes(entry.key.id, new)?;
        }
        Ok(())
    }

    /// What now shows the version that a user had in hand, when that is not what `key` shows.
    fn in_hand(
        &mut self,
        key: &EntryKey,
        base: Option<Version>,
    ) -> Result<Option<Entry>, TreeError> {
        match base.filter(|_| key.version.is_none()) {
            None => Ok(None),
            Some(_) => Ok(self.shown(&EntryKey {
                id: key.id,
                version: base,
            })?),
        }
    }

    /// Removes what became of the version that a user had in hand, and replaced or removed.
    fn trash_in_hand(
        &mut self,
        id: &EntryId,
        base: Option<Version>,
        copy: Option<Entry>,
    ) -> Result<(), TreeError> {
        if let Some(base) = base {
            self.trash_copies(id, base)?;
        }
        if let Some(copy) = copy
            && let Some(copy) = self.shown(&copy.key)?
        {
            self.trash(&copy.key.id)?;
        }
        Ok(())
    }

    /// Removes what somebody else made of a version that is now replaced by its writer, unless it was moved or
    /// written to since.
    fn trash_copies(&mut self, id: &EntryId, version: Version) -> Result<(), TreeError> {
        for copy in self.index.copies(id)? {
            let untouched = self
                .placement(&copy)?
                .is_some_and(|at| at.state == State::Live && at.moved == version);
            let same = matches!(self.contents(&copy)?.as_slice(), [one] if one.version == version);
            if untouched && same {
                self.trash(&copy)?;
            }
        }
        Ok(())
    }

    /// Gives what a leaf shows an entry of its own under a conflict name, unless `body` is the same.
    fn keep_copy(&mut self, entry: &Entry, body: &Body) -> Result<(), TreeError> {
        let alive = self.contents(&entry.key.id)?;
        let Some(record) = alive.into_iter().find(|record| !record.body.same(body)) else {
            return Ok(());
        };
        let index = &self.index;
        let name = conflict_name(&entry.name, entry.key.id, record.version, |fold| {
            Ok::<_, IndexError>(index.row(&entry.parent, fold)?.is_some())
        })?;
        let key = EntryKey {
            id: entry.key.id,
            version: Some(record.version),
        };
        self.materialise(
            &Entry {
                key,
                name,
                ..entry.clone()
            },
            &record,
        )?;
        Ok(())
    }

    /// Replaces all contents of an opened leaf.
    fn overwrite(&mut self, id: &EntryId, body: Body) -> Result<(), TreeError> {
        let History { base, copied } = self.history(id)?;
        let replaced = self.contents(id)?;
        let extensions = replaced.first().map(|record| record.extensions.of_entry());
        let version = self.tick();
        self.put_content(
            *id,
            ContentRecord {
                version,
                base,
                copied,
                origin: None,
                body,
                fence: None,
                extensions: extensions.unwrap_or_default(),
            },
        );
        Ok(())
    }

    /// `parent` stands for itself. The name must be free, or the entry's own, or that of the empty
    /// directory `over`, which goes in the same moment: nobody else can take the name.
    fn move_to(
        &mut self,
        key: &EntryKey,
        base: Option<Version>,
        parent: EntryId,
        name: &EntryName,
        over: Option<&EntryKey>,
    ) -> Result<(), TreeError> {
        let entry = self.entry(key)?;
        let mut had = Vec::new();
        let group = if entry.is_directory() {
            self.check_outside(&entry.key, &parent)?;
            self.pin_fallbacks_above(&parent)?;
            self.update()?;
            self.index.members(&entry.key.id)?
        } else {
            let entry = self.leaf(key)?;
            if !unseen(&entry, key, base) {
                had.push(entry.version);
            }
            vec![entry.key.id]
        };
        let mut holders = group.clone();
        if let Some(over) = over {
            holders.push(over.id);
            self.trash_tree(&over.id)?;
        }
        self.check_free(&parent, name, &holders)?;
        self.check_depth(&parent)?;
        // In this order the first keeps standing for the others.
        for id in group {
            self.place_at(&id, parent, name, &had)?;
        }
        Ok(())
    }

    fn place_at(
        &mut self,
        id: &EntryId,
        parent: EntryId,
        name: &EntryName,
        had: &[Version],
    ) -> Result<(), TreeError> {
        self.mean(id)?;
        let record = self.index.record(id)?.ok_or(IndexError::Damaged)?;
        let was = record.claim.clone().ok_or(IndexError::Damaged)?;
        let old_name = record.name().clone();
        let old = self.placement(id)?.ok_or(IndexError::Damaged)?;
        let from = if self.index.stands(&was.parent)? == parent {
            old.from.map(|origin| Origin {
                name: name.clone(),
                ..origin
            })
        } else {
            Some(Origin {
                parent: was.parent,
                name: old_name,
            })
        };
        let seen = self.removed(id)?;
        let moved = self.tick();
        self.put_placement(
            *id,
            Placement {
                parent,
                name: name.clone(),
                node: old.node,
                state: State::Live,
                moved,
                written: moved,
                from,
                seen,
                had: had.to_vec(),
                copy_of: None,
                extensions: old.extensions.of_entry(),
            },
        );
        Ok(())
    }

    fn replace(
        &mut self,
        key: &EntryKey,
        over: &EntryKey,
        base: Option<Version>,
    ) -> Result<(), TreeError> {
        let (source, target) = (self.entry(key)?, self.entry(over)?);
        if source.key == target.key {
            return Ok(());
        }
        match (source.is_directory(), target.is_directory()) {
            (true, false) => return Err(TreeError::NotDirectory { key: *over }),
            (false, true) => return Err(TreeError::IsDirectory { key: *over }),
            (true, true) => {
                for member in self.index.members(&target.key.id)? {
                    if !self.index.claims_in(&member)?.is_empty() {
                        return Err(TreeError::NotEmpty { key: *over });
                    }
                }
                return self.move_to(key, None, target.parent, &target.name, Some(&target.key));
            }
            (false, false) => {}
        }
        let source = self.leaf(key)?;
        let copy = self.in_hand(over, base)?;
        let target = self.leaf(over)?;
        let contents = self.contents(&source.key.id)?;
        let mut body = contents.into_iter().next().ok_or(IndexError::Damaged)?.body;
        if let (Body::File { mtime, .. }, Some(file)) = (&mut body, source.file) {
            *mtime = file.mtime;
        }
        if unseen(&target, over, base) {
            self.keep_copy(&target, &body)?;
            self.trash_in_hand(&target.key.id, base, copy)?;
        }
        self.overwrite(&target.key.id, body)?;
        // What is shown does not tell: the register of what became a symlink may still say so.
        let record = self.index.record(&target.key.id)?;
        let mode = record.and_then(|record| record.merged.mode);
        if source.kind == Kind::File && source.mode != mode.unwrap_or(Mode::FILE) {
            self.put_attributes(target.key.id, NewAttributes::of_mode(source.mode))?;
        }
        self.trash(&source.key.id)
    }

    /// Trashes a directory and all that it stands for, but nothing of what is in it.
    fn trash_alone(&mut self, id: &EntryId) -> Result<(), TreeError> {
        for member in self.index.members(id)? {
            self.trash(&member)?;
        }
        Ok(())
    }

    /// Trashes a directory, all that it stands for, and all that is shown below.
    fn trash_tree(&mut self, id: &EntryId) -> Result<(), TreeError> {
        let mut directories = self.index.members(id)?;
        while let Some(directory) = directories.pop() {
            for (_, child) in self.index.claims_in(&directory)? {
                if self.index.is_directory(&child)? {
                    directories.push(child);
                } else {
                    self.trash(&child)?;
                }
            }
            self.trash(&directory)?;
        }
        Ok(())
    }

    /// What `key` shows.
    fn entry(&mut self, key: &EntryKey) -> Result<Entry, TreeError> {
        if key.id == EntryId::ROOT {
            return Err(TreeError::Root);
        }
        self.shown(key)?.ok_or(TreeError::NotFound { key: *key })
    }

    /// A file or symlink that is the only content of its entry, made so if need be.
    fn leaf(&mut self, key: &EntryKey) -> Result<Entry, TreeError> {
        let entry = self.entry(key)?;
        if entry.is_directory() {
            return Err(TreeError::IsDirectory { key: *key });
        }
        self.open(&entry.key.id)?;
        self.entry(key)
    }

    /// The directory that stands for `id`.
    fn directory(&mut self, id: &EntryId) -> Result<EntryId, TreeError> {
        if *id == EntryId::ROOT {
            return Ok(*id);
        }
        let entry = self.entry(&EntryKey::from(*id))?;
        match entry.is_directory() {
            true => Ok(entry.key.id),
            false => Err(TreeError::NotDirectory { key: entry.key }),
        }
    }

    fn check_free(
        &self,
        parent: &EntryId,
        name: &EntryName,
        except: &[EntryId],
    ) -> Result<(), TreeError> {
        match self.index.row(parent, &name.fold())? {
            Some(entry) if entry.key.version.is_some() || !except.contains(&entry.key.id) => {
                Err(TreeError::NameTaken {
                    parent: *parent,
                    name: name.clone(),
                    by: entry.key,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_depth(&mut self, parent: &EntryId) -> Result<(), TreeError> {
        let mut depth = 1;
        let mut at = *parent;
        while let Some(claim) = self
            .index
            .record(&at)?
            .and_then(|record| record.claim.as_ref())
        {
            at = claim.parent;
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(TreeError::TooDeep);
            }
        }
        Ok(())
    }

    fn check_outside(&mut self, key: &EntryKey, parent: &EntryId) -> Result<(), TreeError> {
        let mut at = *parent;
        while at != EntryId::ROOT {
            at = self.index.stands(&at)?;
            if at == key.id {
                return Err(TreeError::IntoItself { key: *key });
            }
            let claim = self
                .index
                .record(&at)?
                .and_then(|record| record.claim.as_ref());
            at = claim.ok_or(IndexError::Damaged)?.parent;
        }
        Ok(())
    }
}

/// Whether `entry`, which `key` shows, is not the version that the user had in hand.
fn unseen(entry: &Entry, key: &EntryKey, base: Option<Version>) -> bool {
    key.version.is_none() && base.is_some_and(|base| base != entry.version)
}
