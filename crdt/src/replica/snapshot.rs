//! A snapshot on its way out: every envelope of which something is still shown, and the last of every log.
//!
//! It is read in one database transaction, so that it stands for one vector, whatever is written meanwhile.
//! When a snapshot is worth its while is decided here, too: see [`SNAPSHOT_RATIO`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use redb::ReadTransaction;

use super::{Commit, Replica, Shared, intake, stage};
use crate::bucket::Actor;
use crate::bucket::alive::{self, Seen, Shown};
use crate::envelope::Envelope;
use crate::error::{Damage, StorageError};
use crate::id::{Author, DeviceId, Line};
use crate::limit::{MAX_DEVICE_LIVES, MAX_VECTOR_AUTHORS, SNAPSHOT_FROM, SNAPSHOT_RATIO};
use crate::log::{self, Scan};
use crate::member::Verdict;

/// When a snapshot is worth its while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worth {
    /// How many envelopes the logs must have.
    pub(crate) from: u64,
    /// How many times as many as are alive.
    pub(crate) ratio: u64,
}

impl Worth {
    pub(crate) const DEFAULT: Self = Self {
        from: SNAPSHOT_FROM,
        ratio: SNAPSHOT_RATIO,
    };
}

/// Marks, and the envelope.
pub(crate) type OwnedPiece = (Vec<u8>, Vec<u8>);

/// A snapshot that is being sent.
pub(crate) struct Outgoing {
    txn: ReadTransaction,
    /// The numbers of the envelopes to send, ascending.
    wanted: BTreeMap<Line, Vec<u64>>,
    /// The arrival number from which on to look.
    from: u64,
    /// What is to be said of authors, when the envelopes are through.
    seen: Option<Vec<(Author, Seen)>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("authors", &self.wanted.len())
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Whether a device that has nothing is better off with a snapshot than with the logs.
    pub(crate) fn offers_snapshot(&self, worth: Worth) -> Result<bool, StorageError> {
        let writer = self.inner.writer()?;
        let (txn, shared) = (self.read()?, self.shared());
        drop(writer);
        Ok(wanted(&txn, &shared, worth)?.is_some())
    }

    /// The snapshot of this moment; `None` when it is not worth its while.
    pub(crate) fn snapshot(&self, worth: Worth) -> Result<Option<Outgoing>, StorageError> {
        let (txn, shared) = self.stand_still()?;
        let wanted = wanted(&txn, &shared, worth)?;
        Ok(wanted.map(|wanted| Outgoing {
            txn,
            wanted,
            from: 0,
            seen: None,
        }))
    }

    /// One durable state of the database, and what belongs to it.
    fn stand_still(&self) -> Result<(ReadTransaction, Arc<Shared>), StorageError> {
        let mut writer = self.inner.writer()?;
        if writer.volatile > 0 {
            // Nobody may learn of envelopes that a crash could still take.
            self.inner.transact(&mut writer, Commit::Durable, |_, _| {
                Ok::<_, StorageError>(())
            })?;
        }
        Ok((self.read()?, self.shared()))
    }
}

/// Which envelopes a snapshot consists of, if it is worth its while.
fn wanted(
    txn: &ReadTransaction,
    shared: &Shared,
    worth: Worth,
) -> Result<Option<BTreeMap<Line, Vec<u64>>>, StorageError> {
    // A snapshot has one log of each author.
    if is_crowded(shared) || !shared.forks.is_empty() {
        return Ok(None);
    }
    let ends = shared.ends.values().map(|end| end.seq);
    let total = ends.fold(0, u64::saturating_add);
    // With holes in the logs there is no other way.
    let must = shared.gap.is_some();
    if !must {
        let (written, registers) = alive::weigh(txn)?;
        if total < worth.from || written < registers.saturating_mul(worth.ratio) {
            return Ok(None);
        }
    }
    let mut alive: BTreeMap<Actor, Vec<u64>> = BTreeMap::new();
    for (line, end) in &shared.ends {
        alive.insert(line.actor(), vec![end.seq]);
    }
    alive::visit(txn, |actor, envelope| {
        let numbers = alive.entry(actor).or_default();
        if numbers.last() != Some(&envelope) {
            numbers.push(envelope);
        }
    })?;
    let mut wanted = BTreeMap::new();
    let mut count = 0_u64;
    for line in shared.ends.keys() {
        let mut numbers = alive.remove(&line.actor()).unwrap_or_default();
        numbers.sort_unstable();
        numbers.dedup();
        count += numbers.len() as u64;
        if is_suspect(shared, &line.author.device) && !all_admitted(txn, shared, *line, &numbers)? {
            return Ok(None);
        }
        wanted.insert(*line, numbers);
    }
    let worthy = must || total >= count.saturating_mul(worth.ratio);
    Ok((worthy && total > 0).then_some(wanted))
}

/// Whether there are more lives than anybody takes from a snapshot: see [`MAX_DEVICE_LIVES`].
fn is_crowded(shared: &Shared) -> bool {
    let crowded = |line: &Line| intake::lives(&shared.ends, &line.author.device) > MAX_DEVICE_LIVES;
    shared.ends.len() > MAX_VECTOR_AUTHORS
        || (shared.ends.len() > MAX_DEVICE_LIVES && shared.ends.keys().any(crowded))
}

fn is_suspect(shared: &Shared, device: &DeviceId) -> bool {
    let state = shared.members.state();
    state.role_of(device).is_none() || state.removals.iter().any(|gone| gone.device == *device)
}

/// Whether envelopes count by themselves, not only because others build on them: that is not to be seen from
/// a snapshot.
fn all_admitted(
    txn: &ReadTransaction,
    shared: &Shared,
    line: Line,
    numbers: &[u64],
) -> Result<bool, StorageError> {
    for seq in numbers {
        let (author, bytes) = (line.author, log::sent(txn, line, *seq)?);
        let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged(author))?;
        if shared.members.judge(author, *seq, &envelope.head.members) != Verdict::Admit {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Outgoing {
    /// The next envelopes, at most `room` bytes of them but one at least; none when all are through.
    pub(crate) fn pieces(&mut self, room: usize) -> Result<Vec<OwnedPiece>, StorageError> {
        let shown = Shown::open(&self.txn)?;
        let mut pieces: Vec<OwnedPiece> = Vec::new();
        let mut size = 0;
        let wanted = &self.wanted;
        self.from = log::scan(&self.txn, self.from, |line, seq, _, fetch| {
            let numbers = wanted.get(&line);
            if numbers.is_none_or(|numbers| numbers.binary_search(&seq).is_err()) {
                return Ok(Scan::Taken);
            }
            let bytes = fetch.bytes()?;
            let marks = marks(&shown, line.author, &bytes)?;
            let more = bytes.len() + marks.len() + 8;
            if !pieces.is_empty() && size + more > room {
                return Ok(Scan::Stop);
            }
            size += more;
            pieces.push((marks, bytes));
            Ok(Scan::Taken)
        })?;
        Ok(pieces)
    }

    /// What the next authors had seen, at most `room` bytes of it but one at least; none when everything is said.
    pub(crate) fn seen(&mut self, room: usize) -> Result<Vec<(Author, Seen)>, StorageError> {
        let left = match &mut self.seen {
            Some(left) => left,
            none => {
                let mut all = Vec::new();
                for line in self.wanted.keys() {
                    all.push((line.author, log::seen(&self.txn, line)?));
                }
                none.insert(all)
            }
        };
        let mut size = 0;
        let mut some = Vec::new();
        while let Some((author, seen)) = left.pop() {
            size += 64 + 32 * seen.len();
            if !some.is_empty() && size > room {
                left.push((author, seen));
                break;
            }
            some.push((author, seen));
        }
        Ok(some)
    }
}

/// A bit for each write of an envelope.
fn marks(shown: &Shown, author: Author, bytes: &[u8]) -> Result<Vec<u8>, StorageError> {
    let envelope = Envelope::decode_trusted(bytes).map_err(|_| damaged(author))?;
    let changes = stage::parse(&envelope).map_err(|_| damaged(author))?;
    let name = (envelope.frame.seq, envelope.frame.hash.mark());
    let mut alive = Vec::new();
    for ((bucket, _), change) in envelope.changes.iter().zip(&changes) {
        shown.of(*bucket, change, name, &mut alive)?;
    }
    Ok(stage::mark(&alive))
}

fn damaged(author: Author) -> StorageError {
    StorageError::Damaged(Damage::Log(author))
}
