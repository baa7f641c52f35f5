//! Bringing two replicas to the same state, over any ordered, reliable channel.
//!
//! A [`Session`] does no I/O: what it wants to say it returns as [`Message`]s, what the peer said is handed to
//! [`Session::receive`]. Both sides say hello with their version vectors; then each sends what the
//! other lacks, oldest first, and goes on with every new envelope, its own and those of others. A device that
//! has nothing may get a snapshot first (`session/snapshot`), and then the rest of the logs
//! (`session/below`). Where the two have different branches of a log they first find out what they share
//! (`session/branch`). Any number of sessions may run on one replica; what comes twice is recognised by its number.
//!
//! What a message may contain and how big it may be stands in `session/wire`; whether an envelope
//! counts is decided by the replica.

mod below;
#[cfg(test)]
mod bent;
mod branch;
mod key;
mod push;
mod snapshot;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeSet;

use rand::Rng;

use crate::envelope::{FORMAT, Frame};
use crate::error::{Misbehaviour, SessionError};
use crate::id::{Author, DeviceId, Hash};
use crate::limit::{MAX_REASKS, MAX_TOLD_HEADS, MAX_VECTOR_AUTHORS};
use crate::member::Told;
use crate::replica::{Fetching, Replica, Shared, Worth};
use crate::vector::VersionVector;
use key::Keys;
use snapshot::{Incoming, Serving};
use wire::{End, Hello, VERSION, Wire};

pub use wire::Message;

/// The exchange with one peer, for as long as a connection lasts.
#[derive(Debug)]
pub struct Session {
    replica: Replica,
    peer: DeviceId,
    /// What the peer is known to have; `None` until it said so.
    theirs: Option<VersionVector>,
    /// What was sent and is not acknowledged yet.
    sent: VersionVector,
    /// What the peer has of the membership log, as it said last.
    their_members: Option<Told>,
    /// What was here and what the peer had when it was last sent membership records: with nothing new on either
    /// side it is not sent them again.
    pushed: Option<(Told, Told)>,
    /// Messages of membership records that the peer has not answered.
    unanswered: usize,
    keys: Keys,
    /// Arrival number up to which envelopes were looked at for this peer.
    served: Option<u64>,
    /// What the membership log was at the last hello that told what this replica has, and how often its logs had
    /// been cut. When one of them moves it is told anew.
    told_at: Option<(Told, u64)>,
    reasks: u32,
    /// Authors of whose logs the peer has another branch, while it is not known where they part. Nothing is sent
    /// meanwhile.
    undecided: BTreeSet<Author>,
    /// Authors whose trails were sent since the last hello.
    trailed: BTreeSet<Author>,
    diverged: bool,
    /// The peer knows snapshots.
    able: bool,
    /// At its last hello the peer had nothing but what it wrote itself.
    peer_is_new: bool,
    /// When a snapshot is offered.
    worth: Worth,
    /// What the peer is sent.
    serving: Serving,
    /// What becomes of the peer's offer.
    incoming: Incoming,
    /// Envelopes were passed over while a snapshot was on its way in.
    passed_over: bool,
    /// The logs here had holes at the last hello, or since: some of what the peer sent may not have been taken.
    had_gap: bool,
    /// How many envelopes were held when they were last sent.
    held_at: u64,
    /// Held envelopes that the peer has.
    held_told: BTreeSet<Hash>,
    /// There while the peer is asked for what is missing.
    fetching: Option<Fetching>,
    /// The peer has nothing more of what is missing.
    dry: bool,
}

impl Session {
    /// Starts an exchange. The channel must have proved that the other end is `peer`.
    #[must_use]
    pub fn new(replica: &Replica, peer: DeviceId) -> Self {
        Self {
            replica: replica.clone(),
            peer,
            theirs: None,
            sent: VersionVector::default(),
            their_members: None,
            pushed: None,
            unanswered: 0,
            keys: Keys::default(),
            served: None,
            told_at: None,
            reasks: 0,
            undecided: BTreeSet::new(),
            trailed: BTreeSet::new(),
            diverged: false,
            able: false,
            peer_is_new: false,
            worth: Worth::DEFAULT,
            serving: Serving::Undecided,
            incoming: Incoming::Nothing,
            passed_over: false,
            had_gap: false,
            held_at: u64::MAX,
            held_told: BTreeSet::new(),
            fetching: None,
            dry: false,
        }
    }

    /// What to send first. Both sides do.
    ///
    /// # Errors
    ///
    /// [`SessionError::Storage`].
    pub fn start(&mut self) -> Result<Vec<Message>, SessionError> {
        let shared = self.replica.shared();
        let mut messages = vec![Message::new(&Wire::MemberHeads(self.told(&shared)))];
        messages.extend(self.tell_epochs(&shared));
        messages.push(self.hello()?);
        Ok(messages)
    }

    /// Takes a message; gives the answers. Call [`Session::poll`] afterwards.
    ///
    /// # Errors
    ///
    /// [`SessionError`]: see [`SessionError::is_peer_fault`]. The session is over.
    pub fn receive(
        &mut self,
        message: &[u8],
        rng: &mut dyn Rng,
    ) -> Result<Vec<Message>, SessionError> {
        match Wire::decode(message)? {
            Wire::Hello(hello) => self.on_hello(&hello),
            Wire::Members(records) => self.on_members(&records, rng),
            Wire::MemberHeads(told) => {
                // Before its hello only a program says so that knows snapshots.
                self.able |= self.their_members.is_none();
                self.their_members = Some(told);
                self.unanswered = self.unanswered.saturating_sub(1);
                self.see_out()?;
                Ok(Vec::new())
            }
            Wire::Epochs(epochs) => {
                self.keys.hear(epochs);
                Ok(Vec::new())
            }
            Wire::Keys(lists) => self.on_keys(&lists),
            Wire::Envelopes(envelopes) => self.on_envelopes(&envelopes),
            Wire::Have(have) => self.on_have(&have),
            Wire::Trail(author, lines) => self.on_trail(author, &lines),
            Wire::Offer => self.on_offer(),
            Wire::WantSnapshot => self.on_want_snapshot(),
            Wire::NoSnapshot => Ok(self.on_no_snapshot()),
            Wire::Pieces(pieces) => self.on_pieces(&pieces),
            Wire::Seen(seen) => self.on_seen(&seen),
            Wire::SnapshotEnd => self.on_snapshot_end(),
            Wire::WantBelow(ranges) => self.on_want_below(&ranges),
            Wire::Below(envelopes) => self.on_below(&envelopes),
        }
    }

    /// Whether both sides have said that they have the same envelopes and members. Once this device has left, whether
    /// the peer has said that it knows.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        let shared = self.replica.shared();
        let own = self.replica.device();
        if shared.members.state().role_of(&own).is_none() {
            let theirs = self.their_members.as_ref();
            return theirs.is_some_and(|theirs| shared.members.tells_of_leaving(theirs, &own));
        }
        self.theirs.as_ref() == Some(&shared.vector)
            && self.knows_members()
            && self.is_current(&shared)
    }

    /// Whether the peer has said that it has the same of the membership log.
    #[must_use]
    pub fn knows_members(&self) -> bool {
        // What does not count may be kept here and not there, when there was too much of it.
        let told = self.replica.shared().members.told();
        let theirs = self.their_members.as_ref();
        theirs.is_some_and(|theirs| theirs.heads == told.heads && theirs.leaves == told.leaves)
    }

    /// Whether the peer's registers differed although its logs were equal: an alarm, for there is no honest
    /// cause, only damage, a defect, or a false snapshot that one of the two began with.
    #[must_use]
    pub fn has_diverged(&self) -> bool {
        self.diverged
    }

    /// What the peer has, as far as it said; `None` before its hello.
    #[must_use]
    pub fn peer_vector(&self) -> Option<&VersionVector> {
        self.theirs.as_ref()
    }

    /// The device at the other end.
    #[must_use]
    pub fn peer(&self) -> DeviceId {
        self.peer
    }

    /// Has a snapshot offered to every device that has nothing, however short the logs are.
    #[cfg(test)]
    pub(crate) fn offer_always(&mut self) {
        self.worth = Worth { from: 0, ratio: 0 };
    }

    fn hello(&mut self) -> Result<Message, SessionError> {
        let shared = self.replica.shared();
        let digest = self.replica.digest_of(&shared)?;
        let members = self.told(&shared);
        let member = shared.members.state().role_of(&self.peer).is_some();
        self.told_at = member.then(|| (members.clone(), shared.cuts));
        self.had_gap = shared.gap.is_some();
        let ends = member.then(|| {
            let ends = shared.ends.iter().take(MAX_VECTOR_AUTHORS);
            ends.map(|(line, end)| End::of(*line, end)).collect()
        });
        let proofs = self.proofs(&shared)?;
        let mesh = shared.members.mesh();
        let hello = Hello {
            version: VERSION,
            mesh,
            members,
            digest,
            ends,
            proofs: proofs.iter().map(Vec::as_slice).collect(),
        };
        Ok(Message::new(&Wire::Hello(hello)))
    }

    fn on_hello(&mut self, hello: &Hello<'_>) -> Result<Vec<Message>, SessionError> {
        self.take_proofs(&hello.proofs)?;
        let shared = self.replica.shared();
        if hello.mesh != shared.members.mesh() {
            return Err(Misbehaviour::OtherMesh { mesh: hello.mesh }.into());
        }
        self.their_members = Some(hello.members.clone());
        self.see_out()?;
        let Some(ends) = &hello.ends else {
            return Ok(Vec::new());
        };
        let theirs = self.place_ends(&shared, ends)?;
        let own = |end: &End| end.author.device == self.peer;
        self.peer_is_new = ends.iter().all(own);
        let mut answer = false;
        if let (Some(ours), Some(hash)) = (self.replica.digest_of(&shared)?, hello.digest)
            && theirs == shared.vector
            && hello.members == shared.members.told()
            && ours != hash
        {
            // Equal logs must mean equal registers. No log can cause this, only a false snapshot, or a defect.
            tracing::error!(peer = %self.peer, "registers differ from a peer's although the logs are equal");
            self.replica.doubt()?;
            // The peer shall know, too: its registers may be those of the snapshot.
            answer |= !self.diverged;
            self.diverged = true;
        }
        self.theirs = Some(theirs);
        self.sent = VersionVector::default();
        self.served = None;
        self.dry = false;
        self.decide_anew();
        let mut answers = Vec::new();
        if answer {
            answers.push(self.hello()?);
        }
        self.trailed.clear();
        Ok(answers)
    }

    fn on_members(
        &mut self,
        records: &[&[u8]],
        rng: &mut dyn Rng,
    ) -> Result<Vec<Message>, SessionError> {
        self.replica.take_members(records, rng)?;
        let told = self.told(&self.replica.shared());
        Ok(vec![Message::new(&Wire::MemberHeads(told))])
    }

    /// What this replica has of the membership log, as far as it concerns the peer.
    fn told(&self, shared: &Shared) -> Told {
        let told = shared.members.told();
        if shared.members.state().role_of(&self.peer).is_some() {
            return told;
        }
        let mut heads = shared.members.concerning(&self.peer);
        heads.truncate(MAX_TOLD_HEADS);
        Told { heads, ..told }
    }

    /// Ends the exchange with a device that is no member, knows why, and has no membership record that could
    /// still change our mind.
    fn see_out(&self) -> Result<(), SessionError> {
        let shared = self.replica.shared();
        let members = &shared.members;
        let Some(theirs) = &self.their_members else {
            return Ok(());
        };
        if members.state().role_of(&self.replica.device()).is_none() {
            // Whoever left, or was removed, is no judge of others.
            return Ok(());
        }
        let ends = members.state().role_of(&self.peer).is_none()
            && members.knows_all(&theirs.heads)
            && members
                .beyond_heads(&theirs.heads, &members.concerning(&self.peer))
                .is_empty();
        match ends {
            true => Err(SessionError::NotMember { device: self.peer }),
            false => Ok(()),
        }
    }

    fn on_envelopes(&mut self, envelopes: &[&[u8]]) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        let theirs = self.theirs.as_mut().ok_or(Misbehaviour::OutOfTurn)?;
        if self.replica.is_staging() {
            // They would not fit under the snapshot; they come again after it.
            self.passed_over = true;
            return Ok(Vec::new());
        }
        let frames = envelopes.iter().filter_map(|bytes| Frame::read(bytes).ok());
        let newer = frames.filter(|frame| frame.format != FORMAT);
        self.held_told.extend(newer.map(|frame| frame.hash));
        let applied = self.replica.apply(envelopes)?;
        let shared = self.replica.shared();
        let mut have = Vec::new();
        for (line, seq) in &applied.sent {
            for (line, seq) in shared.forks.implied(*line, *seq) {
                theirs.advance(line, seq);
            }
            have.extend(shared.ends.get(line).map(|end| End::of(*line, end)));
        }
        let mut answers = vec![Message::new(&Wire::Have(have))];
        if !applied.causes_missing && !applied.sent.is_empty() {
            self.reasks = 0;
        }
        for author in applied.astray {
            answers.extend(self.trail(&shared, author)?);
        }
        if applied.causes_missing {
            // Beyond that nobody is to blame, but asking does not help: what is missing may come from somebody else.
            self.reasks += 1;
            if self.reasks <= MAX_REASKS {
                answers.push(self.hello()?);
            }
        }
        Ok(answers)
    }
}

impl SessionError {
    /// Whether the peer is to blame: disconnect it and remember that.
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        match self {
            Self::Misbehaved(_) => true,
            Self::Storage(_) | Self::Version { .. } | Self::NotMember { .. } => false,
        }
    }
}
