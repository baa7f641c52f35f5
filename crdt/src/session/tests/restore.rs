//! Devices that were set back to an earlier state, and what is believed about that.

use super::*;

#[test]
fn a_restored_backup_takes_a_new_incarnation_and_gets_its_lost_log_back() {
    let disks = [Disk::default(), Disk::default()];
    let replicas = mesh_on(&disks, &[Role::Writer]);
    create(&replicas[1], "before", 1, 1);
    sync(&replicas[0], &replicas[1]);
    let backup = disks[1].crash();
    create(&replicas[1], "after", 2, 2);
    sync(&replicas[0], &replicas[1]);

    let restored = Replica::open(backup.database(), key(2)).unwrap();
    let life = restored.shared().author.incarnation;
    assert_eq!(listing(&restored), ["before 1"]);
    sync(&restored, &replicas[0]);
    assert_ne!(
        restored.shared().author.incarnation,
        life,
        "numbers must not be used twice"
    );
    assert_eq!(listing(&restored), ["after 2", "before 1"]);
    create(&restored, "later", 3, 3);
    sync(&restored, &replicas[0]);
    assert_eq!(listing(&replicas[0]), ["after 2", "before 1", "later 3"]);
}

#[test]
fn what_was_written_after_and_before_a_restore_is_all_kept() {
    for (lost, more) in [(1, 1), (3, 1), (1, 3), (7, 7), (40, 2), (2, 40), (1, 60)] {
        let disks = [Disk::default(), Disk::default(), Disk::default()];
        let replicas = mesh_on(&disks, &[Role::Writer, Role::Writer]);
        let shared = create(&replicas[1], "shared", 1, 1);
        for round in 0..5 {
            create(&replicas[1], &format!("before {round}"), 2, 10 + round);
        }
        sync(&replicas[0], &replicas[1]);
        let backup = disks[1].crash();
        write(&replicas[1], shared, 3);
        for round in 1..lost {
            create(&replicas[1], &format!("lost {round}"), 4, 100 + round);
        }
        sync(&replicas[0], &replicas[1]);
        sync(&replicas[0], &replicas[2]);

        let restored = Replica::open(backup.database(), key(2)).unwrap();
        write(&restored, shared, 5);
        for round in 1..more {
            create(&restored, &format!("more {round}"), 6, 200 + round);
        }
        sync(&restored, &replicas[0]);
        sync(&replicas[0], &replicas[2]);
        let all = listing(&restored);
        let marks = |mark: &str| all.iter().filter(|line| line.ends_with(mark)).count() as u64;
        let found = [" 2", " 3", " 4", " 5", " 6"].map(marks);
        assert_eq!(found, [5, 1, lost - 1, 1, more - 1], "{all:?}");
        for other in [&replicas[0], &replicas[2]] {
            assert_eq!(listing(other), all);
            assert_eq!(other.digest().unwrap(), restored.digest().unwrap());
        }
        create(&restored, "later", 7, 999);
        sync(&restored, &replicas[2]);
        assert_eq!(listing(&restored), listing(&replicas[2]));
    }
}

#[test]
fn what_others_built_on_a_lost_history_fits_under_what_was_written_after_the_restore() {
    let disks = [Disk::default(), Disk::default()];
    let replicas = mesh_on(&disks, &[Role::Writer]);
    let [other, device] = [&replicas[0], &replicas[1]];
    let shared = create(device, "shared", 1, 1);
    sync(other, device);
    let backup = disks[1].crash();
    write(device, shared, 2);
    sync(other, device);
    write(other, shared, 3);
    create(device, "lost", 4, 4);
    sync(other, device);

    let restored = Replica::open(backup.database(), key(2)).unwrap();
    write(&restored, shared, 5);
    sync(&restored, other);
    assert_eq!(restored.digest().unwrap(), other.digest().unwrap());
    let all = listing(&restored);
    assert_eq!(listing(other), all);
    for mark in [" 3", " 4", " 5"] {
        let found = all.iter().filter(|line| line.ends_with(mark)).count();
        assert_eq!(found, 1, "{mark} in {all:?}");
    }
    assert_eq!(all.len(), 3, "{all:?}");
}

/// Whoever it meets first, and however far back it was set: by all of the machine, so that nothing tells it.
#[test]
fn a_machine_set_back_as_a_whole_keeps_both_histories_whoever_it_meets_first() {
    for order in [[0, 2], [2, 0], [3, 2], [2, 3]] {
        for back in [1, 5, 40] {
            let disks: Vec<Disk> = (0..4).map(|_| Disk::default()).collect();
            let replicas = mesh_on(&disks, &[Role::Writer, Role::Writer, Role::Reader]);
            let shared = create(&replicas[1], "shared", 1, 1);
            sync(&replicas[0], &replicas[1]);
            sync(&replicas[0], &replicas[2]);
            let backup = disks[1].crash();
            write(&replicas[1], shared, 3);
            for round in 1..back {
                create(&replicas[1], &format!("lost {round}"), 4, 100 + round);
            }
            sync(&replicas[0], &replicas[1]);

            let restored = Replica::open(backup.database(), key(2)).unwrap();
            write(&restored, shared, 5);
            create(&restored, "again", 6, 7);
            for at in order.iter().cycle().take(4) {
                sync_some(&replicas[*at], &restored);
            }
            for _ in 0..2 {
                for (one, other) in [(0, 2), (0, 3), (2, 3)] {
                    sync_some(&replicas[one], &replicas[other]);
                }
                sync_some(&replicas[0], &restored);
            }
            create(&restored, "later", 7, 8);
            sync_some(&replicas[0], &restored);
            sync_some(&replicas[0], &replicas[2]);
            sync_some(&replicas[0], &replicas[3]);
            let all = listing(&restored);
            for mark in [" 3", " 5", " 6", " 7"] {
                assert!(
                    all.iter().any(|line| line.ends_with(mark)),
                    "{mark}: {all:?}"
                );
            }
            for other in [&replicas[0], &replicas[2], &replicas[3]] {
                assert_eq!(listing(other), all);
                assert_eq!(ends(other), ends(&restored));
                assert_eq!(other.digest().unwrap(), restored.digest().unwrap());
                let device = restored.device();
                assert_eq!(other.problems(), [Problem::Forked { device }]);
            }
        }
    }
}

/// Without the demand that both ends are in sync at the end.
fn sync_some(one: &Replica, other: &Replica) {
    Link::new(one, other, 7).run().unwrap();
}

#[test]
fn a_claim_about_this_devices_log_that_is_not_signed_by_it_changes_nothing() {
    let replicas = mesh(&[Role::Writer, Role::Reader]);
    create(&replicas[0], "a", 1, 1);
    let life = replicas[0].shared().author;
    let mesh = replicas[0].mesh_id();
    let members = replicas[0].shared().members.told();
    for number in 1..300 {
        let mut session = Session::new(&replicas[0], replicas[2].device());
        let end = End {
            author: life,
            seq: 1 + number,
            check: [7; 8],
        };
        let hello = Wire::Hello(Hello {
            version: VERSION,
            mesh,
            members: members.clone(),
            digest: None,
            ends: Some(vec![end]),
            proofs: Vec::new(),
        });
        session
            .receive(Message::new(&hello).as_bytes(), &mut rng(1))
            .unwrap();
        session.poll(1 << 20).unwrap();
    }
    assert_eq!(replicas[0].shared().author, life);
    create(&replicas[0], "b", 2, 2);
    sync(&replicas[0], &replicas[1]);
    assert_eq!(listing(&replicas[1]), ["a 1", "b 2"]);
}

#[test]
fn a_forged_proof_of_a_lost_history_is_blamed_on_who_brought_it() {
    let replicas = mesh(&[Role::Writer]);
    create(&replicas[0], "a", 1, 1);
    let author = replicas[0].shared().author;
    let txn = replicas[0].read().unwrap();
    let mut frame = crate::log::sent(&txn, author.into(), 1).unwrap();
    frame.truncate(crate::envelope::FRAME_BYTES);
    frame[80] ^= 1;
    let hello = Wire::Hello(Hello {
        version: VERSION,
        mesh: replicas[0].mesh_id(),
        members: replicas[0].shared().members.told(),
        digest: None,
        ends: None,
        proofs: vec![&frame],
    });
    let mut session = Session::new(&replicas[0], replicas[1].device());
    let outcome = session.receive(Message::new(&hello).as_bytes(), &mut rng(1));
    assert!(outcome.unwrap_err().is_peer_fault());
    assert_eq!(replicas[0].shared().author, author);
}

#[test]
fn a_database_that_was_copied_elsewhere_starts_a_new_incarnation() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    drop(replica);
    let life = |disk: &Disk, place: &[u8]| -> Incarnation {
        let replica = Replica::open_at(disk.database(), key(1), place, &mut rng(5)).unwrap();
        replica.shared().author.incarnation
    };
    let first = life(&disk.crash(), b"here");
    let settled = {
        let disk = disk.crash();
        assert_eq!(life(&disk, b"here"), first);
        disk
    };
    assert_eq!(life(&settled.crash(), b"here"), first);
    assert_ne!(life(&settled.crash(), b"there"), first);
}

/// The snapshot has one history of a device that was set back, and somebody built on the other one, which lies where
/// the new device's logs have a hole.
#[test]
fn what_builds_on_a_branch_beside_a_hole_waits_until_the_branch_can_come() {
    let disks: Vec<Disk> = (0..3).map(|_| Disk::default()).collect();
    let replicas = mesh_on(&disks, &[Role::Writer, Role::Writer]);
    let shared = create(&replicas[1], "shared", 1, 1);
    for other in [0, 2] {
        sync(&replicas[1], &replicas[other]);
    }
    let restored = Replica::open(disks[1].crash().database(), key(2)).unwrap();
    for round in 2..8 {
        write(&replicas[1], shared, round);
    }
    write(&restored, shared, 20);
    sync(&replicas[1], &replicas[0]);
    sync_some(&restored, &replicas[2]);
    write(&replicas[2], shared, 21);
    let device = key(9).device_id();
    replicas[0].admit(device, "new", Role::Writer, NOW).unwrap();
    let welcome = replicas[0].welcome();
    let database = Disk::default().database();
    let new = Replica::join(database, &welcome, key(9), &mut rng(9)).unwrap();
    let mut link = Link::with_snapshots(&replicas[0], &new, 7);
    while new.is_new() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }
    assert!(new.shared().gap.is_some());
    drop(link);
    for _ in 0..2 {
        for other in [&replicas[2], &replicas[0], &restored] {
            sync_some(&new, other);
        }
    }
    assert!(new.shared().gap.is_none());
    for other in [&replicas[0], &replicas[2], &restored] {
        assert_eq!(ends(other), ends(&new));
        assert_eq!(listing(other), listing(&new));
        assert_eq!(other.digest().unwrap(), new.digest().unwrap());
    }
    // Its value replaced that of the one history, and stands beside that of the other.
    assert_eq!(new.conflicts().unwrap().len(), 1);
}

/// The one does not know yet that the other was admitted, and has another history of its own log.
#[test]
fn histories_are_compared_only_once_both_sides_know_one_another_as_members() {
    let disks: Vec<Disk> = (0..2).map(|_| Disk::default()).collect();
    let replicas = mesh_on(&disks, &[Role::Writer]);
    let shared = create(&replicas[1], "shared", 1, 1);
    sync(&replicas[0], &replicas[1]);
    let restored = Replica::open(disks[1].crash().database(), key(2)).unwrap();
    write(&replicas[1], shared, 2);
    write(&restored, shared, 3);
    sync_some(&restored, &replicas[0]);
    let device = key(9).device_id();
    replicas[0].admit(device, "new", Role::Writer, NOW).unwrap();
    let welcome = replicas[0].welcome();
    let new = Replica::join(Disk::default().database(), &welcome, key(9), &mut rng(9)).unwrap();
    sync(&replicas[0], &new);
    assert!(replicas[1].role_of(&device).is_none());
    sync_some(&new, &replicas[1]);
    assert_eq!(ends(&new), ends(&replicas[1]));
    assert_eq!(new.digest().unwrap(), replicas[1].digest().unwrap());
    assert_eq!(new.conflicts().unwrap().len(), 1);
}
