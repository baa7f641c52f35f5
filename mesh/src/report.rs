//! What a device tells the other members of itself: how far it shows what it knows, and what keeps it from more.
//!
//! That two devices know the same says nothing about the disks behind them. A [`Report`] does, in a few bytes: the mark
//! of what was known when all of it was applied last, and each kind of hindrance once, with a count. No names travel.
//! It is the sender's word about itself and nothing is decided by it but what people are told. `sync` carries it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wormhole_crdt::Hash;

/// Kinds of hindrances that one report names at most; of more, the rest is not told.
pub(crate) const MAX_HINDRANCES: usize = 32;

/// Bytes of a report on the wire at most, with room for what later versions add.
pub(crate) const MAX_REPORT: usize = 1024;

/// What a device says of itself about one mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The [`mark`](wormhole_crdt::Replica::mark) of what it knew when it had applied all of it; `None` before the first time.
    pub applied: Option<Hash>,
    /// Whether it keeps all content of the mesh, and not a part of it or none.
    pub keeps_all: bool,
    /// What keeps it from applying more, and of how many files or directories at least.
    pub hindrances: BTreeMap<Hindrance, u64>,
}

/// What keeps a device from applying something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hindrance {
    /// Its disk is full.
    DiskFull,
    /// Its disk is mounted read-only.
    DiskReadOnly,
    /// Its user may not read or write there.
    NotPermitted,
    /// Its file system cannot hold the name, or not beside another one.
    NameImpossible,
    /// It may not write, and its files were changed there.
    OwnEdits,
    /// Deletions wait there for a person.
    DeletionsHeld,
    /// Its folder is stopped: moved, unmounted, damaged.
    FolderStopped,
    /// No device that it is connected with has the content.
    NoHolder,
    /// Reading or writing failed in another way.
    Failed,
    /// It was removed from the mesh.
    Removed,
    /// Something that only a newer program can name.
    Unknown(u8),
}

impl Hindrance {
    const fn code(self) -> u8 {
        match self {
            Self::DiskFull => 1,
            Self::DiskReadOnly => 2,
            Self::NotPermitted => 3,
            Self::NameImpossible => 4,
            Self::OwnEdits => 5,
            Self::DeletionsHeld => 6,
            Self::FolderStopped => 7,
            Self::NoHolder => 8,
            Self::Failed => 9,
            Self::Removed => 10,
            Self::Unknown(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::DiskFull,
            2 => Self::DiskReadOnly,
            3 => Self::NotPermitted,
            4 => Self::NameImpossible,
            5 => Self::OwnEdits,
            6 => Self::DeletionsHeld,
            7 => Self::FolderStopped,
            8 => Self::NoHolder,
            9 => Self::Failed,
            10 => Self::Removed,
            code => Self::Unknown(code),
        }
    }
}

/// A report on the wire. What follows it is another version's business.
#[derive(Serialize, Deserialize)]
struct Wire {
    applied: Option<Hash>,
    keeps_all: bool,
    hindrances: Vec<(u8, u64)>,
}

impl Report {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let hindrances = self.hindrances.iter().take(MAX_HINDRANCES);
        let wire = Wire {
            applied: self.applied,
            keeps_all: self.keeps_all,
            hindrances: hindrances
                .map(|(hindrance, count)| (hindrance.code(), *count))
                .collect(),
        };
        postcard::to_stdvec(&wire).expect("plain data encodes")
    }

    /// `None` of what is no report, or too long for one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_REPORT {
            return None;
        }
        let (wire, _later): (Wire, _) = postcard::take_from_bytes(bytes).ok()?;
        let hindrances = wire.hindrances.into_iter().take(MAX_HINDRANCES);
        Some(Self {
            applied: wire.applied,
            keeps_all: wire.keeps_all,
            hindrances: hindrances
                .map(|(code, count)| (Hindrance::from_code(code), count))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bend::{Budget, bend};

    fn report() -> Report {
        Report {
            applied: Some(Hash::from_bytes([7; 32])),
            keeps_all: true,
            hindrances: (0..=u8::MAX)
                .map(|code| (Hindrance::from_code(code), u64::from(code)))
                .take(MAX_HINDRANCES)
                .collect(),
        }
    }

    #[test]
    fn a_report_reads_back_also_with_what_a_later_version_adds() {
        let mut bytes = report().encode();
        assert!(bytes.len() <= MAX_REPORT / 2, "{}", bytes.len());
        assert_eq!(Report::decode(&bytes), Some(report()));
        bytes.extend([1, 2, 3]);
        assert_eq!(Report::decode(&bytes), Some(report()));
        assert_eq!(
            Report::decode(&Report::default().encode()),
            Some(Report::default())
        );
        assert_eq!(Report::decode(&[0; MAX_REPORT + 1]), None);
    }

    #[test]
    fn a_bent_report_is_none_or_a_bounded_one() {
        let budget = Budget {
            fixed: 16 * 1024,
            per_byte: 64,
        };
        bend("reports", &[report().encode()], "", budget, |bytes| {
            if let Some(report) = Report::decode(bytes) {
                assert!(report.hindrances.len() <= MAX_HINDRANCES);
            }
        });
    }
}
