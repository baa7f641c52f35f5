//! The lives of this device, what they tell about those of others, and the name of all that is known.
//!
//! A device that may have lost the end of its log starts a new life: numbers that others have seen must never
//! be used again. That it has lost something it believes only an envelope that its own key signed.

use std::collections::BTreeSet;

use rand::Rng;
use redb::WriteTransaction;

use super::intake::lives;
use super::{Commit, Replica, Writer, header, held};
use crate::error::StorageError;
use crate::id::{Author, DeviceId, Hash, Incarnation};
use crate::limit::MAX_DEVICE_LIVES;

/// The context in which the life after a closed one is derived.
const NEXT_LIFE: &str = "wormhole 2026 next life of a device";

/// The context in which marks are derived.
const MARK: &str = "wormhole 2026 mark of what is known";

/// What people should know about the logs of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// A device was set back to an earlier state, or copied, and wrote on: both histories are kept.
    Forked {
        /// The device.
        device: DeviceId,
    },
    /// A device writes what this program is too old to read.
    NeedsUpdate {
        /// The device that runs a later version.
        device: DeviceId,
    },
    /// A device has begun so many lives that further ones count only when somebody builds on them.
    Crowded {
        /// The device.
        device: DeviceId,
    },
}

impl Replica {
    /// What people should know about the logs, each once.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let shared = self.shared();
        let mut problems = BTreeSet::new();
        let held = self.read().and_then(|txn| held::devices(&txn));
        for device in held.unwrap_or_default() {
            problems.insert(Problem::NeedsUpdate { device });
        }
        for (line, _) in shared.forks.iter() {
            let device = line.author.device;
            problems.insert(Problem::Forked { device });
        }
        if shared.ends.len() >= MAX_DEVICE_LIVES {
            for line in shared.ends.keys() {
                let device = line.author.device;
                if lives(&shared.ends, &device) >= MAX_DEVICE_LIVES {
                    problems.insert(Problem::Crowded { device });
                }
            }
        }
        problems.into_iter().collect()
    }

    /// A name for all envelopes that are here: two devices with the same mark know the same.
    #[must_use]
    pub fn mark(&self) -> Hash {
        let shared = self.shared();
        let ends = shared.ends.iter();
        // Of an author that forked, what is the first branch here need not be so elsewhere.
        let mut ends: Vec<_> = ends
            .map(|(line, end)| (line.author, end.seq, end.hash))
            .collect();
        ends.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key(MARK);
        for (author, seq, hash) in ends {
            hasher.update(&author.to_key());
            hasher.update(&seq.to_be_bytes());
            hasher.update(hash.as_bytes());
        }
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Closes a life of this device, of which somebody has an envelope of that name that is not here.
    pub(crate) fn close_life(&self, author: Author, shown: &Hash) -> Result<(), StorageError> {
        let mut writer = self.inner.writer()?;
        if writer.position.author != author {
            return Ok(());
        }
        self.inner
            .transact(&mut writer, Commit::Durable, |txn, writer| {
                writer.close_life(txn, shown)
            })
    }
}

impl Writer {
    /// Goes on under another life: numbers of this one are known elsewhere with another meaning.
    pub(super) fn close_life(
        &mut self,
        txn: &WriteTransaction,
        shown: &Hash,
    ) -> Result<(), StorageError> {
        tracing::warn!("this device was set back to an earlier state: it goes on under a new life");
        self.next_life(txn, shown)
    }

    /// Goes on under another life. Which one that is follows from what showed that it is needed.
    pub(super) fn next_life(
        &mut self,
        txn: &WriteTransaction,
        shown: &Hash,
    ) -> Result<(), StorageError> {
        let mut hasher = blake3::Hasher::new_derive_key(NEXT_LIFE);
        hasher.update(&self.position.author.to_key());
        hasher.update(shown.as_bytes());
        let mut life = [0; 8];
        hasher.finalize_xof().fill(&mut life);
        self.begin_life(txn, Incarnation(u64::from_be_bytes(life)))
    }

    fn begin_life(
        &mut self,
        txn: &WriteTransaction,
        incarnation: Incarnation,
    ) -> Result<(), StorageError> {
        header::set_incarnation(txn, incarnation)?;
        self.position.author.incarnation = incarnation;
        Ok(())
    }
}

/// Goes on under a life that nobody can have seen.
pub(super) fn renew(
    txn: &WriteTransaction,
    writer: &mut Writer,
    rng: &mut dyn Rng,
) -> Result<(), StorageError> {
    writer.begin_life(txn, Incarnation::random(rng))
}
