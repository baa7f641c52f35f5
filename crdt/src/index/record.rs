//! What the index keeps of one entry: its merged registers and what was derived from them.

use serde::{Deserialize, Serialize};

use crate::entry::Version;
use crate::id::EntryId;
use crate::name::EntryName;
use crate::rule::{Fallback, Merged};

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) merged: Merged,
    pub(crate) fallback: Option<Fallback>,
    /// Where it is; `None` while it is not shown.
    pub(crate) claim: Option<Claim>,
    /// The directory that stands for this one and those merged with it: often itself.
    pub(crate) stands: EntryId,
    /// The other directories that this one stands for.
    pub(crate) members: Vec<EntryId>,
    /// Its rows.
    pub(crate) rows: Vec<Place>,
}

/// The place of a shown entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) parent: EntryId,
    /// If it differs from the placement's.
    pub(crate) name: Option<EntryName>,
    pub(crate) fold: String,
}

/// Where one of an entry's contents is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) version: Option<Version>,
    pub(crate) directory: EntryId,
    pub(crate) fold: String,
}

impl Record {
    pub(crate) fn new(id: EntryId, merged: Merged) -> Self {
        Self {
            merged,
            fallback: None,
            claim: None,
            stands: id,
            members: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// The name that it claims.
    pub(crate) fn name(&self) -> &EntryName {
        self.claim
            .as_ref()
            .and_then(|claim| claim.name.as_ref())
            .unwrap_or(&self.merged.name)
    }

    /// The row of one of its contents.
    pub(crate) fn row(&self, version: Option<Version>) -> Option<&Place> {
        self.rows.iter().find(|place| place.version == version)
    }
}
