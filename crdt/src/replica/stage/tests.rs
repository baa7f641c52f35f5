//! Senders of snapshots who lie: what they forge is refused, what they keep back or misstate is found.

use super::*;
use crate::envelope::Frame;
use crate::id::{EntryId, Incarnation};
use crate::lab::{Disk, Link, NOW, create, key, listing, mesh, rng, sync, write};
use crate::member::Role;
use crate::replica::snapshot::{OwnedPiece, Worth};
use crate::replica::tests::Forger;

type AllSeen = Vec<(Author, Seen)>;

const ALWAYS: Worth = Worth { from: 0, ratio: 0 };

/// Two writers, a reader, and files that were written often.
fn old_mesh() -> Vec<Replica> {
    let replicas = mesh(&[Role::Writer, Role::Reader]);
    let ids: Vec<_> = (0..3_u8)
        .map(|n| create(&replicas[0], &format!("f{n}"), n, u64::from(n)))
        .collect();
    for round in 0..4_u8 {
        let at = usize::from(round % 2);
        sync(&replicas[0], &replicas[1]);
        for id in &ids {
            write(&replicas[at], *id, 10 + round);
        }
    }
    sync(&replicas[0], &replicas[1]);
    replicas
}

fn newcomer(mesh: &Replica) -> Replica {
    let key = key(9);
    mesh.admit(key.device_id(), "newcomer", Role::Writer, NOW)
        .unwrap();
    let welcome = mesh.welcome();
    Replica::join(Disk::default().database(), &welcome, key, &mut rng(9)).unwrap()
}

/// Sends a snapshot in which something was changed on the way.
fn spoilt(
    from: &Replica,
    to: &Replica,
    spoil: impl FnOnce(&mut Vec<OwnedPiece>, &mut AllSeen),
) -> Result<(), Unfit> {
    let mut outgoing = from.snapshot(ALWAYS).unwrap().unwrap();
    let mut pieces = outgoing.pieces(usize::MAX).unwrap();
    let mut numbers = outgoing.seen(usize::MAX).unwrap();
    spoil(&mut pieces, &mut numbers);
    let mut stage = to.stage().unwrap().unwrap();
    let pieces: Vec<_> = pieces
        .iter()
        .map(|(marks, envelope)| Piece { marks, envelope })
        .collect();
    stage.take(&pieces)?;
    stage.take_seen(&numbers)?;
    stage.install()
}

fn refused(spoil: impl FnOnce(&mut Vec<OwnedPiece>, &mut AllSeen)) -> Misbehaviour {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    let outcome = spoilt(&replicas[0], &new, spoil);
    assert!(listing(&new).is_empty() && new.vector().is_empty());
    assert!(!new.is_staging());
    // It goes on with an honest peer.
    meet(&replicas[0], &new);
    assert_same(&replicas[0], &new);
    match outcome {
        Err(Unfit::Session(SessionError::Misbehaved(fault))) => fault,
        other => panic!("not refused: {other:?}"),
    }
}

/// What a false snapshot does that cannot be told from an honest one: it is found, and mended.
fn mended(spoil: impl FnOnce(&mut Vec<OwnedPiece>, &mut AllSeen)) {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    spoilt(&replicas[0], &new, spoil).unwrap();
    // What others write meanwhile is nobody's fault.
    for entry in replicas[1].children(EntryId::ROOT).unwrap() {
        write(&replicas[1], entry.key.id, 77);
    }
    sync(&replicas[0], &replicas[1]);
    for _ in 0..3 {
        meet(&replicas[0], &new);
        meet(&replicas[1], &new);
    }
    assert!(new.shared().gap.is_none());
    assert_same(&replicas[0], &new);
    write(&new, new.children(EntryId::ROOT).unwrap()[0].key.id, 78);
    meet(&replicas[0], &new);
    assert_same(&replicas[0], &new);
}

fn meet(one: &Replica, other: &Replica) -> Link {
    let mut link = Link::with_snapshots(one, other, 7);
    link.run().unwrap();
    link
}

fn assert_same(one: &Replica, other: &Replica) {
    assert_eq!(listing(one), listing(other));
    assert_eq!(one.vector(), other.vector());
    assert_eq!(one.digest().unwrap(), other.digest().unwrap());
}

#[test]
fn an_honest_snapshot_is_taken() {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    spoilt(&replicas[0], &new, |_, _| {}).unwrap();
    assert_same(&replicas[0], &new);
}

#[test]
fn a_snapshot_of_nothing_is_useless() {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    let outcome = spoilt(&replicas[0], &new, |pieces, numbers| {
        pieces.clear();
        numbers.clear();
    });
    assert!(matches!(outcome, Err(Unfit::Unusable)), "{outcome:?}");
}

#[test]
fn a_forged_value_is_refused() {
    let fault = refused(|pieces, _| {
        let at = pieces[0].1.len() - 40;
        pieces[0].1[at] ^= 1;
    });
    assert!(matches!(fault, Misbehaviour::Undecodable(_)), "{fault:?}");
}

#[test]
fn an_envelope_by_a_reader_is_refused() {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    let forged = Forger::new(3, &replicas[0]).next();
    let outcome = spoilt(&replicas[0], &new, |pieces, _| {
        pieces.push((vec![1], forged));
    });
    let Err(Unfit::Session(SessionError::Misbehaved(Misbehaviour::Envelope { fault, .. }))) =
        outcome
    else {
        panic!("not refused: {outcome:?}");
    };
    assert_eq!(fault, EnvelopeFault::NotWriter);
    assert!(listing(&new).is_empty());
}

#[test]
fn an_envelope_of_a_removed_member_beyond_its_cut_makes_the_snapshot_useless() {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    let mut forger = Forger::new(2, &replicas[0]);
    forger.author.incarnation = Incarnation(5);
    let forged = forger.next();
    replicas[0].revoke(replicas[1].device(), NOW).unwrap();
    new.take_members(&records(&replicas[0]), &mut rng(1))
        .unwrap();
    let outcome = spoilt(&replicas[0], &new, |pieces, _| {
        pieces.push((vec![1], forged));
    });
    assert!(matches!(outcome, Err(Unfit::Unusable)), "{outcome:?}");
    assert!(listing(&new).is_empty());
}

fn records(replica: &Replica) -> Vec<&'static [u8]> {
    let records = replica.welcome().records.into_iter();
    records.map(|record| &*record.leak()).collect()
}

#[test]
fn envelopes_that_do_not_ascend_are_refused() {
    let fault = refused(|pieces, _| {
        let first = pieces[0].clone();
        pieces.push(first);
    });
    assert!(
        matches!(fault, Misbehaviour::Snapshot(SnapshotFault::Order(_))),
        "{fault:?}"
    );
}

#[test]
fn marks_that_do_not_fit_are_refused() {
    for marks in [vec![], vec![1, 0], vec![0xff], vec![0; 1 << 16]] {
        let fault = refused(|pieces, _| pieces[0].0 = marks);
        assert!(
            matches!(fault, Misbehaviour::Snapshot(SnapshotFault::Marks(_))),
            "{fault:?}"
        );
    }
}

#[test]
fn what_authors_had_seen_that_is_missing_or_impossible_is_refused() {
    let wrongs: [fn(&mut AllSeen); 3] = [
        |all| drop(all.pop()),
        |all| all.push(all[0].clone()),
        |all| {
            let other = all[1].0.actor();
            all[0].1.insert(other, u64::MAX);
        },
    ];
    for wrong in wrongs {
        let fault = refused(|_, numbers| wrong(numbers));
        assert!(
            matches!(fault, Misbehaviour::Snapshot(SnapshotFault::Seen(_))),
            "{fault:?}"
        );
    }
}

#[test]
fn a_snapshot_that_leaves_out_an_author_is_refused() {
    let fault = refused(|pieces, numbers| {
        let gone = numbers[0].0;
        pieces.retain(|(_, envelope)| Frame::read(envelope).unwrap().author != gone);
        numbers.remove(0);
    });
    assert!(
        matches!(fault, Misbehaviour::Snapshot(SnapshotFault::Causes(_))),
        "{fault:?}"
    );
}

#[test]
fn a_snapshot_that_keeps_back_an_envelope_is_mended() {
    mended(|pieces, _| drop(pieces.remove(0)));
}

#[test]
fn a_snapshot_that_shows_replaced_values_is_mended() {
    mended(|pieces, _| {
        for (marks, _) in pieces {
            // Of the last envelope of each log, which is there even when nothing of it is shown.
            if marks == &[0] {
                *marks = vec![1];
            }
        }
    });
}

#[test]
fn a_snapshot_with_two_values_of_one_author_in_a_register_is_useless() {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    let txn = replicas[0].read().unwrap();
    let mut all: Vec<OwnedPiece> = Vec::new();
    crate::log::scan(&txn, 0, |_, _, _, fetch| {
        let bytes = fetch.bytes()?;
        let changes = parse(&Envelope::decode_trusted(&bytes).unwrap()).unwrap();
        let writes: usize = changes.iter().map(|change| change.writes.len()).sum();
        all.push((mark(&vec![true; writes]), bytes));
        Ok(crate::log::Scan::Taken)
    })
    .unwrap();
    let outcome = spoilt(&replicas[0], &new, |pieces, _| *pieces = all);
    assert!(matches!(outcome, Err(Unfit::Unusable)), "{outcome:?}");
    meet(&replicas[0], &new);
    assert_same(&replicas[0], &new);
}

#[test]
fn a_snapshot_with_more_lives_of_a_device_than_anybody_takes_is_useless() {
    let replicas = old_mesh();
    let new = newcomer(&replicas[0]);
    let lives: Vec<OwnedPiece> = (1..)
        .take(MAX_DEVICE_LIVES + 1)
        .map(|life| {
            let mut forger = Forger::new(2, &replicas[0]);
            forger.author.incarnation = Incarnation(life);
            (vec![1], forger.next())
        })
        .collect();
    let outcome = spoilt(&replicas[0], &new, |pieces, _| *pieces = lives);
    assert!(matches!(outcome, Err(Unfit::Unusable)), "{outcome:?}");
    meet(&replicas[0], &new);
    assert_same(&replicas[0], &new);
}

#[test]
fn a_snapshot_that_knows_more_of_this_devices_life_than_itself_is_useless() {
    let replicas = old_mesh();
    let device = key(9);
    replicas[0]
        .admit(device.device_id(), "newcomer", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let new = Replica::join(disk.database(), &replicas[0].welcome(), device, &mut rng(9)).unwrap();
    let backup = disk.crash();
    create(&new, "forgotten", 1, 60);
    sync(&replicas[0], &new);
    let restored = Replica::open(backup.database(), key(9)).unwrap();
    let outcome = spoilt(&replicas[0], &restored, |_, _| {});
    assert!(matches!(outcome, Err(Unfit::Unusable)), "{outcome:?}");
    meet(&replicas[0], &restored);
    create(&restored, "new", 2, 61);
    meet(&replicas[0], &restored);
    assert_same(&replicas[0], &restored);
}

#[test]
fn a_snapshot_that_conceals_what_authors_had_seen_is_mended() {
    mended(|_, numbers| {
        numbers.iter_mut().for_each(|(_, seen)| seen.clear());
    });
}
