//! Taking envelopes that came from elsewhere.
//!
//! An envelope is first held against every rule (signature, membership, order, causes, and each change
//! against its bucket) and only then applied, with all envelopes of one message in one transaction.
//! Whatever breaks a rule is refused with the reason; what came before it is kept. How one envelope is
//! held against the rules is in `replica/intake`.

use std::collections::BTreeSet;

use super::intake::{Intake, Refusal, Step};
use super::{Change, Commit, Entries, Replica, Writer};
use crate::entry::EntryChange;
use crate::envelope::Frame;
use crate::error::{BlamesIndex, Misbehaviour, SessionError, StorageError};
use crate::id::{Author, Line};

/// More changed entries than this are told to observers as one "everything changed".
const MAX_LISTED: usize = 50_000;

/// What became of a message full of envelopes.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The last number of each line that was sent, and is here now.
    pub(crate) sent: Vec<(Line, u64)>,
    /// Whether some were left because what they build on is not here.
    pub(crate) causes_missing: bool,
    /// Authors of envelopes that continue a branch which is not here.
    pub(crate) astray: BTreeSet<Author>,
}

/// What one try took, the fault that ended it, and what the tree shows differently.
type Taken = (Applied, Option<Misbehaviour>, Vec<EntryChange>);

/// Envelopes of one message that may release others from quarantine for nothing before the rest of it is left.
const MAX_UNDONE: usize = 8;

/// Why a try left nothing.
enum Interrupted {
    Storage(StorageError),
    /// The envelope at this position cannot be taken, but others were released from quarantine for it.
    Undo {
        at: usize,
    },
}

impl From<StorageError> for Interrupted {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl BlamesIndex for Interrupted {
    fn blames_index(&self) -> bool {
        match self {
            Self::Storage(error) => error.blames_index(),
            Self::Undo { .. } => false,
        }
    }
}

impl Replica {
    /// Takes the envelopes of one message, in order, in one transaction that is not yet durable.
    pub(crate) fn apply(&self, envelopes: &[&[u8]]) -> Result<Applied, SessionError> {
        let mut writer = self.inner.writer()?;
        let outcome = self.apply_until_fault(&mut writer, envelopes);
        drop(writer);
        self.inner.observers.deliver();
        match outcome? {
            (applied, None) => Ok(applied),
            (_, Some(fault)) => Err(fault.into()),
        }
    }

    /// Takes envelopes until one breaks a rule. The fault comes back beside what was taken.
    fn apply_until_fault(
        &self,
        writer: &mut Writer,
        envelopes: &[&[u8]],
    ) -> Result<(Applied, Option<Misbehaviour>), StorageError> {
        let mut some = envelopes;
        let mut undone = BTreeSet::new();
        let (mut applied, fault, changes) = loop {
            match self.take_some(writer, some, &undone) {
                Ok(taken) => break taken,
                Err(Interrupted::Storage(error)) => return Err(error),
                // Each costs the whole message once more.
                Err(Interrupted::Undo { at }) if undone.len() >= MAX_UNDONE => {
                    some = some.get(..at).unwrap_or_default();
                }
                Err(Interrupted::Undo { at }) => {
                    undone.insert(at);
                }
            }
        };
        applied.causes_missing |= some.len() < envelopes.len();
        if !changes.is_empty() {
            let listed = changes.len() <= MAX_LISTED;
            let entries = if listed {
                Entries::Listed(changes)
            } else {
                Entries::Everything
            };
            self.inner.observers.push(Change {
                entries,
                local: false,
                members: false,
            });
        }
        Ok((applied, fault))
    }

    /// One try at [`Replica::apply_until_fault`], in one transaction.
    fn take_some(
        &self,
        writer: &mut Writer,
        envelopes: &[&[u8]],
        undone: &BTreeSet<usize>,
    ) -> Result<Taken, Interrupted> {
        let mesh = self.inner.mesh;
        self.inner
            .transact(writer, Commit::Deferred, |txn, writer| {
                let mut intake = Intake::new(txn, writer, mesh);
                let mut causes_missing = false;
                let (mut fault, mut astray) = (None, BTreeSet::new());
                for (at, bytes) in envelopes.iter().enumerate() {
                    match intake.offer(bytes, !undone.contains(&at)) {
                        Ok(Step::Taken | Step::Known | Step::Held | Step::Beyond) => {}
                        Ok(Step::Early) => causes_missing = true,
                        Ok(Step::Astray) => {
                            astray.extend(Frame::read(bytes).map(|frame| frame.author));
                        }
                        Err(Refusal::Storage(error)) => return Err(error.into()),
                        Err(Refusal::Undo) => return Err(Interrupted::Undo { at }),
                        Err(Refusal::Fault(found)) => {
                            fault = Some(found);
                            break;
                        }
                    }
                }
                let (changes, sent) = intake.finish()?;
                Ok((
                    Applied {
                        sent,
                        causes_missing,
                        astray,
                    },
                    fault,
                    changes,
                ))
            })
    }
}
