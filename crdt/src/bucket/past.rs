//! What an author had seen of others when it wrote its last envelope: the union of the causes that its
//! envelopes name. It decides which values the author's next change can replace.

use std::collections::BTreeMap;

use super::Actor;
use crate::id::Line;

/// How much of everybody's log one author had seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    own: Actor,
    seen: BTreeMap<Actor, u64>,
}

impl Past {
    /// An author that has seen nobody but itself.
    pub(crate) fn of(line: &Line) -> Self {
        Self {
            own: line.actor(),
            seen: BTreeMap::new(),
        }
    }

    /// The inverse of [`Past::pack`]; `None` for a damaged row.
    pub(crate) fn unpack(line: &Line, packed: &[u8]) -> Option<Self> {
        Some(Self {
            own: line.actor(),
            seen: postcard::from_bytes(packed).ok()?,
        })
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.seen).expect("memory takes any value")
    }

    /// Notes the causes that an envelope names.
    pub(crate) fn learn(&mut self, deps: &[(Line, u64)]) {
        for (line, seq) in deps {
            let last = self.seen.entry(line.actor()).or_insert(0);
            *last = (*last).max(*seq);
        }
    }

    /// The same for a line that parts from the one that this is of.
    pub(crate) fn onto(self, line: &Line) -> Self {
        Self {
            own: line.actor(),
            seen: self.seen,
        }
    }

    /// Takes over what somebody says that the author had seen.
    pub(crate) fn learn_stated(&mut self, seen: &BTreeMap<Actor, u64>) {
        for (actor, seq) in seen {
            let last = self.seen.entry(*actor).or_insert(0);
            *last = (*last).max(*seq);
        }
    }

    /// Everything that was seen of others.
    pub(crate) fn into_seen(self) -> BTreeMap<Actor, u64> {
        self.seen
    }

    /// The last envelope seen of somebody else.
    pub(crate) fn seen(&self, actor: &Actor) -> u64 {
        self.seen.get(actor).copied().unwrap_or(0)
    }

    /// Whether an envelope was seen. Its own author has seen each of its earlier ones.
    pub(crate) fn holds(&self, actor: &Actor, envelope: u64) -> bool {
        *actor == self.own || envelope <= self.seen(actor)
    }
}
