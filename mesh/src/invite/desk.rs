//! The inviter's open invites, and the rules of their ends: one use, expiry, wrong tries.
//!
//! Pure, in memory only (a restart ends all invites), with `now` as an argument. Ended invites are
//! remembered for a while, so that a late joiner is told what happened and not "unknown".
//! The conversation itself is in `exchange`.
//!
//! A try is a proof that follows the challenge, and nothing else. Wrong ones are counted for each source, so that
//! somebody on the network who guesses does not use up the tries of the one who was invited; all together have a
//! bound, too. Beginning a conversation costs the inviter some work, and is bounded for each source as well.

mod source;

use std::collections::BTreeSet;

use rand::CryptoRng;
use wormhole_crdt::{DeviceId, MeshId, Role, Timestamp};
use zeroize::Zeroizing;

use self::source::Begins;
pub(super) use self::source::Source;
use super::{
    code::{Code, Nameplate},
    consent::Asking,
    link::Token,
    message::{Handle, Refusal},
};

/// Wrong tries of one source, after which it is heard no more.
pub(super) const MAX_WRONG: u8 = 3;

/// Wrong tries of all sources that end an invite: still nothing against 2^44.
const MAX_WRONG_OF_ALL: u8 = 15;

/// Invites that may be open at once on one node.
pub(super) const MAX_OPEN: usize = 64;

/// Ended invites that are remembered.
const MAX_ENDED: usize = 256;

/// How long an ended invite is remembered.
const REMEMBER_NANOS: i64 = 3600 * NANOS;

/// How long a device that was admitted has to come for it, at least.
const FETCH_NANOS: i64 = 15 * 60 * NANOS;

const NANOS: i64 = 1_000_000_000;

/// Names an invite within its desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InviteId(u64);

/// Names a reservation: which of the conversations about an invite holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A device proved that it knows the secret; it has not been admitted yet.
    Reserved(DeviceId, Hold),
    /// It did, agreed, and waits for a person here to admit it. It may come and go meanwhile.
    Asked(DeviceId),
    /// A person admitted it. The next conversation with it does so.
    Granted(DeviceId),
    /// A person refused it.
    Declined(DeviceId),
    /// It is admitted, or being admitted.
    Used(DeviceId, Hold),
    Burnt,
    /// Its time is over, and its owner was told.
    Expired,
}

#[derive(Debug)]
struct Entry {
    id: InviteId,
    terms: Terms,
    code: Code,
    token: Token,
    state: State,
    /// Wrong tries, by source. As many sources as tries at most.
    wrong: Vec<(Source, u8)>,
    /// What the device that asked calls itself.
    asked_by: String,
    /// The device that used it is being admitted at this moment.
    is_settling: bool,
}

/// What a newly opened invite is handed out as.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) code: Code,
    pub(super) token: Token,
}

/// What an invite is opened with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) mesh: MeshId,
    pub(super) role: Role,
    pub(super) expires: Timestamp,
    /// Whether a person has to admit the device.
    pub(super) ask: bool,
}

/// An invite that is still good, as its owner sees it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) terms: Terms,
    pub(super) code: Code,
    pub(super) token: Token,
}

/// What became of a device that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Nobody has decided yet.
    Waiting,
    /// It may come in with this conversation, if that still holds the invite: [`Desk::take`].
    Granted(Hold),
    /// Or why not.
    Refused(Refusal),
}

/// What the conversation needs of an invite.
pub(super) struct Claim {
    pub(super) id: InviteId,
    pub(super) mesh: MeshId,
    pub(super) role: Role,
    pub(super) expires: Timestamp,
    /// Whether a person has to admit the device.
    pub(super) ask: bool,
    pub(super) password: Zeroizing<Vec<u8>>,
}

/// Whether a device that proved itself may be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may, if it still holds the invite then: [`Desk::take`].
    First(Hold),
    /// It was admitted with this invite before, and comes back for a welcome that was lost. If it has been
    /// removed since, the invite must not let it in again.
    Again,
}

/// Why no further invite can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_OPEN} invites are open already; wait until one is used or expires")]
pub(super) struct DeskFull;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Desk {
    entries: Vec<Entry>,
    next: u64,
    begins: Begins,
}

impl Desk {
    /// Opens an invite, good for one device.
    pub(super) fn open(
        &mut self,
        terms: Terms,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Opened, DeskFull> {
        self.tidy(now);
        if self
            .entries
            .iter()
            .filter(|entry| entry.is_open(now))
            .count()
            >= MAX_OPEN
        {
            return Err(DeskFull);
        }
        // At most MAX_OPEN + MAX_ENDED of 900,000 numbers are taken.
        let nameplate = loop {
            let nameplate = Nameplate::random(rng);
            if self
                .entries
                .iter()
                .all(|entry| entry.code.nameplate() != nameplate)
            {
                break nameplate;
            }
        };
        let code = Code::random(nameplate, rng);
        let token = Token::random(rng);
        self.next += 1;
        self.entries.push(Entry {
            id: InviteId(self.next),
            terms,
            code: code.clone(),
            token: token.clone(),
            state: State::Open,
            wrong: Vec::new(),
            asked_by: String::new(),
            is_settling: false,
        });
        Ok(Opened { code, token })
    }

    /// The invite that `joiner` asks for, if it may try now.
    pub(super) fn claim(
        &mut self,
        handle: Handle,
        (joiner, source): (DeviceId, Source),
        now: Timestamp,
    ) -> Result<Claim, Refusal> {
        self.tidy(now);
        if !self.begins.take(source, now) {
            return Err(Refusal::Busy);
        }
        let entry = self.entries.iter().find(|entry| entry.answers_to(handle));
        let entry = entry.ok_or(Refusal::Unknown)?;
        entry.admits(joiner, source, now)?;
        Ok(Claim {
            id: entry.id,
            mesh: entry.terms.mesh,
            role: entry.terms.role,
            expires: entry.terms.expires,
            ask: entry.terms.ask,
            password: match handle {
                Handle::Nameplate(_) => entry.code.password(),
                Handle::Link(_) => entry.token.password(),
            },
        })
    }

    /// Judges a proof: `is_right` is asked only when the invite still takes one, and a wrong answer counts
    /// before anyone else can try. A right one reserves the invite for `joiner`.
    pub(super) fn judge(
        &mut self,
        id: InviteId,
        (joiner, source): (DeviceId, Source),
        now: Timestamp,
        is_right: impl FnOnce() -> bool,
    ) -> Result<Turn, Refusal> {
        self.next += 1;
        let hold = Hold(self.next);
        let entry = self.entry(id).ok_or(Refusal::Unknown)?;
        entry.admits(joiner, source, now)?;
        if is_right() {
            return Ok(match entry.state {
                State::Used(..) if entry.is_settling => return Err(Refusal::Busy),
                State::Used(..) => Turn::Again,
                // It waits for a person, or for its admission, whatever becomes of this conversation.
                State::Asked(_) | State::Granted(_) => Turn::First(hold),
                State::Open
                | State::Reserved(..)
                | State::Declined(_)
                | State::Burnt
                | State::Expired => {
                    // A second conversation with the same device takes the invite from the first.
                    entry.state = State::Reserved(joiner, hold);
                    Turn::First(hold)
                }
            });
        }
        let tries_left = entry.count_wrong(source);
        let all: u8 = entry.wrong.iter().map(|(_, wrong)| wrong).sum();
        if all >= MAX_WRONG_OF_ALL {
            entry.state = State::Burnt;
            return Err(Refusal::Burnt);
        }
        match tries_left {
            0 => Err(Refusal::Burnt),
            tries_left => Err(Refusal::Wrong { tries_left }),
        }
    }

    /// Whether the invite is burnt for everybody.
    pub(super) fn is_burnt(&self, id: InviteId) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.id == id && entry.state == State::Burnt)
    }

    /// The device that reserved the invite agreed, and asks a person here. Gives what it asks for, if that is news.
    pub(super) fn ask(&mut self, id: InviteId, hold: Hold, name: &str) -> Option<Asking> {
        let entry = self.entry(id)?;
        match entry.state {
            State::Reserved(by, held) if held == hold => {
                entry.state = State::Asked(by);
                entry.asked_by = name.to_owned();
                entry.asking()
            }
            _ => None,
        }
    }

    /// What became of a device that asked. A grant goes to the conversation that looks first.
    pub(super) fn answered(
        &mut self,
        id: InviteId,
        (joiner, hold): (DeviceId, Hold),
        now: Timestamp,
    ) -> Answered {
        let Some(entry) = self.entry(id) else {
            return Answered::Refused(Refusal::Unknown);
        };
        match entry.state {
            State::Asked(by) if by == joiner && now >= entry.terms.expires => {
                Answered::Refused(Refusal::Expired)
            }
            State::Asked(by) if by == joiner => Answered::Waiting,
            State::Granted(by) if by == joiner => {
                entry.state = State::Reserved(by, hold);
                Answered::Granted(hold)
            }
            State::Declined(by) if by == joiner => Answered::Refused(Refusal::Declined),
            State::Expired => Answered::Refused(Refusal::Expired),
            State::Burnt => Answered::Refused(Refusal::Burnt),
            State::Open
            | State::Reserved(..)
            | State::Asked(_)
            | State::Granted(_)
            | State::Declined(_)
            | State::Used(..) => Answered::Refused(Refusal::Busy),
        }
    }

    /// The devices that wait for a person to admit them.
    pub(super) fn asking(&self, now: Timestamp) -> Vec<Asking> {
        let good = |entry: &&Entry| now < entry.terms.expires;
        let asking = self.entries.iter().filter(good).filter_map(Entry::asking);
        asking.collect()
    }

    /// Admits or refuses a device that waits. False if it does not (any more).
    pub(super) fn decide(
        &mut self,
        mesh: MeshId,
        device: DeviceId,
        admit: bool,
        now: Timestamp,
    ) -> bool {
        let waits = |entry: &&mut Entry| {
            let is_it = entry.state == State::Asked(device) && entry.terms.mesh == mesh;
            is_it && now < entry.terms.expires
        };
        let Some(entry) = self.entries.iter_mut().find(waits) else {
            return false;
        };
        entry.state = if admit {
            // It has as long to fetch its admission as an invite that was just made.
            let least = now.0.saturating_add(FETCH_NANOS);
            entry.terms.expires = entry.terms.expires.max(Timestamp(least));
            State::Granted(device)
        } else {
            State::Declined(device)
        };
        true
    }

    /// The invites that are still good, with their secrets.
    pub(super) fn list(&self, now: Timestamp) -> Vec<Listed> {
        let good = self.entries.iter().filter(|entry| entry.is_open(now));
        let listed = good.map(|entry| Listed {
            terms: entry.terms,
            code: entry.code.clone(),
            token: entry.token.clone(),
        });
        listed.collect()
    }

    /// The conversation that reserved the invite ended: another may try.
    pub(super) fn release(&mut self, id: InviteId, hold: Hold) {
        if let Some(entry) = self.entry(id)
            && matches!(entry.state, State::Reserved(_, held) if held == hold)
        {
            entry.state = State::Open;
        }
    }

    /// Uses the invite up for the conversation that reserved it, before its device is admitted: of several
    /// conversations one gets this far. The device may come back for its welcome until the invite expires.
    pub(super) fn take(&mut self, id: InviteId, hold: Hold) -> Result<(), Refusal> {
        let entry = self.entry(id).ok_or(Refusal::Unknown)?;
        match entry.state {
            State::Reserved(by, held) if held == hold => {
                entry.state = State::Used(by, hold);
                entry.is_settling = true;
                Ok(())
            }
            State::Open | State::Reserved(..) | State::Asked(_) | State::Granted(_) => {
                Err(Refusal::Busy)
            }
            State::Used(..) => Err(Refusal::Used),
            State::Declined(_) => Err(Refusal::Declined),
            State::Burnt => Err(Refusal::Burnt),
            State::Expired => Err(Refusal::Expired),
        }
    }

    /// The device that used the invite is a member now.
    pub(super) fn settled(&mut self, id: InviteId) {
        if let Some(entry) = self.entry(id) {
            entry.is_settling = false;
        }
    }

    /// The device could not be admitted after all: another may try.
    pub(super) fn give_back(&mut self, id: InviteId, hold: Hold) {
        if let Some(entry) = self.entry(id)
            && matches!(entry.state, State::Used(_, held) if held == hold)
        {
            entry.is_settling = false;
            entry.state = State::Open;
        }
    }

    /// Ends the invites whose time is over and gives their meshes, each invite once. One that a device
    /// is making up its mind about ends with that conversation.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<MeshId> {
        let mut meshes = Vec::new();
        for entry in &mut self.entries {
            let is_idle = matches!(
                entry.state,
                State::Open | State::Asked(_) | State::Granted(_)
            );
            if is_idle && now >= entry.terms.expires {
                entry.state = State::Expired;
                meshes.push(entry.terms.mesh);
            }
        }
        meshes
    }

    /// Ends all invites into a mesh that this node leaves.
    pub(super) fn close(&mut self, mesh: MeshId) {
        self.entries.retain(|entry| entry.terms.mesh != mesh);
    }

    /// The nameplates of the invites that are still good.
    pub(super) fn nameplates(&self, now: Timestamp) -> BTreeSet<String> {
        self.entries
            .iter()
            .filter(|entry| entry.is_open(now))
            .map(|entry| entry.code.nameplate().to_string())
            .collect()
    }

    /// When the next of the invites that are still good expires.
    pub(super) fn next_expiry(&self, now: Timestamp) -> Option<Timestamp> {
        self.entries
            .iter()
            .filter(|entry| entry.is_open(now))
            .map(|entry| entry.terms.expires)
            .min()
    }

    fn entry(&mut self, id: InviteId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    fn tidy(&mut self, now: Timestamp) {
        self.entries.retain(|entry| {
            entry.is_open(now) || now.0 < entry.terms.expires.0.saturating_add(REMEMBER_NANOS)
        });
        let ended = self
            .entries
            .iter()
            .filter(|entry| !entry.is_open(now))
            .count();
        let mut surplus = ended.saturating_sub(MAX_ENDED);
        self.entries.retain(|entry| {
            let dropped = surplus > 0 && !entry.is_open(now);
            surplus -= usize::from(dropped);
            !dropped
        });
    }
}

impl Entry {
    fn answers_to(&self, handle: Handle) -> bool {
        match handle {
            Handle::Nameplate(nameplate) => self.code.nameplate() == nameplate,
            Handle::Link(id) => self.token.id() == id,
        }
    }

    fn is_open(&self, now: Timestamp) -> bool {
        match self.state {
            State::Open | State::Reserved(..) | State::Asked(_) | State::Granted(_) => {
                now < self.terms.expires
            }
            State::Used(..) | State::Declined(_) | State::Burnt | State::Expired => false,
        }
    }

    /// What the device that waits for a person asks for.
    fn asking(&self) -> Option<Asking> {
        let State::Asked(device) = self.state else {
            return None;
        };
        Some(Asking {
            mesh: self.terms.mesh,
            device,
            name: self.asked_by.clone(),
            role: self.terms.role,
            expires: self.terms.expires,
        })
    }

    /// Counts a wrong try and says how many more the source has.
    fn count_wrong(&mut self, source: Source) -> u8 {
        let mut sources = self.wrong.iter_mut();
        let wrong = match sources.find(|(counted, _)| *counted == source) {
            Some((_, wrong)) => {
                *wrong = wrong.saturating_add(1);
                *wrong
            }
            None => {
                self.wrong.push((source, 1));
                1
            }
        };
        MAX_WRONG.saturating_sub(wrong)
    }

    /// Whether the device may try, or try again.
    fn admits(&self, joiner: DeviceId, source: Source, now: Timestamp) -> Result<(), Refusal> {
        let mut sources = self.wrong.iter();
        if sources.any(|(counted, wrong)| *counted == source && *wrong >= MAX_WRONG) {
            return Err(Refusal::Burnt);
        }
        match self.state {
            State::Burnt => Err(Refusal::Burnt),
            State::Expired => Err(Refusal::Expired),
            State::Used(by, _) | State::Declined(by) if by != joiner => Err(Refusal::Used),
            State::Declined(_) => Err(Refusal::Declined),
            State::Open
            | State::Reserved(..)
            | State::Asked(_)
            | State::Granted(_)
            | State::Used(..)
                if now >= self.terms.expires =>
            {
                Err(Refusal::Expired)
            }
            State::Reserved(by, _) | State::Granted(by) if by != joiner => Err(Refusal::Busy),
            State::Asked(by) if by != joiner => Err(Refusal::Taken),
            State::Open
            | State::Reserved(..)
            | State::Asked(_)
            | State::Granted(_)
            | State::Used(..) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
