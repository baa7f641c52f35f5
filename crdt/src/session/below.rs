//! After a snapshot: one question at a time for what is missing in the logs, until nobody has more.
//!
//! Whoever is asked answers with what it has; that may be nothing, and then another member is asked. One
//! whose own logs have holes gives what is complete.

use super::Session;
use super::push::{FULL, is_own};
use super::wire::{End, Message, Wire};
use crate::error::{Misbehaviour, SessionError};
use crate::id::Line;
use crate::log::{self, Scan};
use crate::replica::Shared;
use crate::vector::VersionVector;

impl Session {
    /// Begins to ask the peer, if it may know more and no other session asks.
    pub(super) fn ask_below(&mut self, shared: &Shared) -> Option<Message> {
        if self.fetching.is_some() || self.dry || !self.able {
            return None;
        }
        let question = self.question(shared)?;
        self.fetching = Some(self.replica.fetch_below()?);
        Some(question)
    }

    fn question(&self, shared: &Shared) -> Option<Message> {
        let holes = shared.gap()?.holes.iter();
        let ranges = holes.map(|(line, hole)| {
            let end = End {
                author: line.author,
                seq: hole.upto.seq,
                check: hole.upto.hash.mark(),
            };
            (end, hole.have.seq)
        });
        Some(Message::new(&Wire::WantBelow(ranges.collect())))
    }

    pub(super) fn on_below(&mut self, envelopes: &[&[u8]]) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        if self.fetching.is_none() {
            return Err(Misbehaviour::OutOfTurn.into());
        }
        let taken = self.replica.take_below(envelopes)?;
        let shared = self.replica.shared();
        if taken && let Some(question) = self.question(&shared) {
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
            aside.push((end.author, *have, end.seq));
            let line = self.locate(&shared, end)?;
            let first = shared.ends.get(&Line::from(end.author));
            let (line, upto) = match (line, first) {
                (Some(line), _) => (line, end.seq),
                // It has less of that log than the other wants.
                (None, Some(first)) => (Line::from(end.author), first.seq),
                (None, None) => continue,
            };
            for (line, upto) in shared.forks.implied(line, upto) {
                wanted.advance(line, upto);
                theirs.advance(line, (*have).min(upto));
            }
        }
        let from = match self.below {
            Some(from) => from,
            None => {
                let rest = (shared.gap(), &shared.forks);
                let first = log::first_missing(&txn, &wanted, &theirs, rest)?;
                first.unwrap_or(shared.next_arrival)
            }
        };
        let mut batch: Vec<Vec<u8>> = Vec::new();
        let mut size = 0;
        let next = log::scan(&txn, from, |line, seq, arrival, fetch| {
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
        self.below = Some(next);
        if batch.is_empty() {
            // Somebody may have built on what does not count here.
            batch = self.replica.kept_aside(&aside, FULL)?;
        }
        let batch = batch.iter().map(Vec::as_slice).collect();
        Ok(vec![Message::new(&Wire::Below(batch))])
    }
}
