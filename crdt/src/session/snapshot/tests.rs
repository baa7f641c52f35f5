//! A device that began with a snapshot is as good as one that took every envelope.

use rand::RngExt;

use super::*;
use crate::edit::Edit;
use crate::entry::EntryKey;
use crate::id::{DeviceKey, EntryId};
use crate::lab::{Disk, Link, NOW, create, ends, key, listing, mesh, name, rng, sync, write};
use crate::member::Role;
use crate::replica::Replica;

/// Two members with a history: files that were written often, moved, removed, and a conflict.
fn old_mesh() -> Vec<Replica> {
    let replicas = mesh(&[Role::Writer]);
    let ids: Vec<_> = (0..6_u8)
        .map(|n| create(&replicas[0], &format!("f{n}"), n, u64::from(n)))
        .collect();
    sync(&replicas[0], &replicas[1]);
    for round in 0..6_u8 {
        let at = usize::from(round) % 2;
        for id in &ids {
            write(&replicas[at], *id, 10 + round);
        }
        sync(&replicas[0], &replicas[1]);
    }
    let (parent, key) = (EntryId::ROOT, EntryKey::from(ids[0]));
    let name = name("moved");
    let moved = Edit::Move {
        key,
        parent,
        name,
        base: None,
    };
    replicas[0].edit(&[moved], NOW).unwrap();
    let key = EntryKey::from(ids[1]);
    replicas[0]
        .edit(&[Edit::Remove { key, base: None }], NOW)
        .unwrap();
    write(&replicas[0], ids[2], 100);
    write(&replicas[1], ids[2], 101);
    sync(&replicas[0], &replicas[1]);
    assert_eq!(replicas[0].conflicts().unwrap().len(), 1);
    replicas
}

fn newcomer(mesh: &Replica, number: u8) -> (Replica, Disk) {
    let disk = Disk::default();
    (join(mesh, number, &disk), disk)
}

fn join(mesh: &Replica, number: u8, disk: &Disk) -> Replica {
    let key: DeviceKey = key(number);
    if mesh.role_of(&key.device_id()).is_none() {
        mesh.admit(key.device_id(), "newcomer", Role::Writer, NOW)
            .unwrap();
    }
    let mut rng = rng(u64::from(number));
    Replica::join(disk.database(), &mesh.welcome(), key, &mut rng).unwrap()
}

/// Gives the newcomer a snapshot and stops before anything is fetched after it.
fn snapshot(from: &Replica, to: &Replica) {
    let mut link = Link::with_snapshots(from, to, 7);
    while to.is_new() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }
    assert!(to.shared().gap.is_some(), "it came by snapshot");
}

fn assert_same(one: &Replica, other: &Replica) {
    assert_eq!(listing(one), listing(other));
    assert_eq!(one.conflicts().unwrap(), other.conflicts().unwrap());
    assert_eq!(one.counts().unwrap(), other.counts().unwrap());
    assert_eq!(ends(one), ends(other));
    assert_eq!(one.digest().unwrap(), other.digest().unwrap());
}

fn meet(one: &Replica, other: &Replica) -> Link {
    let mut link = Link::with_snapshots(one, other, 7);
    link.run().unwrap();
    link
}

#[test]
fn a_snapshot_shows_the_same_tree_as_the_logs() {
    let replicas = old_mesh();
    let (by_log, _) = newcomer(&replicas[0], 8);
    let (by_snapshot, _) = newcomer(&replicas[0], 9);
    sync(&replicas[0], &by_log);
    snapshot(&replicas[0], &by_snapshot);
    assert_same(&by_log, &by_snapshot);
    assert_same(&replicas[0], &by_snapshot);
}

#[test]
fn afterwards_the_logs_are_fetched_and_complete() {
    let replicas = old_mesh();
    let (new, disk) = newcomer(&replicas[0], 9);
    let link = meet(&replicas[0], &new);
    assert!(link.ends.iter().all(Session::in_sync));
    assert!(new.shared().gap.is_none());
    assert_same(&replicas[0], &new);
    // A device that has nothing gets all of it from this one by the logs.
    let (third, _) = newcomer(&replicas[0], 10);
    sync(&replicas[0], &new);
    sync(&new, &third);
    assert_same(&new, &third);
    new.flush().unwrap();
    drop(new);
    let again = Replica::open(disk.crash().database(), key(9)).unwrap();
    sync(&replicas[0], &again);
    assert_same(&replicas[0], &again);
}

#[test]
fn edits_on_top_of_a_snapshot_converge_with_edits_elsewhere() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    snapshot(&replicas[0], &new);
    for entry in new.children(EntryId::ROOT).unwrap() {
        if entry.key.version.is_none() {
            write(&new, entry.key.id, 200);
            write(&replicas[1], entry.key.id, 201);
        }
    }
    create(&new, "here", 5, 55);
    sync(&replicas[0], &replicas[1]);
    for _ in 0..2 {
        meet(&replicas[0], &new);
        meet(&replicas[1], &new);
        meet(&replicas[0], &replicas[1]);
    }
    for replica in &replicas {
        assert_same(replica, &new);
    }
    assert!(new.shared().gap.is_none());
}

#[test]
fn what_the_new_device_wrote_before_and_during_the_snapshot_stays() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    let mine = create(&new, "mine", 1, 50);
    let other = create(&new, "my other", 1, 51);
    let mut link = Link::with_snapshots(&replicas[0], &new, 7);
    let mut written = 0;
    while new.is_new() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
        if new.is_staging() && written == 0 {
            write(&new, mine, 2);
            create(&new, "later", 3, 52);
            written += 1;
        }
    }
    assert_eq!(written, 1, "the snapshot took its time");
    let shown = listing(&new);
    for line in ["mine 2", "later 3", "my other 1"] {
        assert!(shown.contains(&line.to_owned()), "{line} in {shown:?}");
    }
    write(&new, other, 4);
    link.run().unwrap();
    assert_same(&replicas[0], &new);
}

#[test]
fn a_value_of_the_new_device_that_others_replaced_meanwhile_is_gone() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    let mine = create(&new, "mine", 1, 50);
    // It gets through to a member, which edits it, before a snapshot is taken.
    let mut link = Link::with_snapshots(&replicas[0], &new, 7);
    link.poll(1).unwrap();
    while replicas[0].entry(&mine.into()).unwrap().is_none() {
        link.deliver(0).unwrap();
        link.deliver(1).unwrap();
        link.poll(1).unwrap();
    }
    assert!(new.is_new());
    write(&replicas[0], mine, 9);
    write(&new, mine, 8);
    snapshot(&replicas[0], &new);
    meet(&replicas[0], &new);
    assert_same(&replicas[0], &new);
    assert_eq!(new.conflicts().unwrap().len(), 2);
}

#[test]
fn a_snapshot_cut_off_at_any_message_is_started_over() {
    let replicas = old_mesh();
    for cut in 0..40 {
        let (new, disk) = newcomer(&replicas[0], 9);
        let mut link = Link::with_snapshots(&replicas[0], &new, 7);
        let mut left = cut;
        let mut busy = true;
        while busy && left > 0 {
            busy = false;
            for end in [0, 1] {
                if left > 0 && link.deliver(end).unwrap() {
                    left -= 1;
                    busy = true;
                }
                busy |= link.poll(end).unwrap();
            }
        }
        drop(link);
        assert!(!new.is_staging());
        // One goes on after losing its connection, one after losing its power.
        let crashed = Replica::open(disk.crash().database(), key(9)).unwrap();
        meet(&replicas[0], &crashed);
        assert_same(&replicas[0], &crashed);
        drop(crashed);
        meet(&replicas[0], &new);
        assert_same(&replicas[0], &new);
        assert!(new.shared().gap.is_none());
        if !busy {
            return;
        }
    }
    panic!("the exchange never ended");
}

#[test]
fn one_snapshot_is_taken_at_a_time_and_the_other_offer_waits() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    let mut one = Link::with_snapshots(&replicas[0], &new, 1);
    let mut two = Link::with_snapshots(&replicas[1], &new, 2);
    for _ in 0..4 {
        for link in [&mut one, &mut two] {
            for end in [0, 1] {
                link.deliver(end).unwrap();
                link.poll(end).unwrap();
            }
        }
    }
    assert!(new.is_staging());
    // The one who was first goes away; the other one's offer is taken.
    drop(one);
    two.run().unwrap();
    sync(&replicas[0], &new);
    assert_same(&replicas[0], &new);
}

#[test]
fn a_device_that_is_behind_gets_from_a_new_one_what_that_has() {
    let replicas = old_mesh();
    let (behind, _) = newcomer(&replicas[0], 8);
    sync(&replicas[0], &behind);
    let (new, _) = newcomer(&replicas[0], 9);
    for entry in replicas[0].children(EntryId::ROOT).unwrap() {
        if entry.key.version.is_none() {
            write(&replicas[0], entry.key.id, 60);
            write(&replicas[0], entry.key.id, 61);
        }
    }
    snapshot(&replicas[0], &new);
    write(&new, new.children(EntryId::ROOT).unwrap()[0].key.id, 70);
    let before = behind.vector();
    let link = meet(&new, &behind);
    assert!(!link.ends[0].in_sync() && !link.ends[1].in_sync());
    assert_eq!(
        behind
            .vector()
            .iter()
            .filter(|(a, s)| before.get(*a) != *s)
            .count(),
        0
    );
    drop(link);
    // Now the new one gets the rest, and passes it on.
    meet(&replicas[0], &new);
    assert!(new.shared().gap.is_none());
    meet(&new, &behind);
    assert_same(&new, &behind);
}

#[test]
fn the_newest_edits_reach_others_without_the_one_who_made_them() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    sync(&replicas[0], &replicas[1]);
    for entry in replicas[0].children(EntryId::ROOT).unwrap() {
        if entry.key.version.is_none() {
            write(&replicas[0], entry.key.id, 60);
        }
    }
    snapshot(&replicas[0], &new);
    let mine = create(&new, "mine", 1, 50);
    // The first member is gone; the second has all but its newest edits, and they are alive.
    meet(&replicas[1], &new);
    assert!(new.shared().gap.is_none());
    assert_same(&replicas[1], &new);
    assert!(replicas[1].entry(&mine.into()).unwrap().is_some());
}

#[test]
fn a_new_device_with_holes_gives_another_new_one_a_snapshot() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    let (newer, _) = newcomer(&replicas[0], 10);
    snapshot(&replicas[0], &new);
    create(&new, "one more", 3, 53);
    // Even at the usual thresholds: there is no other way.
    let mut link = Link::new(&new, &newer, 7);
    link.run().unwrap();
    assert_eq!(listing(&new), listing(&newer));
    assert!(newer.shared().gap.is_some());
    meet(&replicas[0], &newer);
    meet(&replicas[0], &new);
    meet(&new, &newer);
    assert!(newer.shared().gap.is_none() && new.shared().gap.is_none());
    assert_same(&new, &newer);
}

/// A device with holes that wrote to a member, was restored from before that and wrote again.
fn restored_with_holes(replicas: &[Replica]) -> Replica {
    let (new, disk) = newcomer(&replicas[0], 9);
    snapshot(&replicas[0], &new);
    create(&new, "before", 1, 50);
    let backup = disk.crash();
    create(&new, "lost", 2, 51);
    create(&new, "lost too", 3, 52);
    meet(&replicas[1], &new);
    assert_eq!(replicas[1].vector(), new.vector());
    let restored = Replica::open(backup.database(), key(9)).unwrap();
    assert!(restored.shared().gap.is_some());
    create(&restored, "again", 4, 53);
    restored
}

#[test]
fn a_device_restored_while_it_had_holes_keeps_what_it_wrote_before_and_after() {
    let replicas = old_mesh();
    let restored = restored_with_holes(&replicas);
    meet(&replicas[1], &restored);
    for line in ["before 1", "lost 2", "lost too 3", "again 4"] {
        assert!(listing(&restored).contains(&line.to_owned()), "{line}");
    }
    meet(&replicas[0], &replicas[1]);
    for replica in &replicas {
        assert_same(replica, &restored);
    }
}

#[test]
fn a_restored_device_with_holes_spreads_both_histories_and_nobody_waits() {
    let replicas = old_mesh();
    let restored = restored_with_holes(&replicas);
    meet(&replicas[0], &restored);
    create(&restored, "meanwhile", 5, 54);
    for _ in 0..2 {
        meet(&replicas[1], &restored);
        meet(&replicas[0], &restored);
        meet(&replicas[0], &replicas[1]);
    }
    assert!(restored.shared().gap.is_none());
    for line in ["before 1", "lost 2", "lost too 3", "again 4", "meanwhile 5"] {
        assert!(listing(&restored).contains(&line.to_owned()), "{line}");
    }
    for replica in &replicas {
        assert_same(replica, &restored);
    }
}

#[test]
fn short_logs_go_as_they_are() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    sync(&replicas[0], &new);
    assert!(new.shared().gap.is_none());
    assert_same(&replicas[0], &new);
}

#[test]
fn a_peer_that_does_not_know_snapshots_is_sent_the_logs() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    let mut link = Link::with_snapshots(&replicas[0], &new, 7);
    // A program from before says nothing before its hello.
    link.queues[0].pop_front();
    link.run().unwrap();
    assert!(new.shared().gap.is_none());
    assert_same(&replicas[0], &new);
}

/// An admin, a writer who is to be removed, a colleague, and a new device with a snapshot of what the
/// colleague saw: the writer wrote more than the admin knows of.
fn before_a_removal() -> [Replica; 4] {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let [admin, removed, colleague] = [0, 1, 2].map(|at| replicas[at].clone());
    let ids: Vec<_> = (0..3_u8)
        .map(|n| create(&removed, &format!("f{n}"), n, u64::from(n)))
        .collect();
    for round in 10..13 {
        ids.iter().for_each(|id| write(&removed, *id, round));
    }
    let (new, _) = newcomer(&admin, 9);
    sync(&admin, &removed);
    sync(&admin, &colleague);
    for round in 20..23 {
        ids.iter().for_each(|id| write(&removed, *id, round));
    }
    sync(&removed, &colleague);
    snapshot(&colleague, &new);
    assert!(listing(&new).contains(&"f0 22".to_owned()));
    [admin, removed, colleague, new]
}

/// All meet until all logs are complete, and the same file must be shown everywhere.
fn assert_settle([admin, colleague, new]: [&Replica; 3], shown: &str) {
    for _ in 0..2 {
        meet(admin, colleague);
        meet(admin, new);
        meet(colleague, new);
    }
    assert!(new.shared().gap.is_none());
    assert!(
        listing(new).contains(&shown.to_owned()),
        "{:?}",
        listing(new)
    );
    assert_same(admin, new);
    assert_same(colleague, new);
}

#[test]
fn what_a_removed_member_wrote_beyond_the_cut_goes_from_a_snapshot_too() {
    for first in [0, 1] {
        let [admin, removed, colleague, new] = before_a_removal();
        admin.revoke(removed.device(), NOW).unwrap();
        meet([&admin, &colleague][first], &new);
        assert_settle([&admin, &colleague, &new], "f0 12");
    }
}

#[test]
fn what_a_removed_member_wrote_stays_in_a_snapshot_when_somebody_built_on_it() {
    for first in [0, 1] {
        let [admin, removed, colleague, new] = before_a_removal();
        let ids = colleague.children(EntryId::ROOT).unwrap();
        write(&colleague, ids[0].key.id, 99);
        admin.revoke(removed.device(), NOW).unwrap();
        meet([&admin, &colleague][first], &new);
        assert_settle([&admin, &colleague, &new], "f0 99");
        assert!(listing(&new).contains(&"f1 22".to_owned()));
    }
}

#[test]
fn what_a_removed_member_wrote_stays_when_the_new_device_itself_built_on_it() {
    let [admin, removed, colleague, new] = before_a_removal();
    create(&new, "mine", 1, 60);
    admin.revoke(removed.device(), NOW).unwrap();
    // The colleague sets it aside before it hears of what was built on it.
    meet(&admin, &colleague);
    assert!(listing(&colleague).contains(&"f0 12".to_owned()));
    assert_settle([&admin, &colleague, &new], "f0 22");
}

#[test]
fn a_removal_that_a_new_device_learns_of_while_a_snapshot_comes_in_counts() {
    let replicas = old_mesh();
    let (new, _) = newcomer(&replicas[0], 9);
    write(
        &replicas[1],
        replicas[1].children(EntryId::ROOT).unwrap()[0].key.id,
        55,
    );
    let mut link = Link::with_snapshots(&replicas[1], &new, 7);
    while !new.is_staging() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }
    replicas[0].revoke(replicas[1].device(), NOW).unwrap();
    meet(&replicas[0], &new);
    let ended = link.run();
    assert!(
        matches!(ended, Ok(()) | Err(SessionError::NotMember { .. })),
        "{ended:?}"
    );
    drop(link);
    meet(&replicas[0], &new);
    assert_same(&replicas[0], &new);
}

#[test]
fn messages_about_snapshots_that_nobody_asked_for_are_blamed_or_answered_with_nothing() {
    let replicas = old_mesh();
    let author = replicas[0].shared().author;
    let say = |wire: &Wire<'_>| {
        let (new, _) = newcomer(&replicas[0], 9);
        let mut link = Link::new(&replicas[0], &new, 7);
        link.run().unwrap();
        let outcome = link.ends[0].receive(Message::new(wire).as_bytes(), &mut rng(1));
        outcome.map(|answers| {
            answers
                .into_iter()
                .map(Message::into_bytes)
                .collect::<Vec<_>>()
        })
    };
    for wire in [
        Wire::Pieces(vec![(&[], b"x")]),
        Wire::Seen(vec![(author, Seen::new())]),
        Wire::SnapshotEnd,
        Wire::Below(vec![b"x"]),
    ] {
        assert!(
            say(&wire).is_err_and(|error| error.is_peer_fault()),
            "{wire:?}"
        );
    }
    let nothing = Message::new(&Wire::NoSnapshot).into_bytes();
    assert_eq!(say(&Wire::WantSnapshot).unwrap(), [nothing]);
    let nothing = Message::new(&Wire::Below(Vec::new())).into_bytes();
    let end = crate::session::wire::End {
        author,
        seq: u64::MAX,
        check: [0; 8],
    };
    let absurd = Wire::WantBelow(vec![(end, u64::MAX)]);
    assert_eq!(say(&absurd).unwrap(), [nothing]);
    let shared = replicas[0].shared();
    let end = crate::session::wire::End::of(author.into(), &shared.ends[&author.into()]);
    assert!(say(&Wire::WantBelow(vec![(end, 0)])).unwrap()[0].len() > 100);
}

#[test]
fn a_channel_that_repeats_loses_or_swaps_parts_of_a_snapshot_does_no_lasting_harm() {
    let replicas = old_mesh();
    for seed in 0..30 {
        let (new, _) = newcomer(&replicas[0], 9);
        let mut rng = rng(seed);
        let mut link = Link::with_snapshots(&replicas[0], &new, seed);
        for _ in 0..60 {
            let end = rng.random_range(0..2);
            match rng.random_range(0..12) {
                0 => drop(link.queues[end].pop_front()),
                1 => {
                    let again = link.queues[end].front().cloned();
                    link.queues[end].extend(again);
                }
                2 => link.queues[end].rotate_left(usize::from(link.queues[end].len() > 1)),
                _ => {}
            }
            let trouble = link.poll(end).and_then(|_| link.deliver(end)).err();
            if trouble.is_some() || rng.random_bool(0.03) {
                assert!(
                    !matches!(trouble, Some(SessionError::Storage(_))),
                    "seed {seed}: {trouble:?}"
                );
                link = Link::with_snapshots(&replicas[0], &new, seed);
            }
        }
        drop(link);
        meet(&replicas[0], &new);
        meet(&replicas[1], &new);
        assert!(new.shared().gap.is_none(), "seed {seed}");
        assert_same(&replicas[0], &new);
    }
}
