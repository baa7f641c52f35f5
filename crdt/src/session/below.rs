//! After a snapshot: one question at a time for what is missing in the logs, until nobody has more.
//!
//! Whoever is asked answers with what it has; that may be nothing, and then another member is asked. One
//! whose own logs have holes gives what is complete.

use super::Session;
use super::push::{FULL, is_own};
use super::wire::{End, Message, Wire};
use crate::error::{Misbehaviour, SessionError, StorageError};
use crate::limit::{MAX_REASKS, MAX_VECTOR_AUTHORS};
use crate::log::{self, Scan};
use crate::replica::Shared;
use crate::vector::VersionVector;

/// How many envelopes that are kept aside are looked at for one question.
const MAX_ASIDE: usize = 4096;

impl Session {
    /// Begins to ask the peer, if it may know more and no other session asks.
    pub(super) fn ask_below(&mut self, shared: &Shared) -> Result<Option<Message>, StorageError> {
        if self.fetching.is_some() || self.dry || !self.able || shared.gap().is_none() {
            return Ok(None);
        }
        let Some(question) = self.question(shared)? else {
            return Ok(None);
        };
        self.fetching = self.replica.fetch_below();
        Ok(self.fetching.is_some().then_some(question))
    }

    /// Asks for what leads to the end of each hole, and for what leads to the first envelope of it that is here
    /// already: who has not got the end may have that.
    fn question(&self, shared: &Shared) -> Result<Option<Message>, StorageError> {
        let Some(gap) = shared.gap() else {
            return Ok(None);
        };
        let txn = self.replica.read()?;
        let mut ranges = Vec::with_capacity(2 * gap.holes.len());
        for (line, hole) in &gap.holes {
            let end = End {
                author: line.author,
                seq: hole.upto.seq,
                check: hole.upto.hash.mark(),
            };
            ranges.push((end, hole.have.seq));
            let within = hole.have.seq + 1..=hole.upto.seq;
            if let Some(before) = log::before_next(&txn, *line, within, gap.next)? {
                let (seq, check) = before;
                ranges.push((End { seq, check, ..end }, hole.have.seq));
            }
        }
        ranges.truncate(MAX_VECTOR_AUTHORS);
        Ok(Some(Message::new(&Wire::WantBelow(ranges))))
    }

    pub(super) fn on_below(&mut self, envelopes: &[&[u8]]) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        if self.fetching.is_none() {
            return Err(Misbehaviour::OutOfTurn.into());
        }
        let before = self.replica.shared();
        let taken = self.replica.take_below(envelopes)?;
        let shared = self.replica.shared();
        if let (Some(now), Some(before)) = (shared.gap(), before.gap()) {
            self.reasks += u32::from(now.fell_behind(before));
        }
        if taken
            && self.reasks <= MAX_REASKS
            && let Some(question) = self.question(&shared)?
        {
            return Ok(vec![question]);
        }
        self.dry = true;
        self.fetching = None;
        self.replica.settle_gap()?;
        Ok(Vec::new())
    }

    pub(super) fn on_want_below(
        &mut self,
        ranges: &[(End, u64)],
    ) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        let shared = self.replica.shared();
        let txn = self.replica.read()?;
        // Of each line the first number that is wanted, and the last.
        let (mut theirs, mut wanted) = (VersionVector::default(), VersionVector::default());
        let mut aside = Vec::new();
        for (end, have) in ranges {
            let (mut base, mut chain) = (*end, Vec::new());
            let room = aside.len() < MAX_ASIDE;
            if room && self.find(&shared, end)?.is_none() {
                // Somebody may have built on what does not count here.
                let (steps, before) = self.replica.aside_to(end.author, (end.seq, end.check))?;
                (base.seq, base.check) = before;
                chain = steps;
            }
            if base.seq > *have {
                // Who has not got that envelope cannot tell which of the author's histories leads to it.
                let Some(line) = self.find(&shared, &base)? else {
                    continue;
                };
                for (line, upto) in shared.forks.implied(line, base.seq) {
                    wanted.advance(line, upto);
                    theirs.advance(line, (*have).min(upto));
                }
            }
            let missing = chain.iter().filter(|(seq, _)| seq > have);
            aside.extend(missing.map(|step| (end.author, *step)));
        }
        let rest = (shared.gap(), &shared.forks);
        let from = log::first_missing(&txn, &wanted, &theirs, rest)?;
        let from = from.unwrap_or(shared.next_arrival);
        let mut batch: Vec<Vec<u8>> = Vec::new();
        let mut size = 0;
        log::scan(&txn, from, |line, seq, arrival, fetch| {
            if shared.gap().is_some_and(|gap| arrival >= gap.next) {
                return Ok(Scan::Stop);
            }
            if seq <= theirs.get(line) || seq > wanted.get(line) {
                return Ok(Scan::Taken);
            }
            if is_own(&shared, line) && arrival >= shared.durable {
                return Ok(Scan::Stop);
            }
            let bytes = fetch.bytes()?;
            if !batch.is_empty() && size + bytes.len() > FULL {
                return Ok(Scan::Stop);
            }
            size += bytes.len() + 4;
            batch.push(bytes);
            Ok(Scan::Taken)
        })?;
        if batch.is_empty() {
            batch = self.replica.kept_aside(&aside, FULL)?;
        }
        let batch = batch.iter().map(Vec::as_slice).collect();
        Ok(vec![Message::new(&Wire::Below(batch))])
    }
}
