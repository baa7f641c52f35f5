//! Authors that fork their logs or write what is not understood here, and those who pass it on.

use super::*;
use crate::lab::ends;
use crate::limit::{MAX_BRANCHES, MAX_HELD};

#[test]
fn two_signed_envelopes_under_one_number_are_two_branches_and_both_count_in_any_order() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let (mut one, mut two) = (Forger::new(2, &replicas[0]), Forger::new(2, &replicas[0]));
    let trunk = one.next();
    two.next();
    let first: Vec<Vec<u8>> = (0..3).map(|_| one.next()).collect();
    let mut second = vec![two.forge(|draft| draft.at = Timestamp(7))];
    second.extend((0..2).map(|_| two.next()));
    for (replica, orders) in replicas.iter().zip([[&first, &second], [&second, &first]]) {
        apply_all(replica, std::slice::from_ref(&trunk));
        for envelopes in orders {
            apply_all(replica, envelopes);
            apply_all(replica, envelopes);
        }
        let device = two.author.device;
        assert_eq!(replica.problems(), [Problem::Forked { device }]);
        assert_eq!(replica.shared().ends.len(), 2);
    }
    assert_eq!(ends(&replicas[0]), ends(&replicas[1]));
    assert_eq!(replicas[0].mark(), replicas[1].mark());
    assert_eq!(replicas[0].digest().unwrap(), replicas[1].digest().unwrap());
    let third: Vec<Vec<u8>> = (0..3).map(|_| two.next()).collect();
    for replica in &replicas[..2] {
        apply_all(replica, &third);
    }
    assert_eq!(replicas[0].digest().unwrap(), replicas[1].digest().unwrap());
}

#[test]
fn a_branch_survives_reopening_and_a_fork_at_the_first_envelope_is_one_too() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    replica
        .admit(key(2).device_id(), "two", Role::Writer, NOW)
        .unwrap();
    let (mut one, mut two) = (Forger::new(2, &replica), Forger::new(2, &replica));
    apply_all(&replica, &[one.next(), one.next()]);
    apply_all(&replica, &[two.forge(|draft| draft.at = Timestamp(7))]);
    replica.flush().unwrap();
    let before = (ends(&replica), replica.digest().unwrap());
    let again = Replica::open(disk.crash().database(), key(1)).unwrap();
    assert_eq!((ends(&again), again.digest().unwrap()), before);
    apply_all(&again, &[two.next(), one.next()]);
    assert_eq!(again.shared().ends.len(), 2);
}

#[test]
fn more_branches_than_an_honest_device_makes_are_kept_aside_without_blame() {
    let replica = mesh(&[Role::Writer]).remove(0);
    for at in 0..i64::try_from(MAX_BRANCHES).unwrap() + 20 {
        let mut forger = Forger::new(2, &replica);
        let first = forger.forge(|draft| draft.at = Timestamp(at));
        apply_all(&replica, &[first, forger.next()]);
    }
    assert_eq!(replica.shared().ends.len(), MAX_BRANCHES + 1);
}

#[test]
fn a_writer_cannot_vouch_for_its_own_superfluous_lives() {
    let replica = mesh(&[Role::Writer]).remove(0);
    apply_all(&replica, &lives(2, MAX_DEVICE_LIVES, &replica));
    let extra = lives(2, MAX_DEVICE_LIVES + 50, &replica).split_off(MAX_DEVICE_LIVES);
    apply_all(&replica, &extra);
    let causes: Vec<Cause> = extra
        .iter()
        .map(|bytes| Frame::read(bytes).unwrap())
        .map(
            |Frame {
                 author, seq, hash, ..
             }| Cause { author, seq, hash },
        )
        .collect();
    let mut own = Forger::new(2, &replica);
    own.next();
    let greedy = own.forge(|draft| draft.causes = causes);
    replica.apply(&[&greedy]).unwrap();
    assert_eq!(replica.shared().ends.len(), MAX_DEVICE_LIVES);
    assert_eq!(replica.vector().get(own.author), 1);
}

/// One member leaps as far as it may, another follows, the first leaves: a newcomer must still be able to join.
#[test]
fn a_leap_that_others_built_on_keeps_no_newcomer_out() {
    let replicas = mesh(&[Role::Writer]);
    let founder = &replicas[0];
    let mut leaper = Forger::new(2, founder);
    let leap = [leaper.forge(|draft| draft.clock = MAX_CLOCK_LEAP)];
    apply_all(founder, &leap);
    create(founder, "after the leap", 1, 1);
    founder.revoke(leaper.author.device, NOW).unwrap();
    create(founder, "later", 2, 2);
    founder
        .admit(key(9).device_id(), "new", Role::Writer, NOW)
        .unwrap();
    let database = Disk::default().database();
    let new = Replica::join(database, &founder.welcome(), key(9), &mut rng(9)).unwrap();
    sync(founder, &new);
    assert_eq!(listing(&new), listing(founder));
    create(&new, "mine", 3, 3);
    sync(founder, &new);
    assert_eq!(founder.digest().unwrap(), new.digest().unwrap());
}

#[test]
fn what_a_later_program_writes_is_held_shown_and_passed_on_and_nobody_is_blamed() {
    let replicas = mesh(&[Role::Writer; 4]);
    let mut newer = Forger::new(4, &replicas[0]);
    let trunk = newer.next();
    let first = newer.later();
    // What it builds on cannot be read, so neither can what it says be taken.
    let second = newer.next();
    let author = newer.author;
    let frame = Frame::read(&second).unwrap();
    let (seq, hash) = (frame.seq, frame.hash);
    let follower = Forger::new(5, &replicas[0])
        .forge(|draft| draft.causes = vec![Cause { author, seq, hash }]);
    apply_all(&replicas[0], &[trunk, first, second, follower]);
    create(&replicas[0], "life goes on", 1, 1);
    sync(&replicas[0], &replicas[1]);
    sync(&replicas[1], &replicas[2]);
    for replica in &replicas[..3] {
        assert_eq!(listing(replica), ["life goes on 1"]);
        let held = held::all(&replica.read().unwrap()).unwrap();
        assert_eq!(held.len(), 3);
        let told = [author.device, key(5).device_id()];
        let mut told = told.map(|device| Problem::NeedsUpdate { device });
        told.sort();
        assert_eq!(replica.problems(), told);
    }
}

#[test]
fn what_was_held_is_taken_once_a_program_can_read_it() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    replica
        .admit(key(2).device_id(), "two", Role::Writer, NOW)
        .unwrap();
    let mut forger = Forger::new(2, &replica);
    let txn = replica.inner.db.begin_write().unwrap();
    for bytes in [forger.next(), forger.next()] {
        held::keep(&txn, &Frame::read(&bytes).unwrap(), &bytes).unwrap();
    }
    txn.commit().unwrap();
    assert!(!replica.problems().is_empty());
    let updated = Replica::open(disk.crash().database(), key(1)).unwrap();
    assert_eq!(updated.vector().get(forger.author), 2);
    assert!(updated.problems().is_empty());
}

#[test]
fn strangers_and_greedy_writers_do_not_fill_the_room_for_what_is_held() {
    let replica = mesh(&[Role::Writer, Role::Reader]).remove(0);
    for (number, most) in [(3, 0), (99, 0), (2, MAX_HELD)] {
        let mut newer = Forger::new(number, &replica);
        let all: Vec<Vec<u8>> = (0..MAX_HELD + 20).map(|_| newer.later()).collect();
        apply_all(&replica, &all);
        let held = held::all(&replica.read().unwrap()).unwrap();
        assert_eq!(held.len(), most, "{number}");
    }
}

/// Which branches are superfluous depends on what came first.
#[test]
fn what_its_author_built_on_a_superfluous_branch_waits_with_it_and_counts_with_it() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let count = i64::try_from(MAX_BRANCHES).unwrap() + 3;
    let branch = |at| Forger::new(2, &replicas[0]).forge(|draft| draft.at = Timestamp(at));
    let mut branches: Vec<Vec<u8>> = (0..count).map(branch).collect();
    let Frame {
        author, seq, hash, ..
    } = Frame::read(&branches[0]).unwrap();
    let mut other = Forger::new(2, &replicas[0]);
    other.author.incarnation = Incarnation(5);
    let built = other.forge(|draft| draft.causes = vec![Cause { author, seq, hash }]);
    let more = [built, other.next()];
    apply_all(&replicas[0], &branches);
    branches.reverse();
    apply_all(&replicas[2], &branches);
    for replica in [&replicas[0], &replicas[2]] {
        for bytes in &more {
            replica.apply(&[bytes]).unwrap();
        }
    }
    let ends_of = |at: usize| {
        replicas[at]
            .shared()
            .ends
            .contains_key(&other.author.into())
    };
    assert!(ends_of(0) && !ends_of(2));
    for at in [0, 2] {
        let mark = u8::try_from(at).unwrap();
        create(&replicas[at], &format!("by {at}"), mark, u64::from(mark));
        for _ in 0..2 {
            Link::new(&replicas[0], &replicas[2], 7).run().unwrap();
        }
    }
    assert_eq!(ends(&replicas[0]), ends(&replicas[2]));
    assert_eq!(replicas[0].digest().unwrap(), replicas[2].digest().unwrap());
}

/// Who forked its log can give a new device the one history where the snapshot has the other.
#[test]
fn a_history_that_does_not_lead_to_the_snapshot_is_given_up_for_the_one_that_does() {
    let replicas = mesh(&[Role::Writer]);
    let founder = &replicas[0];
    let (mut one, mut two) = (Forger::new(2, founder), Forger::new(2, founder));
    apply_all(founder, &[one.next()]);
    let trunk = two.next();
    let rest: Vec<Vec<u8>> = (0..6).map(|_| one.next()).collect();
    apply_all(founder, &rest);
    founder.flush().unwrap();
    let device = key(9).device_id();
    founder.admit(device, "new", Role::Writer, NOW).unwrap();
    let database = Disk::default().database();
    let new = Replica::join(database, &founder.welcome(), key(9), &mut rng(9)).unwrap();
    let mut link = Link::with_snapshots(founder, &new, 7);
    while new.is_new() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }
    drop(link);
    let other = [
        trunk,
        two.forge(|draft| draft.at = Timestamp(7)),
        two.next(),
    ];
    let wrong: Vec<&[u8]> = other.iter().map(Vec::as_slice).collect();
    assert!(new.take_below(&wrong).unwrap());
    let author = one.author;
    let have = |replica: &Replica| {
        let shared = replica.shared();
        shared
            .gap()
            .map(|gap| gap.holes[&one.author.into()].have.seq)
    };
    assert_eq!(have(&new), Some(3));
    // What others refuse is not taken meanwhile, either.
    let leap = Forger::new(2, founder).forge(|draft| {
        let end = founder.shared().ends[&author.into()];
        (draft.seq, draft.prev) = (end.seq + 1, end.hash);
        draft.clock = end.clock + MAX_CLOCK_LEAP + 1;
    });
    for replica in [founder, &new] {
        let fault = fault(replica, &leap);
        assert!(matches!(fault, EnvelopeFault::ClockLeap { .. }));
    }
    sync(founder, &new);
    assert_eq!(have(&new), None);
    assert_eq!(founder.digest().unwrap(), new.digest().unwrap());
    for replica in [founder, &new] {
        apply_all(replica, &other);
    }
    assert_eq!(ends(founder), ends(&new));
    assert_eq!(founder.digest().unwrap(), new.digest().unwrap());
}
