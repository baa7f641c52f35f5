//! The rules of the tree: how merged registers become what everybody sees.
//!
//! All of it is a pure function of the replicated state, so devices that have seen the same writes
//! show the same tree, and merging never writes. Three steps, each usable alone because the index
//! re-derives only what a change affects:
//!
//! 1. [`merge`]: the values of one entry's registers become one state.
//! 2. [`cycle`]: directories that moves made apart have put into one another are pulled out.
//! 3. [`naming`]: entries that claim one name in one directory share it or get other names.
//!
//! A conflict copy that became an entry of its own goes when its version was replaced ([`copy`]).
//!
//! An entry is shown if it has content, or is a live directory, or a removed directory with something
//! shown below it (a *ghost*: somebody still works in there). `full`, in tests, runs the steps over
//! everything at once: the index must always equal it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, EntryKey, FileState, Kind, Mode, Version};
use crate::id::{EntryId, Timestamp};
use crate::name::EntryName;
use crate::register::{
    Attributes, Body, ContentRecord, CopyOf, Node, Origin, Placement, RegisterError, Registers,
    Stamped, State,
};

mod copy;
pub(crate) mod cycle;
#[cfg(test)]
pub(crate) mod full;
pub(crate) mod naming;

/// One entry's registers, merged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Merged {
    pub(crate) parent: EntryId,
    pub(crate) name: EntryName,
    pub(crate) node: Node,
    pub(crate) state: State,
    pub(crate) moved: Version,
    pub(crate) from: Option<Origin>,
    /// The contents that nobody replaced, greatest version first, no two the same. Directories have
    /// none. The first keeps the entry's name, the others are conflict copies beside it.
    pub(crate) variants: Vec<Variant>,
    /// Its permissions, if anything was said of them.
    pub(crate) mode: Option<Mode>,
    /// Beside what it is a conflict copy, as an entry of its own.
    pub(crate) copy_of: Option<CopyOf>,
    /// The time that it was given apart from its content.
    pub(crate) mtime: Option<Stamped<Timestamp>>,
    /// The entries of which contents in the register were copies, ascending: what is written to those
    /// decides about this one.
    pub(crate) origins: Vec<EntryId>,
}

/// One of an entry's contents.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Variant {
    pub(crate) version: Version,
    pub(crate) body: Body,
}

impl Merged {
    pub(crate) fn is_directory(&self) -> bool {
        match self.node {
            Node::Directory => true,
            Node::Leaf => false,
        }
    }

    /// Whether it is shown whatever is below it.
    pub(crate) fn stands_alone(&self) -> bool {
        match self.node {
            Node::Directory => self.state == State::Live,
            Node::Leaf => !self.variants.is_empty(),
        }
    }

    /// The entry as shown under `name` in `parent`; `None` if it has no such content.
    pub(crate) fn show(
        &self,
        key: EntryKey,
        parent: EntryId,
        name: EntryName,
        conflict: bool,
    ) -> Option<Entry> {
        let entry = Entry {
            key,
            parent,
            name,
            kind: Kind::Directory,
            file: None,
            target: None,
            mode: self.mode.unwrap_or(Mode::DIRECTORY),
            conflict: conflict || self.copy_of.is_some(),
            version: self.moved,
        };
        if self.is_directory() {
            return Some(entry);
        }
        let variant = match key.version {
            None => self.variants.first()?,
            Some(version) => self
                .variants
                .iter()
                .find(|variant| variant.version == version)?,
        };
        let entry = Entry {
            version: variant.version,
            ..entry
        };
        Some(match &variant.body {
            Body::File { content, mtime } => Entry {
                kind: Kind::File,
                file: Some(FileState {
                    content: *content,
                    mtime: match key.version {
                        None => self.mtime_over(variant.version, *mtime),
                        Some(_) => *mtime,
                    },
                    version: variant.version,
                }),
                mode: self.mode.unwrap_or(Mode::FILE),
                ..entry
            },
            Body::Link { target } => Entry {
                kind: Kind::Symlink,
                target: Some(target.clone()),
                mode: Mode::SYMLINK,
                ..entry
            },
        })
    }

    /// The time of a content that was written with `mtime`: one that was given to the file since counts.
    fn mtime_over(&self, version: Version, mtime: Timestamp) -> Timestamp {
        match self.mtime {
            Some(given) if given.written > version => given.value,
            Some(_) | None => mtime,
        }
    }
}

/// Reads and merges the registers of `id`; `None` if it was never placed.
pub(crate) fn read(
    registers: &dyn Registers,
    id: &EntryId,
) -> Result<Option<Merged>, RegisterError> {
    let placements = registers.placements(id)?;
    let Some(placement) = winner(&placements) else {
        return Ok(None);
    };
    match placement.node {
        Node::Directory => {
            let attributes = registers.attributes(id)?;
            Ok(Some(merge(placement, Vec::new(), &attributes)))
        }
        Node::Leaf => {
            let contents = registers.contents(id)?;
            let mut origins: Vec<EntryId> =
                contents.iter().filter_map(|record| record.origin).collect();
            origins.sort_unstable();
            origins.dedup();
            let contents = alive(registers, &placements, &contents)?;
            let attributes = registers.attributes(id)?;
            Ok(Some(Merged {
                origins,
                ..merge(placement, contents, &attributes)
            }))
        }
    }
}

/// The placement that counts. A live one beats a trashed one: a rename beats a removal, but a mere
/// repair of the place that was removed does not. Then the latest user operation wins, then the
/// latest write.
pub(crate) fn winner(placements: &[Placement]) -> Option<&Placement> {
    counted(placements).max_by_key(|placement| {
        (
            placement.state,
            placement.moved,
            placement.written,
            *placement,
        )
    })
}

/// The placements without the repairs of a place that was removed.
fn counted(placements: &[Placement]) -> impl Iterator<Item = &Placement> {
    let trashed: HashSet<Version> = placements
        .iter()
        .filter(|placement| placement.state == State::Trashed)
        .map(|placement| placement.moved)
        .collect();
    let removed = move |repair: &Placement| {
        repair.state == State::Live
            && repair.written > repair.moved
            && trashed.contains(&repair.moved)
    };
    placements
        .iter()
        .filter(move |placement| !removed(placement))
}

/// The contents that are there, greatest version first: not replaced by another that knew them, not
/// gone on as entries of their own, and not among those that were removed with the entry.
pub(crate) fn alive(
    registers: &dyn Registers,
    placements: &[Placement],
    contents: &[ContentRecord],
) -> Result<Vec<ContentRecord>, RegisterError> {
    let removed: HashSet<Version> = removed(placements).into_iter().collect();
    let replaced = Listed::of(contents.iter().map(|one| (one.version, &one.base)));
    let handed_on = Listed::of(contents.iter().map(|one| (one.version, &one.copied)));
    let mut origins = copy::Origins::new(registers, placements);
    let mut alive = Vec::new();
    for record in contents {
        let version = record.version;
        let gone = replaced.holds(version)
            || handed_on.holds(version)
            || removed.contains(&version)
            || origins.superseded(record)?;
        if !gone {
            alive.push(record.clone());
        }
    }
    alive.sort_unstable_by(|one, other| other.cmp(one));
    alive.dedup_by_key(|record| record.version);
    Ok(alive)
}

/// The versions that values list, each with the greatest that lists it: finding one takes no longer the more
/// values there are. Only an earlier one is listed for good: of two that list one another, one stays.
struct Listed(HashMap<Version, Version>);

impl Listed {
    fn of<'a>(values: impl Iterator<Item = (Version, &'a Vec<Version>)>) -> Self {
        let mut by = HashMap::new();
        for (version, list) in values {
            for listed in list {
                let greatest = by.entry(*listed).or_insert(version);
                *greatest = version.max(*greatest);
            }
        }
        Self(by)
    }

    fn holds(&self, version: Version) -> bool {
        self.0.get(&version).is_some_and(|by| *by > version)
    }
}

/// The contents that were removed with the entry: all that somebody removed, whether the entry lives or not,
/// but what those had who moved it without knowing of that. Whoever edits and removes a file takes that version
/// with it, also where somebody else has moved the file meanwhile: nobody may have its bytes any more.
pub(crate) fn removed(placements: &[Placement]) -> Vec<Version> {
    let had: HashSet<Version> = had(placements).into_iter().collect();
    let seen = placements.iter().flat_map(|placement| &placement.seen);
    seen.filter(|version| !had.contains(version))
        .copied()
        .collect()
}

/// The contents that those had who moved the entry.
pub(crate) fn had(placements: &[Placement]) -> Vec<Version> {
    let live = counted(placements).filter(|placement| placement.state == State::Live);
    live.flat_map(|placement| &placement.had).copied().collect()
}

fn merge(placement: &Placement, alive: Vec<ContentRecord>, attributes: &[Attributes]) -> Merged {
    let mut bodies = HashSet::new();
    let first: Vec<bool> = alive
        .iter()
        .map(|record| bodies.insert(record.body.identity()))
        .collect();
    let alive = alive.into_iter().zip(first);
    let variants = alive
        .filter(|(_, first)| *first)
        .map(|(ContentRecord { version, body, .. }, _)| Variant { version, body })
        .collect();
    let attributes = Attributes::merge(attributes);
    Merged {
        parent: placement.parent,
        name: placement.name.clone(),
        node: placement.node,
        state: placement.state,
        moved: placement.moved,
        from: placement.from.clone(),
        variants,
        copy_of: placement.copy_of.clone(),
        mode: attributes
            .as_ref()
            .and_then(|attributes| Some(attributes.mode?.value)),
        mtime: attributes.and_then(|attributes| attributes.mtime),
        origins: Vec::new(),
    }
}

/// Where a directory hangs that would be in a cycle where its placement says.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Fallback {
    /// Where it was before it moved.
    Origin,
    /// At the top.
    Root,
}

/// Where an entry is, after cycles are broken. A parent that is not a known directory (yet) counts as
/// the root.
pub(crate) fn place(
    merged: &Merged,
    fallback: Option<Fallback>,
    is_directory: impl Fn(&EntryId) -> bool,
) -> (EntryId, &EntryName) {
    let known = |parent: EntryId| {
        if is_directory(&parent) {
            parent
        } else {
            EntryId::ROOT
        }
    };
    match (fallback, &merged.from) {
        (None, _) => (known(merged.parent), &merged.name),
        (Some(Fallback::Origin), Some(origin)) => (known(origin.parent), &origin.name),
        (Some(Fallback::Origin), None) | (Some(Fallback::Root), _) => (EntryId::ROOT, &merged.name),
    }
}
