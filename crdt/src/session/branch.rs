//! Logs that two replicas have different branches of, and logs of this device that somebody knows more of.
//!
//! Each side says how its logs end, with the beginnings of the hashes. Who sees an end that does not fit sends the
//! author's trail: envelopes further and further back. The other finds the last one that it has, too, sends what
//! comes after it, and answers with its own trail. Both histories then reach both; nobody is to blame.

use std::collections::BTreeSet;

use super::Session;
use super::wire::{End, Message, Trail, Wire};
use crate::envelope::{FRAME_BYTES, Frame};
use crate::error::{Misbehaviour, SessionError, StorageError};
use crate::id::{Author, Line};
use crate::limit::{MAX_PROOFS, MAX_TRAIL, MAX_TRAILS};
use crate::log::gap::Hole;
use crate::log::{self, LogEnd};
use crate::replica::Shared;
use crate::vector::VersionVector;

impl End {
    pub(super) fn of(line: Line, end: &LogEnd) -> Self {
        Self {
            author: line.author,
            seq: end.seq,
            check: end.hash.mark(),
        }
    }
}

impl Session {
    /// Where the peer's logs end, on the lines of this replica. Notes of which authors it has another branch.
    pub(super) fn place_ends(
        &mut self,
        shared: &Shared,
        ends: &[End],
    ) -> Result<VersionVector, SessionError> {
        let mut theirs = VersionVector::default();
        let mut undecided = BTreeSet::new();
        let (mut once, mut often) = (BTreeSet::new(), BTreeSet::new());
        for end in ends {
            if !once.insert(end.author) {
                often.insert(end.author);
            }
        }
        for end in ends {
            let first = Line::from(end.author);
            if let Some(line) = self.locate(shared, end)? {
                for (line, seq) in shared.forks.implied(line, end.seq) {
                    theirs.advance(line, seq);
                }
                continue;
            }
            let forked =
                often.contains(&end.author) || shared.forks.branches(end.author).next().is_some();
            let ours = shared.ends.get(&first).map_or(0, |end| end.seq);
            if !forked && ours < end.seq {
                // Most likely it goes on from what is here; else the peer sees that the two do not fit.
                theirs.advance(first, end.seq);
            } else {
                undecided.insert(end.author);
            }
        }
        for author in &undecided {
            theirs.forget(author);
        }
        self.undecided = undecided;
        Ok(theirs)
    }

    /// The line of this replica on which that envelope is, or may be, as far as what is missing lets compare.
    pub(super) fn locate(&self, shared: &Shared, end: &End) -> Result<Option<Line>, StorageError> {
        Ok(match self.find(shared, end)? {
            Some(line) => Some(line),
            None => {
                let line = Line::from(end.author);
                let hole = shared.gap().and_then(|gap| gap.holes.get(&line));
                let hides = |hole: &Hole| hole.have.seq < end.seq && end.seq < hole.upto.seq;
                hole.filter(|hole| hides(hole)).map(|_| line)
            }
        })
    }

    /// The line of this replica on which that envelope is for certain.
    pub(super) fn find(&self, shared: &Shared, end: &End) -> Result<Option<Line>, StorageError> {
        let fits = |seq: u64, mark: [u8; 8]| seq == end.seq && mark == end.check;
        let mut txn = None;
        for line in shared.forks.lines(end.author) {
            let Some(ours) = shared.ends.get(&line) else {
                continue;
            };
            if fits(ours.seq, ours.hash.mark()) {
                return Ok(Some(line));
            }
            if ours.seq <= end.seq {
                continue;
            }
            let txn = match &mut txn {
                Some(txn) => txn,
                none => none.insert(self.replica.read()?),
            };
            let holder = shared.forks.holder(line, end.seq);
            let hash = log::hash_at(txn, &holder, end.seq)?;
            if hash.is_some_and(|hash| fits(end.seq, hash.mark())) {
                return Ok(Some(holder));
            }
        }
        Ok(None)
    }

    pub(super) fn on_have(&mut self, have: &[End]) -> Result<Vec<Message>, SessionError> {
        let shared = self.replica.shared();
        let mut placed = Vec::new();
        for end in have {
            // It answers what was sent to it: of others it cannot have anything that matters.
            if let Some(line) = self.locate(&shared, end)? {
                placed.extend(shared.forks.implied(line, end.seq));
            }
        }
        let theirs = self.theirs.as_mut().ok_or(Misbehaviour::OutOfTurn)?;
        for (line, seq) in placed {
            theirs.advance(line, seq);
        }
        Ok(Vec::new())
    }

    /// What there is here of an author's log, if that was not said since the last hello.
    pub(super) fn trail(
        &mut self,
        shared: &Shared,
        author: Author,
    ) -> Result<Option<Message>, SessionError> {
        if !self.trailed.insert(author) {
            return Ok(None);
        }
        let txn = self.replica.read()?;
        let mut lines = Vec::new();
        for line in shared.forks.lines(author).take(MAX_TRAILS) {
            let Some(end) = shared.ends.get(&line) else {
                continue;
            };
            let mut trail = Trail::new();
            let mut back = 0_u64;
            while back < end.seq && trail.len() < MAX_TRAIL {
                let seq = end.seq - back;
                let hash = log::hash_at(&txn, &shared.forks.holder(line, seq), seq)?;
                trail.extend(hash.map(|hash| (seq, hash.mark())));
                back = (back * 2).max(1);
            }
            lines.push(trail);
        }
        Ok(Some(Message::new(&Wire::Trail(author, lines))))
    }

    /// The peer says what it has of a log, because this replica's is not the same.
    pub(super) fn on_trail(
        &mut self,
        author: Author,
        lines: &[Trail],
    ) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        let shared = self.replica.shared();
        let mut placed = Vec::new();
        for trail in lines {
            for (seq, check) in trail {
                let end = End {
                    author,
                    seq: *seq,
                    check: *check,
                };
                if let Some(line) = self.locate(&shared, &end)? {
                    placed.extend(shared.forks.implied(line, *seq));
                    break;
                }
            }
        }
        let theirs = self.theirs.as_mut().ok_or(Misbehaviour::OutOfTurn)?;
        theirs.forget(&author);
        for (line, seq) in placed {
            theirs.advance(line, seq);
        }
        self.undecided.remove(&author);
        // What was sent may not have been of use.
        self.sent.forget(&author);
        self.served = None;
        Ok(self.trail(&shared, author)?.into_iter().collect())
    }

    /// The frames of the peer's own last envelopes: that it wrote them it believes nobody without.
    pub(super) fn proofs(&self, shared: &Shared) -> Result<Vec<Vec<u8>>, SessionError> {
        let own = shared.ends.iter();
        let mut own: Vec<_> = own
            .filter(|(line, _)| line.author.device == self.peer)
            .collect();
        own.sort_by_key(|(_, end)| std::cmp::Reverse(end.clock));
        let txn = self.replica.read()?;
        let mut proofs = Vec::new();
        for (line, end) in own.into_iter().take(MAX_PROOFS) {
            let mut bytes = log::sent(&txn, *line, end.seq)?;
            bytes.truncate(FRAME_BYTES);
            proofs.push(bytes);
        }
        Ok(proofs)
    }

    /// Looks for what this device wrote and does not know of, as after a restored backup. It never numbers on from
    /// there: others hold other envelopes under those numbers. The lost ones come back by the ordinary exchange.
    pub(super) fn take_proofs(&mut self, proofs: &[&[u8]]) -> Result<(), SessionError> {
        for bytes in proofs {
            let frame = Frame::verify(bytes).map_err(Misbehaviour::Undecodable)?;
            let shared = self.replica.shared();
            if frame.author != shared.author || frame.mesh != shared.members.mesh() {
                continue;
            }
            let end = End {
                author: frame.author,
                seq: frame.seq,
                check: frame.hash.mark(),
            };
            if self.locate(&shared, &end)?.is_none() {
                self.replica.close_life(frame.author, &frame.hash)?;
            }
        }
        Ok(())
    }
}
