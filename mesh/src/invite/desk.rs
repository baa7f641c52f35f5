//! The inviter's open invites, and the rules of their ends: one use, expiry, three wrong tries.
//!
//! Pure, in memory only (a restart ends all invites), with `now` as an argument. Ended invites are
//! remembered for a while, so that a late joiner is told what happened and not "unknown".
//! The conversation itself is in `exchange`.

use std::collections::BTreeSet;

use rand::CryptoRng;
use wormhole_crdt::{DeviceId, MeshId, Role, Timestamp};
use zeroize::Zeroizing;

use super::{
    code::{Code, Nameplate},
    link::Token,
    message::{Handle, Refusal},
};

/// Wrong tries that end an invite.
pub(super) const MAX_WRONG: u8 = 3;

/// Invites that may be open at once on one node.
pub(super) const MAX_OPEN: usize = 64;

/// Ended invites that are remembered.
const MAX_ENDED: usize = 256;

/// How long an ended invite is remembered.
const REMEMBER_NANOS: i64 = 3600 * NANOS;

/// Tries at all invites together that are taken at once ...
const TRY_BURST: u32 = 20;

/// ... and how often one more. A stranger who tries codes all day gets nowhere and costs nothing.
const TRY_EVERY_NANOS: i64 = 3 * NANOS;

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
    /// It is admitted, or being admitted.
    Used(DeviceId, Hold),
    Burnt,
    /// Its time is over, and its owner was told.
    Expired,
}

#[derive(Debug)]
struct Entry {
    id: InviteId,
    mesh: MeshId,
    role: Role,
    code: Code,
    token: Token,
    expires: Timestamp,
    state: State,
    wrong: u8,
}

/// What a newly opened invite is handed out as.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) code: Code,
    pub(super) token: Token,
    pub(super) expires: Timestamp,
}

/// What the conversation needs of an invite.
pub(super) struct Claim {
    pub(super) id: InviteId,
    pub(super) mesh: MeshId,
    pub(super) role: Role,
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
#[derive(Debug)]
pub(super) struct Desk {
    entries: Vec<Entry>,
    next: u64,
    tries: u32,
    tries_from: Timestamp,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            next: 0,
            tries: TRY_BURST,
            tries_from: Timestamp(i64::MIN),
        }
    }
}

impl Desk {
    /// Opens an invite into `mesh`, good for one device until `expires`.
    pub(super) fn open(
        &mut self,
        mesh: MeshId,
        role: Role,
        expires: Timestamp,
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
        // At most MAX_OPEN + MAX_ENDED of 999 numbers are taken.
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
            mesh,
            role,
            code: code.clone(),
            token: token.clone(),
            expires,
            state: State::Open,
            wrong: 0,
        });
        Ok(Opened {
            code,
            token,
            expires,
        })
    }

    /// The invite that `joiner` asks for, if it may try now.
    pub(super) fn claim(
        &mut self,
        handle: Handle,
        joiner: DeviceId,
        now: Timestamp,
    ) -> Result<Claim, Refusal> {
        self.tidy(now);
        let entry = self.entries.iter().find(|entry| entry.answers_to(handle));
        let entry = entry.ok_or(Refusal::Unknown)?;
        entry.admits(joiner, now)?;
        let claim = Claim {
            id: entry.id,
            mesh: entry.mesh,
            role: entry.role,
            password: match handle {
                Handle::Nameplate(_) => entry.code.password(),
                Handle::Link(_) => entry.token.password(),
            },
        };
        self.take_try(now)?;
        Ok(claim)
    }

    /// Judges a proof: `is_right` is asked only when the invite still takes one, and a wrong answer counts
    /// before anyone else can try. A right one reserves the invite for `joiner`.
    pub(super) fn judge(
        &mut self,
        id: InviteId,
        joiner: DeviceId,
        now: Timestamp,
        is_right: impl FnOnce() -> bool,
    ) -> Result<Turn, Refusal> {
        self.next += 1;
        let hold = Hold(self.next);
        let entry = self.entry(id).ok_or(Refusal::Unknown)?;
        entry.admits(joiner, now)?;
        if is_right() {
            if matches!(entry.state, State::Used(..)) {
                return Ok(Turn::Again);
            }
            // A second conversation with the same device takes the invite from the first.
            entry.state = State::Reserved(joiner, hold);
            return Ok(Turn::First(hold));
        }
        entry.wrong += 1;
        if entry.wrong >= MAX_WRONG {
            entry.state = State::Burnt;
            return Err(Refusal::Burnt);
        }
        Err(Refusal::Wrong {
            tries_left: MAX_WRONG - entry.wrong,
        })
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
                Ok(())
            }
            State::Open | State::Reserved(..) => Err(Refusal::Busy),
            State::Used(..) => Err(Refusal::Used),
            State::Burnt => Err(Refusal::Burnt),
            State::Expired => Err(Refusal::Expired),
        }
    }

    /// The device could not be admitted after all: another may try.
    pub(super) fn give_back(&mut self, id: InviteId, hold: Hold) {
        if let Some(entry) = self.entry(id)
            && matches!(entry.state, State::Used(_, held) if held == hold)
        {
            entry.state = State::Open;
        }
    }

    /// Ends the invites whose time is over and gives their meshes, each invite once. One that a device
    /// is making up its mind about ends with that conversation.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<MeshId> {
        let mut meshes = Vec::new();
        for entry in &mut self.entries {
            if entry.state == State::Open && now >= entry.expires {
                entry.state = State::Expired;
                meshes.push(entry.mesh);
            }
        }
        meshes
    }

    /// Ends all invites into a mesh that this node leaves.
    pub(super) fn close(&mut self, mesh: MeshId) {
        self.entries.retain(|entry| entry.mesh != mesh);
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
            .map(|entry| entry.expires)
            .min()
    }

    fn entry(&mut self, id: InviteId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    fn tidy(&mut self, now: Timestamp) {
        self.entries.retain(|entry| {
            entry.is_open(now) || now.0 < entry.expires.0.saturating_add(REMEMBER_NANOS)
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

    fn take_try(&mut self, now: Timestamp) -> Result<(), Refusal> {
        let elapsed = now.0.saturating_sub(self.tries_from.0).max(0);
        let more = u32::try_from(elapsed / TRY_EVERY_NANOS).unwrap_or(u32::MAX);
        if more > 0 {
            self.tries = self.tries.saturating_add(more).min(TRY_BURST);
            self.tries_from = now;
        }
        // A clock that was set back must not stop invites for ever.
        self.tries_from = self.tries_from.min(now);
        self.tries = self.tries.checked_sub(1).ok_or(Refusal::Busy)?;
        Ok(())
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
            State::Open | State::Reserved(..) => now < self.expires,
            State::Used(..) | State::Burnt | State::Expired => false,
        }
    }

    /// Whether the device may try, or try again.
    fn admits(&self, joiner: DeviceId, now: Timestamp) -> Result<(), Refusal> {
        match self.state {
            State::Burnt => Err(Refusal::Burnt),
            State::Expired => Err(Refusal::Expired),
            State::Used(by, _) if by != joiner => Err(Refusal::Used),
            State::Open | State::Reserved(..) | State::Used(..) if now >= self.expires => {
                Err(Refusal::Expired)
            }
            State::Reserved(by, _) if by != joiner => Err(Refusal::Busy),
            State::Open | State::Reserved(..) | State::Used(..) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const MESH: MeshId = MeshId::from_bytes([9; 32]);
    const ALICE: DeviceId = DeviceId::from_bytes([1; 32]);
    const BOB: DeviceId = DeviceId::from_bytes([2; 32]);

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * NANOS)
    }

    /// A desk with one invite, good from second 0 to 900.
    fn desk() -> (Desk, Opened) {
        let mut desk = Desk::default();
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let opened = desk.open(MESH, Role::Writer, at(900), at(0), rng).unwrap();
        (desk, opened)
    }

    fn by_code(opened: &Opened) -> Handle {
        Handle::Nameplate(opened.code.nameplate())
    }

    fn first(turn: Result<Turn, Refusal>) -> Hold {
        match turn {
            Ok(Turn::First(hold)) => hold,
            Ok(Turn::Again) | Err(_) => panic!("not the first: {turn:?}"),
        }
    }

    fn refusal<T>(result: Result<T, Refusal>) -> Refusal {
        result.err().expect("refused")
    }

    #[test]
    fn an_invite_is_good_for_one_device_by_code_or_link() {
        let (mut desk, opened) = desk();
        let claim = desk.claim(by_code(&opened), ALICE, at(1)).unwrap();
        let hold = first(desk.judge(claim.id, ALICE, at(1), || true));
        assert_eq!(
            refusal(desk.claim(by_code(&opened), BOB, at(2))),
            Refusal::Busy
        );
        desk.take(claim.id, hold).unwrap();
        let link = Handle::Link(opened.token.id());
        assert_eq!(refusal(desk.claim(link, BOB, at(3))), Refusal::Used);
        assert_eq!(
            refusal(desk.claim(by_code(&opened), BOB, at(3))),
            Refusal::Used
        );
        let claim = desk.claim(link, ALICE, at(3)).unwrap();
        let again = desk.judge(claim.id, ALICE, at(3), || true);
        assert_eq!(again, Ok(Turn::Again), "its welcome may have been lost");
        assert!(desk.nameplates(at(3)).is_empty());
    }

    #[test]
    fn three_wrong_tries_burn_an_invite_even_for_who_knows_it() {
        let (mut desk, opened) = desk();
        let claim = desk.claim(by_code(&opened), BOB, at(1)).unwrap();
        for left in [2, 1] {
            let wrong = desk.judge(claim.id, BOB, at(1), || false);
            assert_eq!(refusal(wrong), Refusal::Wrong { tries_left: left });
        }
        assert_eq!(
            refusal(desk.judge(claim.id, BOB, at(1), || false)),
            Refusal::Burnt
        );
        // A conversation that began before must not get a fourth guess.
        let fourth = desk.judge(claim.id, ALICE, at(1), || {
            unreachable!("not even looked at")
        });
        assert_eq!(refusal(fourth), Refusal::Burnt);
        assert_eq!(
            refusal(desk.claim(by_code(&opened), ALICE, at(1))),
            Refusal::Burnt
        );
    }

    #[test]
    fn an_invite_expires_and_is_remembered_for_an_hour() {
        let (mut desk, opened) = desk();
        assert_eq!(desk.next_expiry(at(0)), Some(at(900)));
        let claim = desk.claim(by_code(&opened), ALICE, at(899)).unwrap();
        assert_eq!(
            refusal(desk.judge(claim.id, ALICE, at(900), || true)),
            Refusal::Expired
        );
        assert_eq!(
            refusal(desk.claim(by_code(&opened), ALICE, at(901))),
            Refusal::Expired
        );
        let later = at(900 + 3601);
        assert_eq!(
            refusal(desk.claim(by_code(&opened), ALICE, later)),
            Refusal::Unknown
        );
    }

    #[test]
    fn a_device_that_goes_away_frees_the_invite() {
        let (mut desk, opened) = desk();
        let claim = desk.claim(by_code(&opened), BOB, at(1)).unwrap();
        let hold = first(desk.judge(claim.id, BOB, at(1), || true));
        desk.release(claim.id, hold);
        assert!(desk.claim(by_code(&opened), ALICE, at(1)).is_ok());
    }

    #[test]
    fn two_conversations_with_one_device_do_not_make_room_for_another() {
        let (mut desk, opened) = desk();
        let claim = desk.claim(by_code(&opened), BOB, at(1)).unwrap();
        let former = first(desk.judge(claim.id, BOB, at(1), || true));
        let latter = first(desk.judge(claim.id, BOB, at(1), || true));
        // The former ends, and with it nothing of the latter.
        assert_eq!(desk.take(claim.id, former), Err(Refusal::Busy));
        desk.release(claim.id, former);
        assert_eq!(
            refusal(desk.claim(by_code(&opened), ALICE, at(1))),
            Refusal::Busy
        );
        desk.take(claim.id, latter).unwrap();
        assert_eq!(desk.take(claim.id, latter), Err(Refusal::Used));
        assert_eq!(
            refusal(desk.claim(by_code(&opened), ALICE, at(1))),
            Refusal::Used
        );
        // Only who took it gives it back.
        desk.give_back(claim.id, former);
        assert!(desk.claim(by_code(&opened), ALICE, at(1)).is_err());
        desk.give_back(claim.id, latter);
        assert!(desk.claim(by_code(&opened), ALICE, at(1)).is_ok());
    }

    #[test]
    fn tries_are_limited_over_all_invites_and_come_back_with_time() {
        let (mut desk, opened) = desk();
        let tries = |desk: &mut Desk, now| {
            (0..1000)
                .filter(|_| desk.claim(by_code(&opened), BOB, now).is_ok())
                .count()
        };
        assert_eq!(tries(&mut desk, at(10)), 20);
        assert_eq!(tries(&mut desk, at(16)), 2);
        assert_eq!(tries(&mut desk, at(5)), 0, "a clock set back gives nothing");
        assert_eq!(tries(&mut desk, at(8)), 1, "and stops nothing");
    }

    #[test]
    fn the_number_of_open_invites_is_bounded() {
        let mut desk = Desk::default();
        let rng = &mut ChaCha20Rng::seed_from_u64(2);
        for _ in 0..MAX_OPEN {
            desk.open(MESH, Role::Reader, at(900), at(0), rng).unwrap();
        }
        assert!(desk.open(MESH, Role::Reader, at(900), at(0), rng).is_err());
        assert!(
            desk.open(MESH, Role::Reader, at(2000), at(901), rng)
                .is_ok()
        );
        assert_eq!(desk.nameplates(at(901)).len(), 1);
    }
}
