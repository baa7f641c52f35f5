//! The rules of an invite's ends.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;

const MESH: MeshId = MeshId::from_bytes([9; 32]);
const ALICE: DeviceId = DeviceId::from_bytes([1; 32]);
const BOB: DeviceId = DeviceId::from_bytes([2; 32]);

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * NANOS)
}

/// Those of an invite that needs nobody's word.
fn terms(expires: Timestamp) -> Terms {
    Terms {
        mesh: MESH,
        role: Role::Writer,
        expires,
        ask: false,
    }
}

/// A device at an address of its own.
fn from(device: DeviceId) -> (DeviceId, Source) {
    (device, Source::Device(device))
}

/// A desk with one invite, good from second 0 to 900.
fn desk() -> (Desk, Opened) {
    let mut desk = Desk::default();
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let opened = desk.open(terms(at(900)), at(0), rng).unwrap();
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
    let claim = desk.claim(by_code(&opened), from(ALICE), at(1)).unwrap();
    let hold = first(desk.judge(claim.id, from(ALICE), at(1), || true));
    assert_eq!(
        refusal(desk.claim(by_code(&opened), from(BOB), at(2))),
        Refusal::Busy
    );
    desk.take(claim.id, hold).unwrap();
    let link = Handle::Link(opened.token.id());
    assert_eq!(refusal(desk.claim(link, from(BOB), at(3))), Refusal::Used);
    assert_eq!(
        refusal(desk.claim(by_code(&opened), from(BOB), at(3))),
        Refusal::Used
    );
    let claim = desk.claim(link, from(ALICE), at(3)).unwrap();
    let soon = desk.judge(claim.id, from(ALICE), at(3), || true);
    assert_eq!(
        refusal(soon),
        Refusal::Busy,
        "it is being admitted just now"
    );
    desk.settled(claim.id);
    let again = desk.judge(claim.id, from(ALICE), at(3), || true);
    assert_eq!(again, Ok(Turn::Again), "its welcome may have been lost");
    assert!(desk.nameplates(at(3)).is_empty());
}

/// A device that somebody makes up, at an address of its own.
fn stranger(n: u8) -> (DeviceId, Source) {
    from(DeviceId::from_bytes([100 + n; 32]))
}

#[test]
fn who_guesses_three_times_is_heard_no_more_and_the_invite_stays_good_for_others() {
    let (mut desk, opened) = desk();
    let claim = desk.claim(by_code(&opened), from(BOB), at(1)).unwrap();
    for left in [2, 1] {
        let wrong = desk.judge(claim.id, from(BOB), at(1), || false);
        assert_eq!(refusal(wrong), Refusal::Wrong { tries_left: left });
    }
    let third = desk.judge(claim.id, from(BOB), at(1), || false);
    assert_eq!(refusal(third), Refusal::Burnt);
    // A conversation that began before, or with another key, must not get a fourth guess.
    let another_key = (DeviceId::from_bytes([77; 32]), Source::Device(BOB));
    for (who, at) in [(from(BOB), at(1)), (another_key, at(2))] {
        let fourth = desk.judge(claim.id, who, at, || unreachable!("not even looked at"));
        assert_eq!(refusal(fourth), Refusal::Burnt);
        let again = desk.claim(by_code(&opened), who, at);
        assert_eq!(refusal(again), Refusal::Burnt);
    }
    assert!(!desk.is_burnt(claim.id));
    desk.claim(by_code(&opened), from(ALICE), at(1)).unwrap();
    first(desk.judge(claim.id, from(ALICE), at(1), || true));
}

#[test]
fn guesses_from_everywhere_burn_an_invite_even_for_who_knows_it() {
    let (mut desk, opened) = desk();
    let claim = desk.claim(by_code(&opened), from(BOB), at(1)).unwrap();
    let mut guesses = 0;
    for n in 0..100 {
        let wrong = desk.judge(claim.id, stranger(n), at(1), || {
            guesses += 1;
            false
        });
        assert!(wrong.is_err());
    }
    assert_eq!(guesses, MAX_WRONG_OF_ALL);
    assert!(desk.is_burnt(claim.id));
    let late = desk.claim(by_code(&opened), from(ALICE), at(1));
    assert_eq!(refusal(late), Refusal::Burnt);
}

#[test]
fn only_a_proof_is_a_try() {
    let (mut desk, opened) = desk();
    for n in 0..200 {
        drop(desk.claim(by_code(&opened), stranger(n % 50), at(1)));
    }
    desk.claim(by_code(&opened), from(ALICE), at(1)).unwrap();
}

/// A desk with one invite whose device a person has to admit, and that device's claim.
fn asked() -> (Desk, Opened, InviteId) {
    let mut desk = Desk::default();
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let ask = Terms {
        ask: true,
        ..terms(at(900))
    };
    let opened = desk.open(ask, at(0), rng).unwrap();
    let claim = desk.claim(by_code(&opened), from(ALICE), at(1)).unwrap();
    assert!(claim.ask);
    let hold = first(desk.judge(claim.id, from(ALICE), at(1), || true));
    let asking = desk.ask(claim.id, hold, "alice").unwrap();
    assert_eq!((asking.device, asking.name.as_str()), (ALICE, "alice"));
    let answered = desk.answered(claim.id, (ALICE, hold), at(1));
    assert_eq!(answered, Answered::Waiting);
    desk.release(claim.id, hold); // its conversation ends
    (desk, opened, claim.id)
}

#[test]
fn a_device_that_waits_keeps_its_place_until_the_invite_expires() {
    let (mut desk, opened, id) = asked();
    let other = desk.claim(by_code(&opened), from(BOB), at(2));
    assert_eq!(refusal(other), Refusal::Taken, "it hears why");
    desk.claim(by_code(&opened), from(ALICE), at(3)).unwrap();
    let hold = first(desk.judge(id, from(ALICE), at(3), || true));
    assert_eq!(desk.ask(id, hold, "alice"), None, "that is no news");
    assert_eq!(desk.answered(id, (ALICE, hold), at(3)), Answered::Waiting);
    assert_eq!(desk.asking(at(3)).len(), 1);
    assert_eq!(desk.asking(at(900)), []);
    let late = desk.answered(id, (ALICE, hold), at(900));
    assert_eq!(late, Answered::Refused(Refusal::Expired));
    assert!(!desk.decide(MESH, ALICE, true, at(900)));
}

#[test]
fn who_is_admitted_comes_in_with_its_next_conversation_even_after_the_invite() {
    let (mut desk, _opened, id) = asked();
    assert!(!desk.decide(MESH, BOB, true, at(899)));
    assert!(desk.decide(MESH, ALICE, true, at(899)));
    assert!(!desk.decide(MESH, ALICE, false, at(899)), "that is decided");
    let hold = first(desk.judge(id, from(ALICE), at(1000), || true));
    let granted = desk.answered(id, (ALICE, hold), at(1000));
    assert_eq!(granted, Answered::Granted(hold));
    desk.take(id, hold).unwrap();
}

#[test]
fn who_is_refused_is_told_so_and_nobody_else_can_use_the_invite() {
    let (mut desk, opened, id) = asked();
    assert!(desk.decide(MESH, ALICE, false, at(2)));
    let declined = desk.claim(by_code(&opened), from(ALICE), at(3));
    assert_eq!(refusal(declined), Refusal::Declined);
    let hold = Hold(0);
    let answered = desk.answered(id, (ALICE, hold), at(3));
    assert_eq!(answered, Answered::Refused(Refusal::Declined));
    let other = desk.claim(by_code(&opened), from(BOB), at(3));
    assert_eq!(refusal(other), Refusal::Used);
    assert_eq!(desk.list(at(3)).len(), 0);
}

#[test]
fn an_invite_expires_and_is_remembered_for_an_hour() {
    let (mut desk, opened) = desk();
    assert_eq!(desk.next_expiry(at(0)), Some(at(900)));
    let claim = desk.claim(by_code(&opened), from(ALICE), at(899)).unwrap();
    assert_eq!(
        refusal(desk.judge(claim.id, from(ALICE), at(900), || true)),
        Refusal::Expired
    );
    assert_eq!(
        refusal(desk.claim(by_code(&opened), from(ALICE), at(901))),
        Refusal::Expired
    );
    let later = at(900 + 3601);
    assert_eq!(
        refusal(desk.claim(by_code(&opened), from(ALICE), later)),
        Refusal::Unknown
    );
}

#[test]
fn a_device_that_goes_away_frees_the_invite() {
    let (mut desk, opened) = desk();
    let claim = desk.claim(by_code(&opened), from(BOB), at(1)).unwrap();
    let hold = first(desk.judge(claim.id, from(BOB), at(1), || true));
    desk.release(claim.id, hold);
    assert!(desk.claim(by_code(&opened), from(ALICE), at(1)).is_ok());
}

#[test]
fn two_conversations_with_one_device_do_not_make_room_for_another() {
    let (mut desk, opened) = desk();
    let claim = desk.claim(by_code(&opened), from(BOB), at(1)).unwrap();
    let former = first(desk.judge(claim.id, from(BOB), at(1), || true));
    let latter = first(desk.judge(claim.id, from(BOB), at(1), || true));
    // The former ends, and with it nothing of the latter.
    assert_eq!(desk.take(claim.id, former), Err(Refusal::Busy));
    desk.release(claim.id, former);
    assert_eq!(
        refusal(desk.claim(by_code(&opened), from(ALICE), at(1))),
        Refusal::Busy
    );
    desk.take(claim.id, latter).unwrap();
    assert_eq!(desk.take(claim.id, latter), Err(Refusal::Used));
    assert_eq!(
        refusal(desk.claim(by_code(&opened), from(ALICE), at(1))),
        Refusal::Used
    );
    // Only who took it gives it back.
    desk.give_back(claim.id, former);
    assert!(desk.claim(by_code(&opened), from(ALICE), at(1)).is_err());
    desk.give_back(claim.id, latter);
    assert!(desk.claim(by_code(&opened), from(ALICE), at(1)).is_ok());
}

#[test]
fn the_number_of_open_invites_is_bounded() {
    let mut desk = Desk::default();
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    for _ in 0..MAX_OPEN {
        desk.open(terms(at(900)), at(0), rng).unwrap();
    }
    assert!(desk.open(terms(at(900)), at(0), rng).is_err());
    assert!(desk.open(terms(at(2000)), at(901), rng).is_ok());
    assert_eq!(desk.nameplates(at(901)).len(), 1);
}
