//! Bringing two replicas to the same state, over any ordered, reliable channel.
//!
//! A [`Session`] does no I/O: what it wants to say it returns as [`Message`]s, what the peer said is handed to
//! [`Session::receive`]. Both sides say hello with their version vectors; then each sends what the
//! other lacks, oldest first, and goes on with every new envelope, its own and those of others. A device that
//! has nothing may get a snapshot first (`session/snapshot`), and then the rest of the logs
//! (`session/below`). Any number of sessions may run on one replica; what comes twice is recognised by its number.
//!
//! What a message may contain and how big it may be stands in `session/wire`; whether an envelope
//! counts is decided by the replica.

mod below;
#[cfg(test)]
mod bent;
mod key;
mod push;
mod snapshot;
#[cfg(test)]
mod tests;
mod wire;

use rand::Rng;

use crate::error::{Misbehaviour, SessionError};
use crate::id::{Author, DeviceId, Hash};
use crate::limit::{MAX_REASKS, MAX_TOLD_HEADS, MAX_VECTOR_AUTHORS};
use crate::member::Told;
use crate::replica::{Fetching, Fork, Replica, Shared, Way, Worth};
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
    /// While it is looked for where this device's history and the peer's version of it part.
    search: Option<Search>,
    diverged: bool,
    /// The peer knows snapshots.
    able: bool,
    /// When a snapshot is offered.
    worth: Worth,
    /// What the peer is sent.
    serving: Serving,
    /// What becomes of the peer's offer.
    incoming: Incoming,
    /// Envelopes were passed over while a snapshot was on its way in.
    passed_over: bool,
    /// The last hello came from a replica whose logs had holes.
    told_gap: bool,
    /// There while the peer is asked for what is missing.
    fetching: Option<Fetching>,
    /// The peer has nothing more of what is missing.
    dry: bool,
    /// Arrival number up to which envelopes were looked at for what the peer misses.
    below: Option<u64>,
}

/// The search for the last envelope of this device that the peer has, too.
#[derive(Debug, Clone, Copy)]
struct Search {
    author: Author,
    /// What is said to be here, so that the peer sends what comes after it.
    claim: u64,
    /// How much less is claimed next.
    step: u64,
    /// An envelope of the peer's version: when it is here, another session found the place.
    other: (u64, [u8; 8]),
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
            search: None,
            diverged: false,
            able: false,
            worth: Worth::DEFAULT,
            serving: Serving::Undecided,
            incoming: Incoming::Nothing,
            passed_over: false,
            told_gap: false,
            fetching: None,
            dry: false,
            below: None,
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
            Wire::Hello(hello) => self.on_hello(&hello, rng),
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
            Wire::Envelopes(envelopes) => self.on_envelopes(&envelopes, rng),
            Wire::Have(have) => {
                let theirs = self.theirs.as_mut().ok_or(Misbehaviour::OutOfTurn)?;
                let shared = self.replica.shared();
                for (author, seq) in have {
                    // It answers what was sent to it: of others it cannot have anything that matters.
                    if shared.ends.contains_key(&author) {
                        theirs.advance(author, seq);
                    }
                }
                Ok(Vec::new())
            }
            Wire::Offer => self.on_offer(),
            Wire::WantSnapshot => self.on_want_snapshot(),
            Wire::NoSnapshot => Ok(self.on_no_snapshot()),
            Wire::Pieces(pieces) => self.on_pieces(&pieces),
            Wire::Numbers(numbers) => self.on_numbers(&numbers),
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
        self.told_gap = shared.gap.is_some();
        let ends = member.then(|| {
            let ends = shared.ends.iter().take(MAX_VECTOR_AUTHORS);
            ends.map(|(author, end)| End {
                author: *author,
                seq: end.seq,
                check: check(&end.hash),
            })
            .collect::<Vec<_>>()
        });
        let ends = ends.map(|ends| self.claimed(ends)).transpose()?;
        let mesh = shared.members.mesh();
        let hello = Hello {
            version: VERSION,
            mesh,
            members,
            digest,
            ends,
        };
        Ok(Message::new(&Wire::Hello(hello)))
    }

    fn on_hello(&mut self, hello: &Hello, rng: &mut dyn Rng) -> Result<Vec<Message>, SessionError> {
        let shared = self.replica.shared();
        if hello.mesh != shared.members.mesh() {
            return Err(Misbehaviour::OtherMesh { mesh: hello.mesh }.into());
        }
        self.their_members = Some(hello.members.clone());
        self.see_out()?;
        let Some(ends) = &hello.ends else {
            return Ok(Vec::new());
        };
        let searching = self.search.is_some();
        self.compare_own_logs(ends, rng)?;
        let mut answer = !searching && self.search.is_some();
        let theirs: VersionVector = ends.iter().map(|end| (end.author, end.seq)).collect();
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
        self.below = None;
        self.dry = false;
        self.decide_anew();
        let answer = answer.then(|| self.hello()).transpose()?;
        Ok(answer.into_iter().collect())
    }

    /// Looks for signs that this device lost the end of its own log, as a restored backup does.
    fn compare_own_logs(&mut self, ends: &[End], rng: &mut dyn Rng) -> Result<(), SessionError> {
        let shared = self.replica.shared();
        let own = ends
            .iter()
            .filter(|end| end.author.device == shared.author.device);
        for theirs in own {
            let ours = shared.ends.get(&theirs.author).map_or(0, |end| end.seq);
            if ours < theirs.seq {
                // They know more of us than we do. Never number on from here: others hold other
                // envelopes under those numbers. The lost ones come back by the ordinary exchange.
                if theirs.author == shared.author && !self.replica.is_forked() {
                    self.replica.renew(rng)?;
                }
                continue;
            }
            if theirs.author != shared.author && shared.ends.contains_key(&shared.author) {
                // It has given way already, to somebody with yet another history.
                continue;
            }
            let hash = self.replica.envelope_hash(&theirs.author, theirs.seq)?;
            if hash.is_some_and(|hash| check(&hash) != theirs.check) && self.search.is_none() {
                self.search_before(theirs.author, (theirs.seq, theirs.check));
            }
        }
        Ok(())
    }

    /// Has the peer send this device's envelopes from before this one on.
    fn search_before(&mut self, author: Author, other: (u64, [u8; 8])) {
        let step = match self.search {
            Some(search) if search.author == author => search.step.saturating_mul(4),
            Some(_) | None => 1,
        };
        let claim = other.0.saturating_sub(1 + step);
        let search = Search {
            author,
            claim,
            step,
            other,
        };
        self.search = Some(search);
    }

    /// Ends the search if this device has the peer's version by now.
    fn end_search(&mut self) -> Result<bool, SessionError> {
        let Some(Search { author, other, .. }) = self.search else {
            return Ok(false);
        };
        let ours = self.replica.envelope_hash(&author, other.0)?;
        let ends = ours.is_some_and(|hash| check(&hash) == other.1);
        if ends {
            self.search = None;
        }
        Ok(ends)
    }

    /// What a hello says of this device's logs during a search.
    fn claimed(&self, mut ends: Vec<End>) -> Result<Vec<End>, SessionError> {
        let Some(Search { author, claim, .. }) = self.search else {
            return Ok(ends);
        };
        ends.retain(|end| end.author != author);
        if let Some(hash) = self.replica.envelope_hash(&author, claim)? {
            ends.push(End {
                author,
                seq: claim,
                check: check(&hash),
            });
        }
        Ok(ends)
    }

    /// The peer has another history of this device, whose numbers count: others build on them.
    fn on_fork(&mut self, fork: Fork, rng: &mut dyn Rng) -> Result<Option<Message>, SessionError> {
        let Fork { author, at, .. } = fork;
        let other = (at, check(&fork.hash));
        let way = if self.replica.shared().gap().is_some() {
            // An envelope of this device may be among those that are missing.
            Way::Later
        } else if fork.first {
            self.replica.give_way(author, at - 1, rng)?
        } else {
            self.search_before(author, other);
            return self.hello().map(Some);
        };
        match way {
            Way::Given => {
                tracing::warn!("this device was restored from a backup and has written since");
                self.search = None;
                self.hello().map(Some)
            }
            Way::Later => {
                // When the logs are complete a hello says so, and the peer's version comes again.
                self.replica.postpone(author)?;
                self.search = Some(Search {
                    author,
                    claim: at - 1,
                    step: 1,
                    other,
                });
                Ok(None)
            }
            Way::Barred => Err(SessionError::OwnLogForked),
        }
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

    fn on_envelopes(
        &mut self,
        envelopes: &[&[u8]],
        rng: &mut dyn Rng,
    ) -> Result<Vec<Message>, SessionError> {
        if self.replica.role_of(&self.peer).is_none() {
            return Err(SessionError::NotMember { device: self.peer });
        }
        let theirs = self.theirs.as_mut().ok_or(Misbehaviour::OutOfTurn)?;
        if self.replica.is_staging() {
            // They would not fit under the snapshot; they come again after it.
            self.passed_over = true;
            return Ok(Vec::new());
        }
        let applied = self.replica.apply(envelopes)?;
        let shared = self.replica.shared();
        for (author, seq) in &applied.sent {
            if shared.ends.contains_key(author) {
                theirs.advance(*author, *seq);
            }
        }
        let mut answers = vec![Message::new(&Wire::Have(applied.have))];
        if let Some(fork) = applied.fork {
            answers.extend(self.on_fork(fork, rng)?);
            return Ok(answers);
        }
        if applied.causes_missing {
            self.reasks += 1;
            if self.reasks <= MAX_REASKS {
                answers.push(self.hello()?);
            } else if self.replica.shared().gap.is_none() {
                return Err(Misbehaviour::MissingCauses.into());
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
            Self::Storage(_)
            | Self::Version { .. }
            | Self::NotMember { .. }
            | Self::OwnLogForked => false,
        }
    }
}

fn check(hash: &Hash) -> [u8; 8] {
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}
