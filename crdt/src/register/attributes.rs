//! What an entry is besides its place and its bytes: its permissions and the time that it was given.
//!
//! Each attribute carries the write that set it, so that a time set here and permissions set there are
//! both kept; of two that were set apart the later write counts.

use serde::{Deserialize, Serialize};

use super::{Extensions, Packed};
use crate::entry::{Mode, Version};
use crate::id::Timestamp;

/// A value and the write that brought it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Stamped<T> {
    pub(crate) written: Version,
    pub(crate) value: T,
}

/// Register `a`, of files and of directories.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// This write.
    pub(crate) written: Version,
    /// `None`: [`Mode::FILE`] or [`Mode::DIRECTORY`].
    pub(crate) mode: Option<Stamped<Mode>>,
    /// When it was last modified, if that was set after its content was written.
    pub(crate) mtime: Option<Stamped<Timestamp>>,
    pub(crate) extensions: Extensions,
}

impl Attributes {
    /// What values written apart come to; `None` of none.
    pub(crate) fn merge(values: &[Self]) -> Option<Self> {
        let greatest = values.iter().max()?;
        Some(Self {
            written: greatest.written,
            mode: values.iter().filter_map(|one| one.mode).max(),
            mtime: values.iter().filter_map(|one| one.mtime).max(),
            extensions: greatest.extensions.clone(),
        })
    }

    /// Nothing is said yet.
    pub(crate) fn empty(written: Version) -> Self {
        Self {
            written,
            mode: None,
            mtime: None,
            extensions: Extensions::default(),
        }
    }
}

impl Packed for Attributes {
    const FORMAT: u8 = 2;

    fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    fn listed(&self) -> usize {
        0
    }

    fn lamport(&self) -> u64 {
        let mode = self.mode.map_or(0, |mode| mode.written.lamport);
        let mtime = self.mtime.map_or(0, |mtime| mtime.written.lamport);
        self.written.lamport.max(mode).max(mtime)
    }
}

#[cfg(test)]
impl Attributes {
    pub(crate) fn of_mode(written: Version, value: Mode) -> Self {
        Self {
            mode: Some(Stamped { written, value }),
            ..Self::empty(written)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::version;

    #[test]
    fn permissions_set_here_and_a_time_set_there_are_both_kept() {
        let mode = Attributes::of_mode(version(7, 1), Mode::new(0o600));
        let mtime = Attributes {
            mtime: Some(Stamped {
                written: version(5, 2),
                value: Timestamp(3),
            }),
            ..Attributes::empty(version(5, 2))
        };
        let values = [mtime.clone(), mode.clone()];
        let merged = Attributes::merge(&values).unwrap();
        assert_eq!((merged.mode, merged.mtime), (mode.mode, mtime.mtime));
    }
}
