//! Sending what the peer lacks: a cursor over the arrival order of the log.

use super::Session;
use super::snapshot::Serving;
use super::wire::{Message, Wire};
use crate::error::SessionError;
use crate::id::Line;
use crate::limit::MAX_MESSAGE_BYTES;
use crate::log::{self, Scan};
use crate::replica::Shared;
use crate::vector::VersionVector;

/// Room that a message's own fields take beside the envelopes.
pub(super) const HEADROOM: usize = 1 << 10;

/// Bytes of envelopes after which a message is closed: small enough that a slow line is not blocked for
/// long and the receiver's one transaction for it stays short.
pub(super) const FULL: usize = 256 << 10;

impl Session {
    /// New messages for the peer, about `max_bytes` of them; empty when there is nothing to say.
    ///
    /// To be called after every [`Session::receive`], when the replica changed, and again while it
    /// gives something and the channel takes more.
    ///
    /// # Errors
    ///
    /// [`SessionError::Storage`].
    pub fn poll(&mut self, max_bytes: usize) -> Result<Vec<Message>, SessionError> {
        let shared = self.replica.shared();
        let mut messages = self.push_members(&shared);
        messages.extend(self.push_keys(&shared)?);
        let member = shared.members.state().role_of(&self.peer).is_some();
        let now = (self.told(&shared), shared.cuts);
        let told = self.told_at.as_ref() == Some(&now);
        // Who is no member any more says nothing but that.
        let state = shared.members.state();
        let speaks = member && state.role_of(&self.replica.device()).is_some();
        if speaks && !told && self.their_members.is_some() {
            messages.push(self.hello()?);
        }
        // Who has not proved the current epoch could not read it, or was handed the key just now.
        let hears = speaks && self.is_current(&shared);
        let Some(theirs) = self.theirs.clone().filter(|_| hears) else {
            return Ok(messages);
        };
        messages.extend(self.push_news(&shared)?);
        if !self.undecided.is_empty() {
            // Where logs part is being found out: not before the peer was told how they end here.
            for author in self.undecided.clone() {
                messages.extend(self.trail(&shared, author)?);
            }
            return Ok(messages);
        }
        messages.extend(self.push_snapshot(max_bytes)?);
        if !matches!(self.serving, Serving::Logs) {
            return Ok(messages);
        }
        let mut left = max_bytes;
        while left > 0 {
            let Some((message, bytes)) = self.push_envelopes(&shared, &theirs)? else {
                break;
            };
            messages.push(message);
            left = left.saturating_sub(bytes);
        }
        if left > 0 {
            messages.extend(self.push_held(&shared)?);
        }
        Ok(messages)
    }

    /// What this program cannot read: the peer may be able to, or know somebody who is.
    fn push_held(&mut self, shared: &Shared) -> Result<Vec<Message>, SessionError> {
        if self.held_at == shared.held {
            return Ok(Vec::new());
        }
        self.held_at = shared.held;
        let mut messages = Vec::new();
        for (hash, bytes) in self.replica.held_beside(&self.held_told)? {
            self.held_told.insert(hash);
            messages.push(Message::new(&Wire::Envelopes(vec![bytes.as_slice()])));
        }
        Ok(messages)
    }

    fn push_members(&mut self, shared: &Shared) -> Vec<Message> {
        let Some(theirs) = &self.their_members else {
            return Vec::new();
        };
        let now = (self.told(shared), theirs.clone());
        if self.unanswered > 0 || now.0 == now.1 || self.pushed.as_ref() == Some(&now) {
            return Vec::new();
        }
        let records = match shared.members.state().role_of(&self.peer) {
            Some(_) => shared.members.beyond(theirs),
            None => shared.members.beyond_heads(&theirs.heads, &now.0.heads),
        };
        let mut messages = Vec::new();
        let mut batch: Vec<&[u8]> = Vec::new();
        let mut size = 0;
        for record in records {
            if size + record.bytes.len() + HEADROOM > MAX_MESSAGE_BYTES {
                messages.push(Message::new(&Wire::Members(std::mem::take(&mut batch))));
                size = 0;
            }
            size += record.bytes.len() + 4;
            batch.push(&record.bytes);
        }
        if !batch.is_empty() {
            messages.push(Message::new(&Wire::Members(batch)));
        }
        self.pushed = Some(now);
        self.unanswered = messages.len();
        messages
    }

    /// The next message of envelopes, with its size.
    fn push_envelopes(
        &mut self,
        shared: &Shared,
        theirs: &VersionVector,
    ) -> Result<Option<(Message, usize)>, SessionError> {
        let txn = self.replica.read()?;
        let from = match self.served {
            Some(from) => from,
            None => match log::first_missing(
                &txn,
                &shared.vector,
                theirs,
                (shared.gap(), &shared.forks),
            )? {
                Some(from) => from,
                None => shared.next_arrival,
            },
        };
        let mut batch: Vec<Vec<u8>> = Vec::new();
        let mut size = 0;
        let sent = &mut self.sent;
        let next = log::scan(&txn, from, |line, seq, arrival, fetch| {
            // What comes now may build on what is missing here: it is for those who have that.
            if shared
                .gap()
                .is_some_and(|gap| arrival >= gap.next && !gap.is_covered_by(theirs, sent))
            {
                return Ok(Scan::Stop);
            }
            if theirs.get(line) >= seq || sent.get(line) >= seq {
                return Ok(Scan::Taken);
            }
            // Our own must survive a crash first; what comes later may build on it.
            if size >= FULL || (is_own(shared, line) && arrival >= shared.durable) {
                return Ok(Scan::Stop);
            }
            let bytes = fetch.bytes()?;
            if size + bytes.len() + HEADROOM > MAX_MESSAGE_BYTES {
                return Ok(Scan::Stop);
            }
            size += bytes.len() + 4;
            batch.push(bytes);
            sent.advance(line, seq);
            Ok(Scan::Taken)
        })?;
        self.served = Some(next);
        if batch.is_empty() {
            return Ok(None);
        }
        let envelopes = batch.iter().map(Vec::as_slice).collect();
        Ok(Some((Message::new(&Wire::Envelopes(envelopes)), size)))
    }
}

pub(super) fn is_own(shared: &Shared, line: Line) -> bool {
    line.author.device == shared.author.device
}
