//! The registers as they will be when the writes of an operation are stored.

use std::collections::BTreeMap;

use crate::id::EntryId;
use crate::register::{
    Attributes, ContentRecord, Packed, Placement, Put, Register, RegisterError, Registers,
};

/// Writes, each replacing all values of its register below.
pub(super) struct Overlay<'a> {
    below: &'a dyn Registers,
    pub(super) placements: BTreeMap<EntryId, Placement>,
    pub(super) contents: BTreeMap<EntryId, ContentRecord>,
    pub(super) attributes: BTreeMap<EntryId, Attributes>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(below: &'a dyn Registers) -> Self {
        Self {
            below,
            placements: BTreeMap::new(),
            contents: BTreeMap::new(),
            attributes: BTreeMap::new(),
        }
    }

    pub(super) fn into_puts(self) -> Vec<Put> {
        let placements = self
            .placements
            .iter()
            .map(|(id, value)| (*id, Register::Placement, value.encode()));
        let contents = self
            .contents
            .iter()
            .map(|(id, value)| (*id, Register::Content, value.encode()));
        let attributes = self
            .attributes
            .iter()
            .map(|(id, value)| (*id, Register::Attributes, value.encode()));
        placements
            .chain(contents)
            .chain(attributes)
            .map(|(id, register, value)| Put {
                id,
                register,
                value,
            })
            .collect()
    }
}

impl Registers for Overlay<'_> {
    fn placements(&self, id: &EntryId) -> Result<Vec<Placement>, RegisterError> {
        match self.placements.get(id) {
            Some(value) => Ok(vec![value.clone()]),
            None => self.below.placements(id),
        }
    }

    fn contents(&self, id: &EntryId) -> Result<Vec<ContentRecord>, RegisterError> {
        match self.contents.get(id) {
            Some(value) => Ok(vec![value.clone()]),
            None => self.below.contents(id),
        }
    }

    fn attributes(&self, id: &EntryId) -> Result<Vec<Attributes>, RegisterError> {
        match self.attributes.get(id) {
            Some(value) => Ok(vec![value.clone()]),
            None => self.below.attributes(id),
        }
    }

    fn ids(&self) -> Result<Vec<EntryId>, RegisterError> {
        let mut ids = self.below.ids()?;
        ids.extend(self.placements.keys());
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}
