//! What becomes of a conflict copy when the version that it holds was replaced in the entry that it was
//! a copy of.
//!
//! Somebody sees two versions and makes an entry of the second. Somebody else has seen only that version
//! meanwhile, and writes the next one over it, or removes it. Then it is no conflict any more, and perhaps
//! nobody has its bytes. The copy goes, unless somebody has moved it or written to it: then it is wanted.
//!
//! This looks at registers alone, never at what was derived from them, so that entries that name one
//! another as origins cannot make a circle.

use std::collections::{HashMap, HashSet};

use super::{Listed, removed, winner};
use crate::entry::Version;
use crate::id::EntryId;
use crate::register::{ContentRecord, Placement, RegisterError, Registers};

/// What became of the versions of the entries that an entry's contents were copies of.
pub(super) struct Origins<'a> {
    registers: &'a dyn Registers,
    /// The last move of the entry that holds the copies now.
    moved: Option<Version>,
    known: HashMap<EntryId, Origin>,
}

struct Origin {
    replaced: Listed,
    removed: HashSet<Version>,
}

impl<'a> Origins<'a> {
    /// `placements` are those of the entry that holds the copies now.
    pub(super) fn new(registers: &'a dyn Registers, placements: &[Placement]) -> Self {
        Self {
            registers,
            moved: winner(placements).map(|placement| placement.moved),
            known: HashMap::new(),
        }
    }

    /// Whether a content that was a copy of another entry's has been replaced or removed there.
    pub(super) fn superseded(&mut self, record: &ContentRecord) -> Result<bool, RegisterError> {
        let Some(origin) = &record.origin else {
            return Ok(false);
        };
        if self.moved.is_some_and(|moved| moved != record.version) {
            return Ok(false);
        }
        if !self.known.contains_key(origin) {
            let contents = self.registers.contents(origin)?;
            let replaced = Listed::of(contents.iter().map(|one| (one.version, &one.base)));
            let removed = removed(&self.registers.placements(origin)?);
            let removed = removed.into_iter().collect();
            self.known.insert(*origin, Origin { replaced, removed });
        }
        Ok(self.known.get(origin).is_some_and(|known| {
            known.replaced.holds(record.version) || known.removed.contains(&record.version)
        }))
    }
}
