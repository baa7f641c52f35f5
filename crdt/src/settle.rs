//! A user operation in the making: its register writes, and what it must write down besides.
//!
//! Names and places are derived, so an operation on one entry can change what is shown of others: when
//! the holder of a name leaves, a conflict copy would take it; when the last file in a removed directory
//! goes, the directory vanishes. The user did not ask for that. So a [`Draft`] applies its writes to the
//! index, looks at what else is shown differently, and writes the old place and name of that into the
//! registers ([`Draft::settle`]). Only user operations do so: merging never writes, and peers
//! never answer one another's repairs.
//!
//! Before it touches an entry, an operation also makes ordinary entries of the conflict copies beside
//! it ([`Draft::open`]). The operations themselves are in `edit`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::WriteTransaction;

use crate::edit::{Hand, NewAttributes, Performed, TreeError};
use crate::entry::{Entry, EntryChange, EntryKey, Mode, Version};
use crate::id::EntryId;
use crate::index::{Index, IndexError};
use crate::name::EntryName;
use crate::register::{
    Attributes, ContentRecord, CopyOf, Extensions, MAX_INHERITED_VERSIONS, MAX_LISTED_VERSIONS,
    Node, Placement, Registers, Stamped, State,
};
use crate::rule::{alive, had, read, removed, winner};

mod overlay;
#[cfg(test)]
mod tests;

use overlay::Overlay;

/// How often an operation looks again at what its repairs changed. Repairs put things where they were,
/// so that the second look is nearly always the last.
const MAX_ROUNDS: usize = 16;

/// The writes of one envelope, so far, and the tree with them.
pub(crate) struct Draft<'a> {
    pub(crate) index: Index<'a>,
    registers: Overlay<'a>,
    hand: Hand,
    lamport: u64,
    /// Conflict copies that became entries in this envelope: later operations may name them as before.
    opened: HashMap<EntryKey, EntryId>,
    /// What the envelope changed.
    changes: BTreeMap<EntryKey, (Option<Entry>, Option<Entry>)>,
    touched: BTreeSet<EntryId>,
    /// What the current operation changed, and how it was shown if it was.
    changed: BTreeSet<EntryKey>,
    before: BTreeMap<EntryKey, Entry>,
    /// What the current operation is meant to change.
    meant: BTreeSet<EntryKey>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        txn: &'a WriteTransaction,
        registers: &'a dyn Registers,
        hand: Hand,
        lamport: u64,
    ) -> Result<Self, IndexError> {
        Ok(Self {
            index: Index::open(txn)?,
            registers: Overlay::new(registers),
            hand,
            lamport,
            opened: HashMap::new(),
            changes: BTreeMap::new(),
            touched: BTreeSet::new(),
            changed: BTreeSet::new(),
            before: BTreeMap::new(),
            meant: BTreeSet::new(),
        })
    }

    pub(crate) fn finish(self) -> Performed {
        let changes = self
            .changes
            .into_iter()
            .filter(|(_, (before, after))| before != after);
        Performed {
            puts: self.registers.into_puts(),
            changes: changes
                .map(|(key, (before, after))| EntryChange { key, before, after })
                .collect(),
            lamport: self.lamport,
        }
    }

    /// The next moment in logical time.
    pub(crate) fn tick(&mut self) -> Version {
        self.lamport = self.lamport.saturating_add(1);
        Version {
            lamport: self.lamport,
            device: self.hand.device,
            branch: self.hand.branch,
        }
    }

    pub(crate) fn placement(&self, id: &EntryId) -> Result<Option<Placement>, IndexError> {
        Ok(winner(&self.registers.placements(id)?).cloned())
    }

    /// The contents that are there, greatest version first.
    pub(crate) fn contents(&self, id: &EntryId) -> Result<Vec<ContentRecord>, IndexError> {
        let (placements, contents) = (self.registers.placements(id)?, self.registers.contents(id)?);
        Ok(alive(&self.registers, &placements, &contents)?)
    }

    /// What a write over all contents of an entry replaces.
    pub(crate) fn history(&self, id: &EntryId) -> Result<History, IndexError> {
        let contents = self.registers.contents(id)?;
        let mut inherited: Vec<Version> = contents
            .iter()
            .flat_map(|one| one.base.iter().filter(|version| one.replaces(**version)))
            .copied()
            .collect();
        let mut copied: Vec<Version> = contents
            .iter()
            .flat_map(|one| one.copied.iter().chain([&one.version]))
            .copied()
            .collect();
        let own = contents.iter().map(|one| one.version);
        let is_own = |version: &Version| {
            let key = EntryKey {
                id: *id,
                version: Some(*version),
            };
            self.opened.contains_key(&key)
                || contents.iter().any(|one| one.copied.contains(version))
        };
        copied.retain(|version| is_own(version) && !inherited.contains(version));
        let mut base: Vec<Version> = own.filter(|version| !copied.contains(version)).collect();
        shorten(&mut base, MAX_LISTED_VERSIONS);
        shorten(&mut copied, MAX_INHERITED_VERSIONS);
        inherited.retain(|version| !base.contains(version));
        shorten(
            &mut inherited,
            MAX_INHERITED_VERSIONS.saturating_sub(base.len()),
        );
        base.append(&mut inherited);
        Ok(History { base, copied })
    }

    pub(crate) fn put_placement(&mut self, id: EntryId, placement: Placement) {
        self.touched.insert(id);
        self.registers.placements.insert(id, placement);
    }

    pub(crate) fn put_content(&mut self, id: EntryId, record: ContentRecord) {
        self.touched.insert(id);
        self.registers.contents.insert(id, record);
    }

    /// Gives an entry the attributes that are said; it keeps the others.
    pub(crate) fn put_attributes(
        &mut self,
        id: EntryId,
        NewAttributes { mode, mtime }: NewAttributes,
    ) -> Result<(), IndexError> {
        let old = Attributes::merge(&self.registers.attributes(&id)?);
        let written = self.tick();
        self.touched.insert(id);
        let (mut new, extensions) = match old {
            Some(old) => (old.clone(), old.extensions.of_entry()),
            None => (Attributes::empty(written), Extensions::default()),
        };
        if let Some(value) = mode {
            new.mode = Some(Stamped { written, value });
        }
        if let Some(value) = mtime {
            new.mtime = Some(Stamped { written, value });
        }
        let new = Attributes {
            written,
            extensions,
            ..new
        };
        self.registers.attributes.insert(id, new);
        Ok(())
    }

    /// Notes that the operation is meant to change whatever is shown of `id`.
    pub(crate) fn mean(&mut self, id: &EntryId) -> Result<(), IndexError> {
        if let Some(record) = self.index.record(id)? {
            let keys = record.rows.iter().map(|place| EntryKey {
                id: *id,
                version: place.version,
            });
            self.meant.extend(keys);
        }
        Ok(())
    }

    /// What `key` shows now. For a directory that is merged into another, that one.
    pub(crate) fn shown(&mut self, key: &EntryKey) -> Result<Option<Entry>, IndexError> {
        let key = self.opened.get(key).map_or(*key, |id| EntryKey::from(*id));
        let id = self.index.stands(&key.id)?;
        let Some(place) = self
            .index
            .record(&id)?
            .and_then(|record| record.row(key.version))
        else {
            return Ok(None);
        };
        let place = place.clone();
        self.index.row(&place.directory, &place.fold)
    }

    /// Trashes an entry with all its contents.
    pub(crate) fn trash(&mut self, id: &EntryId) -> Result<(), TreeError> {
        self.mean(id)?;
        let Some(old) = self.placement(id)? else {
            return Err(IndexError::Damaged.into());
        };
        let mut seen = self.removed(id)?;
        if old.node == Node::Leaf {
            seen.append(&mut self.history(id)?.base);
        }
        shorten(&mut seen, MAX_LISTED_VERSIONS);
        let written = self.tick();
        self.put_placement(
            *id,
            Placement {
                state: State::Trashed,
                written,
                seen,
                had: Vec::new(),
                ..old
            },
        );
        Ok(())
    }

    /// What a new placement of an entry that was removed before must go on to list.
    pub(crate) fn removed(&self, id: &EntryId) -> Result<Vec<Version>, IndexError> {
        let mut removed = removed(&self.registers.placements(id)?);
        shorten(&mut removed, MAX_LISTED_VERSIONS);
        Ok(removed)
    }

    /// What a new placement of an entry that is not moved must go on to list of those who moved it.
    fn had(&self, id: &EntryId) -> Result<Vec<Version>, IndexError> {
        let mut had = had(&self.registers.placements(id)?);
        shorten(&mut had, MAX_LISTED_VERSIONS);
        Ok(had)
    }

    /// Brings the index up to date with the writes so far.
    pub(crate) fn update(&mut self) -> Result<(), IndexError> {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() {
            return Ok(());
        }
        for change in self.index.apply(&self.registers, touched)? {
            let EntryChange { key, before, after } = change;
            if let Some(before) = &before
                && !self.changed.contains(&key)
            {
                self.before.insert(key, before.clone());
            }
            self.changed.insert(key);
            self.changes.entry(key).or_insert((before, None)).1 = after;
        }
        Ok(())
    }

    /// Ends an operation: brings the index up to date and puts everything back that the operation was
    /// not meant to change.
    pub(crate) fn settle(&mut self) -> Result<(), TreeError> {
        for _ in 0..MAX_ROUNDS {
            self.update()?;
            let displaced = self.displaced()?;
            if displaced.is_empty() {
                break;
            }
            for entry in displaced {
                self.put_back(&entry)?;
            }
        }
        self.update()?;
        self.changed.clear();
        self.before.clear();
        self.meant.clear();
        Ok(())
    }

    /// What is not shown any more where it was, though the operation was not meant to change it.
    fn displaced(&mut self) -> Result<Vec<Entry>, IndexError> {
        let candidates: Vec<Entry> = self
            .before
            .iter()
            .filter(|(key, _)| !self.meant.contains(key))
            .map(|(_, entry)| entry.clone())
            .collect();
        let mut displaced = Vec::new();
        for entry in candidates {
            let now = self.shown(&entry.key)?;
            let parent = self.index.stands(&entry.parent)?;
            if now.is_none_or(|now| now.name != entry.name || now.parent != parent) {
                displaced.push(entry);
            }
        }
        Ok(displaced)
    }

    fn put_back(&mut self, entry: &Entry) -> Result<(), TreeError> {
        let parent = self.index.stands(&entry.parent)?;
        match entry.key.version {
            Some(_) => self.open_entry(&entry.key.id, Some(entry)),
            None => {
                let copy_of = self.beside(entry)?;
                self.pin(&entry.key.id, parent, entry.name.clone(), copy_of)
            }
        }
    }

    /// Beside what an entry stood as a conflict copy because it claimed the same name.
    fn beside(&mut self, entry: &Entry) -> Result<Option<CopyOf>, IndexError> {
        let Some(record) = self.index.record(&entry.key.id)?.filter(|_| entry.conflict) else {
            return Ok(None);
        };
        if record.merged.copy_of.is_some() {
            return Ok(record.merged.copy_of.clone());
        }
        let name = record.name().clone();
        let fold = name.fold();
        let stood = self.before.values().find(|other| {
            other.parent == entry.parent && other.key != entry.key && other.name.fold() == fold
        });
        let holder = match stood {
            Some(other) => Some(other.key.id),
            None => self.index.row(&entry.parent, &fold)?.map(|row| row.key.id),
        };
        Ok(holder.map(|id| CopyOf { id, name }))
    }

    /// Writes down that an entry is where it is shown. This is not a move: a move made apart wins.
    pub(crate) fn pin(
        &mut self,
        id: &EntryId,
        parent: EntryId,
        name: EntryName,
        copy_of: Option<CopyOf>,
    ) -> Result<(), TreeError> {
        let Some(old) = self.placement(id)? else {
            return Err(IndexError::Damaged.into());
        };
        // Before opening, which removes what is hidden: this is to be shown again.
        let (seen, had) = (self.removed(id)?, self.had(id)?);
        match old.node {
            Node::Directory => self.pin_fallbacks_above(&parent)?,
            Node::Leaf => self.open(id)?,
        }
        let written = self.tick();
        let state = State::Live;
        self.put_placement(
            *id,
            Placement {
                parent,
                name,
                state,
                written,
                seen,
                had,
                copy_of,
                ..old
            },
        );
        Ok(())
    }

    /// Writes down the places of the directories from `id` upwards that are not where their placement
    /// says: the chain of placements then ends at the root, so that no directory hung below it
    /// closes a cycle.
    pub(crate) fn pin_fallbacks_above(&mut self, id: &EntryId) -> Result<(), TreeError> {
        let mut at = *id;
        while let Some(record) = self.index.record(&at)?.cloned() {
            let Some(claim) = &record.claim else {
                break;
            };
            if record.fallback.is_some()
                && let Some(old) = self.placement(&at)?
                && old.parent != claim.parent
            {
                let written = self.tick();
                let (parent, name) = (claim.parent, record.name().clone());
                self.put_placement(
                    at,
                    Placement {
                        parent,
                        name,
                        written,
                        ..old
                    },
                );
            }
            at = claim.parent;
        }
        Ok(())
    }

    /// Makes every conflict copy in the name group of a leaf an entry of its own, and removes what is
    /// hidden because something shown has the same content: it must not appear when that changes.
    pub(crate) fn open(&mut self, id: &EntryId) -> Result<(), TreeError> {
        let Some(claim) = self
            .index
            .record(id)?
            .and_then(|record| record.claim.clone())
        else {
            return Ok(());
        };
        let directory = self.index.stands(&claim.parent)?;
        for id in self.index.claimants(&directory, &claim.fold)? {
            let Some(record) = self.index.record(&id)? else {
                continue;
            };
            if record.merged.is_directory() {
                continue;
            }
            let hidden = record.row(None).is_none();
            self.bury_copies(&id)?;
            self.open_entry(&id, None)?;
            if hidden {
                self.trash(&id)?;
            }
        }
        Ok(self.update()?)
    }

    /// Removes the copies of a leaf that went because their versions were replaced: what tells so is
    /// about to be replaced in its turn.
    fn bury_copies(&mut self, id: &EntryId) -> Result<(), TreeError> {
        for copy in self.index.copies(id)? {
            let gone = read(&self.registers, &copy)
                .map_err(IndexError::from)?
                .is_some_and(|merged| merged.state == State::Live && merged.variants.is_empty());
            if gone {
                self.trash(&copy)?;
            }
        }
        Ok(())
    }

    /// [`Draft::open`] for one leaf. `displaced` is a copy that should be named as it was.
    fn open_entry(&mut self, id: &EntryId, displaced: Option<&Entry>) -> Result<(), TreeError> {
        let alive = self.contents(id)?;
        let Some((first, copies)) = alive.split_first() else {
            return Ok(());
        };
        if self.registers.contents(id).map_err(IndexError::from)?.len() == 1 {
            return Ok(());
        }
        for copy in copies {
            let key = EntryKey {
                id: *id,
                version: Some(copy.version),
            };
            let shown = match displaced.filter(|entry| entry.key == key) {
                Some(entry) => Some(entry.clone()),
                None => self.shown(&key)?,
            };
            if let Some(entry) = shown {
                self.materialise(&entry, copy)?;
            }
        }
        let History { mut base, copied } = self.history(id)?;
        base.retain(|version| *version != first.version);
        self.put_content(
            *id,
            ContentRecord {
                base,
                copied,
                ..first.clone()
            },
        );
        Ok(())
    }

    /// Gives `entry`, a content of another entry, an entry of its own where it is shown; gives its id.
    /// Devices that do so apart make the same one.
    pub(crate) fn materialise(
        &mut self,
        entry: &Entry,
        record: &ContentRecord,
    ) -> Result<EntryId, TreeError> {
        let mut attempt = 0_u64;
        let id = loop {
            let id = copy_id(&entry.key.id, record.version, attempt);
            if self
                .registers
                .placements(&id)
                .map_err(IndexError::from)?
                .is_empty()
            {
                break id;
            }
            attempt += 1;
        };
        let written = self.tick();
        let parent = self.index.stands(&entry.parent)?;
        let claimed = self.index.record(&entry.key.id)?;
        let copy_of = claimed.map(|record| CopyOf {
            id: entry.key.id,
            name: record.name().clone(),
        });
        self.put_placement(
            id,
            Placement {
                parent,
                name: entry.name.clone(),
                node: Node::Leaf,
                state: State::Live,
                // No move: somebody else's removal of the same copy counts.
                moved: record.version,
                written,
                from: None,
                seen: Vec::new(),
                had: Vec::new(),
                copy_of,
                extensions: Extensions::default(),
            },
        );
        self.put_content(
            id,
            ContentRecord {
                base: Vec::new(),
                copied: Vec::new(),
                origin: Some(entry.key.id),
                ..record.clone()
            },
        );
        if entry.mode != Mode::of_kind(entry.kind) {
            self.put_attributes(id, NewAttributes::of_mode(entry.mode))?;
        }
        self.meant.insert(entry.key);
        self.opened.insert(entry.key, id);
        Ok(id)
    }
}

/// What a write over all contents of an entry must list.
#[derive(Debug)]
pub(crate) struct History {
    /// What it replaces, directly or not.
    pub(crate) base: Vec<Version>,
    /// What went on as entries of its own.
    pub(crate) copied: Vec<Version>,
}

/// Keeps the latest versions that fit into a list. A version that is left out may show its content
/// again as a conflict copy, which loses nothing.
fn shorten(versions: &mut Vec<Version>, most: usize) {
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.dedup();
    versions.truncate(most);
}

/// The id of the entry that a copy becomes: in the bucket of the original, the rest a hash.
fn copy_id(id: &EntryId, version: Version, attempt: u64) -> EntryId {
    let mut hasher = blake3::Hasher::new_derive_key("wormhole 2026 entry of a conflict copy");
    hasher.update(id.as_bytes());
    hasher.update(&version.lamport.to_be_bytes());
    hasher.update(version.device.as_bytes());
    hasher.update(version.branch.as_bytes());
    hasher.update(&attempt.to_be_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    let [first, second, ..] = *id.as_bytes();
    let [high, low, ..] = &mut bytes;
    *high = first;
    *low = (second & 0xf0) | (*low & 0x0f);
    EntryId::from_bytes(bytes)
}
