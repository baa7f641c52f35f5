//! Epochs between two members: each tells which it knows and proves it, and hands over what the other lacks.
//!
//! Keys come before envelopes: until the peer has proved the epoch that is written under now, it gets membership records
//! and keys, and nothing else. So who was away comes back with an old secret, and nothing is ever sent that the receiver
//! cannot read. A device that is no member hears nothing of epochs.

use std::collections::{BTreeMap, BTreeSet};

use super::Session;
use super::push::HEADROOM;
use super::wire::{Message, Wire};
use crate::epoch::EpochSecret;
use crate::error::SessionError;
use crate::id::{EpochId, Hash};
use crate::limit::{MAX_MESSAGE_BYTES, MAX_TOLD_EPOCHS};
use crate::replica::Shared;

/// What two members know of one another's epochs.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What the peer says that it knows, with its proofs; `None` until it said so.
    theirs: Option<BTreeMap<EpochId, Hash>>,
    /// How many this device knew when it told the peer last.
    told: usize,
    /// Those that were handed to the peer.
    handed: BTreeSet<EpochId>,
}

impl Keys {
    /// Takes what the peer says that it knows.
    pub(super) fn hear(&mut self, epochs: Vec<(EpochId, Hash)>) {
        self.theirs = Some(epochs.into_iter().collect());
    }
}

impl Session {
    /// Whether the peer has proved to know what is written under now.
    pub(super) fn is_current(&self, shared: &Shared) -> bool {
        let theirs = self.keys.theirs.as_ref();
        let current = shared.epochs.current();
        current.is_some_and(|secret| {
            let proof = theirs.and_then(|theirs| theirs.get(&secret.id()));
            proof == Some(&secret.proof(&self.peer, &self.replica.device()))
        })
    }

    /// Whether epochs are any of the peer's business.
    fn are_both_members(&self, shared: &Shared) -> bool {
        let state = shared.members.state();
        [self.peer, self.replica.device()]
            .iter()
            .all(|device| state.role_of(device).is_some())
    }

    /// What this device knows, if the peer was not told so.
    pub(super) fn tell_epochs(&mut self, shared: &Shared) -> Option<Message> {
        let known = shared.epochs.all();
        if self.keys.told == known.len() || !self.are_both_members(shared) {
            return None;
        }
        self.keys.told = known.len();
        let own = self.replica.device();
        let newest = known.iter().rev().take(MAX_TOLD_EPOCHS);
        let proofs = newest.map(|secret| (secret.id(), secret.proof(&own, &self.peer)));
        Some(Message::new(&Wire::Epochs(proofs.collect())))
    }

    /// What this device knows, and the keys that the peer lacks. To be said after the records that name them.
    pub(super) fn push_keys(&mut self, shared: &Shared) -> Result<Vec<Message>, SessionError> {
        if !self.are_both_members(shared) {
            return Ok(Vec::new());
        }
        let mut messages: Vec<Message> = self.tell_epochs(shared).into_iter().collect();
        let (Some(theirs), true) = (&self.keys.theirs, self.has_sent_members(shared)) else {
            return Ok(messages);
        };
        let newest = shared.epochs.all().iter().rev().take(MAX_TOLD_EPOCHS);
        let lacks = |id: &EpochId| !theirs.contains_key(id) && !self.keys.handed.contains(id);
        let lacking: Vec<&EpochSecret> = newest.filter(|secret| lacks(&secret.id())).collect();
        let mut batch: Vec<Vec<u8>> = Vec::new();
        let mut size = 0;
        for secret in lacking {
            let list = self.replica.keys_for(secret, &self.peer)?;
            self.keys.handed.insert(secret.id());
            if size + list.len() + HEADROOM > MAX_MESSAGE_BYTES {
                messages.push(keys(&std::mem::take(&mut batch)));
                size = 0;
            }
            size += list.len() + 4;
            batch.push(list);
        }
        if !batch.is_empty() {
            messages.push(keys(&batch));
        }
        Ok(messages)
    }

    /// Whether the peer has, or was sent before this, all records that it may lack.
    fn has_sent_members(&self, shared: &Shared) -> bool {
        self.their_members.as_ref().is_some_and(|theirs| {
            let now = (self.told(shared), theirs.clone());
            now.0 == now.1 || self.pushed.as_ref() == Some(&now)
        })
    }

    pub(super) fn on_keys(&mut self, lists: &[&[u8]]) -> Result<Vec<Message>, SessionError> {
        if self.replica.take_keys(lists)? {
            // What could not be read before comes again.
            self.told_at = None;
        }
        Ok(Vec::new())
    }
}

fn keys(lists: &[Vec<u8>]) -> Message {
    Message::new(&Wire::Keys(lists.iter().map(Vec::as_slice).collect()))
}

#[cfg(test)]
mod tests;
