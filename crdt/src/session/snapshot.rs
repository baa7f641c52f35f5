//! A device that has nothing gets a snapshot: what the two sides say to one another about it.
//!
//! The side with the long logs offers; the new device takes one offer at a time and lets the others wait.
//! When it is through, or does not take it, it says where it stands, and the logs follow from there.

use super::Session;
use super::push::{FULL, HEADROOM};
use super::wire::{Message, Wire};
use crate::bucket::alive::Seen;
use crate::error::{Misbehaviour, SessionError, StorageError};
use crate::id::Author;
use crate::limit::MAX_MESSAGE_BYTES;
use crate::replica::{Outgoing, Piece, Shared, Stage, Unfit};

/// What the peer is sent.
#[derive(Debug)]
pub(super) enum Serving {
    /// It said where it stands; what it gets is decided by the next poll.
    Undecided,
    /// What it lacks of the logs.
    Logs,
    /// A snapshot was offered.
    Offered,
    /// A snapshot is being sent.
    Snapshot(Box<Outgoing>),
    /// It was sent; the peer says next where it stands.
    Sent,
}

/// What becomes of the peer's offer.
#[derive(Debug)]
pub(super) enum Incoming {
    /// There is none.
    Nothing,
    /// It waits.
    Offered,
    /// It is being taken.
    Taking(Box<Stage>),
    /// It was given up. What is on its way of it does not matter.
    Declined,
}

impl Session {
    /// The peer said where it stands.
    pub(super) fn decide_anew(&mut self) {
        let under_way = match self.serving {
            Serving::Undecided | Serving::Logs => false,
            Serving::Offered | Serving::Snapshot(_) | Serving::Sent => true,
        };
        if !(under_way && self.peer_is_new) {
            self.serving = Serving::Undecided;
        }
    }

    /// What is to be said since the replica changed.
    pub(super) fn push_news(&mut self, shared: &Shared) -> Result<Vec<Message>, SessionError> {
        let mut messages = Vec::new();
        let staging = self.replica.is_staging();
        let passed_over = self.passed_over && !staging;
        self.had_gap |= shared.gap.is_some();
        if passed_over || (self.had_gap && shared.gap.is_none()) {
            self.passed_over &= staging;
            self.reasks = 0;
            messages.push(self.hello()?);
        }
        messages.extend(self.take_offer()?);
        messages.extend(self.ask_below(shared)?);
        Ok(messages)
    }

    /// Takes the peer's offer, when it is its turn.
    fn take_offer(&mut self) -> Result<Option<Message>, SessionError> {
        if !matches!(self.incoming, Incoming::Offered) {
            return Ok(None);
        }
        if !self.replica.is_new() {
            self.incoming = Incoming::Nothing;
            return Ok(Some(self.hello()?));
        }
        if self
            .undecided
            .iter()
            .any(|author| author.device == self.replica.device())
        {
            // The log of this device is in question: it must be seen envelope by envelope.
            self.incoming = Incoming::Declined;
            return Ok(Some(Message::new(&Wire::NoSnapshot)));
        }
        Ok(self.replica.stage()?.map(|stage| {
            self.incoming = Incoming::Taking(Box::new(stage));
            Message::new(&Wire::WantSnapshot)
        }))
    }

    /// The next of what is said to a device that has nothing, about `max_bytes` of it.
    pub(super) fn push_snapshot(&mut self, max_bytes: usize) -> Result<Vec<Message>, SessionError> {
        if matches!(self.serving, Serving::Undecided) {
            let offer =
                self.able && self.peer_is_new && self.replica.offers_snapshot(self.worth)?;
            if offer {
                self.serving = Serving::Offered;
                return Ok(vec![Message::new(&Wire::Offer)]);
            }
            self.serving = Serving::Logs;
        }
        let mut messages = Vec::new();
        let mut left = max_bytes;
        while left > 0
            && let Serving::Snapshot(outgoing) = &mut self.serving
        {
            let message = next(outgoing)?;
            left = left.saturating_sub(message.as_ref().map_or(left, |m| m.as_bytes().len()));
            messages.push(message.unwrap_or_else(|| {
                self.serving = Serving::Sent;
                Message::new(&Wire::SnapshotEnd)
            }));
        }
        Ok(messages)
    }

    pub(super) fn on_offer(&mut self) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        match self.incoming {
            Incoming::Taking(_) => Err(Misbehaviour::OutOfTurn.into()),
            Incoming::Declined => Ok(vec![Message::new(&Wire::NoSnapshot)]),
            Incoming::Nothing | Incoming::Offered => {
                self.incoming = Incoming::Offered;
                Ok(Vec::new())
            }
        }
    }

    pub(super) fn on_want_snapshot(&mut self) -> Result<Vec<Message>, SessionError> {
        let member = self.replica.role_of(&self.peer).is_some();
        let snapshot = match self.serving {
            Serving::Offered if member => self.replica.snapshot(self.worth)?,
            Serving::Offered
            | Serving::Undecided
            | Serving::Logs
            | Serving::Snapshot(_)
            | Serving::Sent => None,
        };
        // It may have ceased to be worth its while.
        Ok(match snapshot {
            Some(outgoing) => {
                self.serving = Serving::Snapshot(Box::new(outgoing));
                Vec::new()
            }
            None => {
                self.serving = Serving::Logs;
                vec![Message::new(&Wire::NoSnapshot)]
            }
        })
    }

    /// Said by either side.
    pub(super) fn on_no_snapshot(&mut self) -> Vec<Message> {
        match self.incoming {
            Incoming::Taking(_) | Incoming::Offered => self.incoming = Incoming::Declined,
            Incoming::Nothing | Incoming::Declined => self.serving = Serving::Logs,
        }
        Vec::new()
    }

    pub(super) fn on_pieces(
        &mut self,
        pieces: &[(&[u8], &[u8])],
    ) -> Result<Vec<Message>, SessionError> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|(marks, envelope)| Piece { marks, envelope })
            .collect();
        self.take_part(|stage| stage.take(&pieces))
    }

    pub(super) fn on_seen(
        &mut self,
        seen: &[(Author, Seen)],
    ) -> Result<Vec<Message>, SessionError> {
        self.take_part(|stage| stage.take_seen(seen))
    }

    fn take_part(
        &mut self,
        take: impl FnOnce(&mut Stage) -> Result<(), Unfit>,
    ) -> Result<Vec<Message>, SessionError> {
        let taken = match &mut self.incoming {
            Incoming::Taking(stage) => take(stage),
            Incoming::Declined => Ok(()),
            Incoming::Nothing | Incoming::Offered => return Err(Misbehaviour::OutOfTurn.into()),
        };
        self.or_decline(taken)
    }

    pub(super) fn on_snapshot_end(&mut self) -> Result<Vec<Message>, SessionError> {
        match std::mem::replace(&mut self.incoming, Incoming::Declined) {
            Incoming::Taking(stage) => {
                let installed = stage.install();
                if installed.is_ok() {
                    self.incoming = Incoming::Nothing;
                    return Ok(vec![self.hello()?]);
                }
                self.or_decline(installed)
            }
            Incoming::Declined => Ok(Vec::new()),
            Incoming::Nothing | Incoming::Offered => Err(Misbehaviour::OutOfTurn.into()),
        }
    }

    /// Gives a snapshot up that is of no use, though nobody is to blame.
    fn or_decline(&mut self, taken: Result<(), Unfit>) -> Result<Vec<Message>, SessionError> {
        match taken {
            Ok(()) => Ok(Vec::new()),
            Err(Unfit::Session(error)) => Err(error),
            Err(Unfit::Unusable) => {
                self.incoming = Incoming::Declined;
                Ok(vec![Message::new(&Wire::NoSnapshot)])
            }
        }
    }
}

/// The next message of a snapshot; `None` when there is only its end left.
fn next(outgoing: &mut Outgoing) -> Result<Option<Message>, StorageError> {
    let pieces = outgoing.pieces(FULL)?;
    if !pieces.is_empty() {
        let pieces = pieces
            .iter()
            .map(|(marks, envelope)| (marks.as_slice(), envelope.as_slice()));
        return Ok(Some(Message::new(&Wire::Pieces(pieces.collect()))));
    }
    let seen = outgoing.seen(MAX_MESSAGE_BYTES - HEADROOM)?;
    Ok((!seen.is_empty()).then(|| Message::new(&Wire::Seen(seen))))
}

#[cfg(test)]
mod tests;
