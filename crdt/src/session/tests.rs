//! Sessions between honest replicas: they converge, whatever happens to the links.

use rand::RngExt;

use super::*;
use crate::edit::Edit;
use crate::entry::EntryKey;
use crate::id::{EntryId, Incarnation};
use crate::lab::{
    Disk, Link, NOW, create, creation, ends, key, listing, mesh, mesh_on, name, rng, sync, write,
};
use crate::member::Role;
use crate::replica::Problem;

mod restore;

#[test]
fn what_one_writes_the_other_shows() {
    let replicas = mesh(&[Role::Writer]);
    let id = create(&replicas[0], "plan.txt", 1, 1);
    sync(&replicas[0], &replicas[1]);
    assert_eq!(listing(&replicas[1]), ["plan.txt 1"]);
    write(&replicas[1], id, 2);
    sync(&replicas[1], &replicas[0]);
    assert_eq!(listing(&replicas[0]), ["plan.txt 2"]);
    assert_eq!(replicas[0].vector(), replicas[1].vector());
    assert_eq!(replicas[0].digest().unwrap(), replicas[1].digest().unwrap());
}

#[test]
fn live_changes_flow_both_ways_over_an_open_session() {
    let replicas = mesh(&[Role::Writer]);
    let mut link = Link::new(&replicas[0], &replicas[1], 1);
    link.run().unwrap();
    for round in 0..5 {
        create(
            &replicas[usize::from(round % 2)],
            &format!("f{round}"),
            round,
            u64::from(round),
        );
        link.run().unwrap();
    }
    assert_eq!(listing(&replicas[0]).len(), 5);
    assert_eq!(listing(&replicas[0]), listing(&replicas[1]));
    assert!(link.ends[0].in_sync() && link.ends[1].in_sync());
}

#[test]
fn envelopes_are_relayed_by_members_that_did_not_write_them() {
    let replicas = mesh(&[Role::Reader, Role::Writer]);
    create(&replicas[0], "a", 1, 1);
    sync(&replicas[0], &replicas[1]);
    sync(&replicas[1], &replicas[2]);
    assert_eq!(listing(&replicas[2]), ["a 1"]);
}

#[test]
fn nothing_is_sent_that_the_other_has() {
    let replicas = mesh(&[Role::Writer]);
    for round in 0..20 {
        create(&replicas[0], &format!("f{round}"), round, u64::from(round));
    }
    sync(&replicas[0], &replicas[1]);
    let mut link = Link::new(&replicas[0], &replicas[1], 1);
    link.run().unwrap();
    assert!(
        link.carried < 1100,
        "two hellos, not {} bytes",
        link.carried
    );
}

#[test]
fn edits_made_apart_converge_with_both_contents_kept() {
    let replicas = mesh(&[Role::Writer]);
    let id = create(&replicas[0], "plan.txt", 1, 1);
    sync(&replicas[0], &replicas[1]);
    write(&replicas[0], id, 2);
    write(&replicas[1], id, 3);
    sync(&replicas[0], &replicas[1]);
    assert_eq!(listing(&replicas[0]), listing(&replicas[1]));
    let marks: Vec<_> = listing(&replicas[0])
        .iter()
        .map(|l| l[l.len() - 1..].to_owned())
        .collect();
    assert!(
        marks.contains(&"2".to_owned()) && marks.contains(&"3".to_owned()),
        "{marks:?}"
    );
}

#[test]
fn deferred_edits_are_sent_only_after_they_are_durable() {
    let replicas = mesh(&[Role::Writer]);
    let mut link = Link::new(&replicas[0], &replicas[1], 1);
    let id = replicas[0].fresh_id(EntryId::ROOT, &mut rng(3)).unwrap();
    replicas[0]
        .edit_deferred(&[creation(id, EntryId::ROOT, "late", 1)], NOW)
        .unwrap();
    link.run().unwrap();
    assert_eq!(listing(&replicas[0]), ["late 1"]);
    assert!(listing(&replicas[1]).is_empty());
    replicas[0].flush().unwrap();
    link.run().unwrap();
    assert_eq!(listing(&replicas[1]), ["late 1"]);
}

#[test]
fn a_member_admitted_elsewhere_brings_the_proof_with_it() {
    let replicas = mesh(&[Role::Writer]);
    let newcomer = key(9);
    replicas[0]
        .admit(newcomer.device_id(), "tablet", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let welcome = replicas[0].welcome();
    let third = Replica::join(disk.database(), &welcome, newcomer, &mut rng(9)).unwrap();
    create(&third, "from the tablet", 4, 4);
    sync(&third, &replicas[1]);
    assert_eq!(listing(&replicas[1]), ["from the tablet 4"]);
    assert_eq!(replicas[1].members().len(), 3);
}

#[test]
fn a_removed_member_gets_nothing_any_more() {
    let replicas = mesh(&[Role::Writer]);
    sync(&replicas[0], &replicas[1]);
    replicas[0].revoke(replicas[1].device(), NOW).unwrap();
    create(&replicas[0], "secret", 1, 1);
    let mut link = Link::new(&replicas[0], &replicas[1], 1);
    let ended = link.run();
    assert!(
        matches!(ended, Ok(()) | Err(SessionError::NotMember { .. })),
        "{ended:?}"
    );
    assert!(listing(&replicas[1]).is_empty());
}

#[test]
fn a_removed_device_is_told_why_and_nothing_else() {
    let replicas = mesh(&[Role::Writer, Role::Reader]);
    let [admin, removed] = [&replicas[0], &replicas[1]];
    let later = key(50).device_id();
    admin.revoke(removed.device(), NOW).unwrap();
    admin.admit(later, "later", Role::Reader, NOW).unwrap();
    let mut link = Link::new(admin, removed, 1);
    let ended = link.run();
    assert!(
        matches!(ended, Err(SessionError::NotMember { .. })),
        "{ended:?}"
    );
    let why = removed.removal_of(&removed.device()).unwrap();
    assert_eq!((why.by, why.at), (admin.device(), NOW));
    assert_eq!(removed.role_of(&later), None, "that does not concern it");
    // It knows now, so the next time ends at once.
    let mut link = Link::new(admin, removed, 1);
    assert!(link.run().is_err());
    assert!(link.carried < 1000, "{} bytes", link.carried);
}

#[test]
fn who_leaves_waits_until_somebody_knows_and_is_listed_no_more() {
    let replicas = mesh(&[Role::Writer, Role::Admin]);
    sync(&replicas[0], &replicas[1]);
    sync(&replicas[0], &replicas[2]);
    for leaver in [&replicas[1], &replicas[2]] {
        let mut link = Link::new(&replicas[0], leaver, 3);
        link.run().unwrap();
        leaver.leave(NOW).unwrap();
        assert!(!link.ends[1].in_sync(), "nobody knows yet");
        link.run().unwrap_or(());
        assert!(link.ends[1].in_sync());
        assert_eq!(replicas[0].role_of(&leaver.device()), None);
    }
    assert!(replicas[0].leave(NOW).is_err(), "the last admin stays");
}

/// As many records as there may be of two admins, each as long as it may be, and everybody at once gone.
#[test]
fn a_membership_log_of_any_length_is_told() {
    let replicas = mesh(&[Role::Reader]);
    let mut log = crate::member::MemberLog::clone(&replicas[0].shared().members);
    let mut records = Vec::new();
    for number in 0..190_u64 {
        let cut = (0..1000).map(|life| (Incarnation(u64::MAX - life), number));
        let device = DeviceId::from_bytes([9; 32]);
        let cut = cut.collect();
        let action = crate::member::Action::Revoke { device, cut };
        let record = log.next(&key(1), NOW, action);
        log.insert(record.clone()).unwrap();
        records.push(record.bytes);
    }
    let bytes: usize = records.iter().map(Vec::len).sum();
    assert!(
        bytes > 2 * crate::limit::MAX_MESSAGE_BYTES - (1 << 18),
        "{bytes}"
    );
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    replicas[0].take_members(&records, &mut rng(1)).unwrap();
    let mut link = Link::new(&replicas[0], &replicas[1], 3);
    link.run().unwrap();
    assert!(link.ends.iter().all(Session::in_sync));
    assert!(link.carried < bytes + bytes / 4, "each record is sent once");
}

#[test]
fn what_a_removed_member_wrote_beyond_the_cut_counts_nowhere() {
    let replicas = mesh(&[Role::Writer, Role::Reader]);
    let [admin, removed, reader] = [&replicas[0], &replicas[1], &replicas[2]];
    create(removed, "seen by all", 1, 1);
    sync(admin, removed);
    create(removed, "seen by the reader only", 2, 2);
    create(removed, "this too", 3, 3);
    sync(removed, reader);
    assert_eq!(listing(reader).len(), 3);
    admin.revoke(removed.device(), NOW).unwrap();
    sync(admin, reader);
    for replica in [admin, reader] {
        assert_eq!(listing(replica), ["seen by all 1"]);
    }
    assert_eq!(admin.digest().unwrap(), reader.digest().unwrap());
    create(admin, "life goes on", 4, 4);
    sync(admin, reader);
    assert_eq!(listing(admin), listing(reader));
}

#[test]
fn what_a_removed_member_wrote_counts_everywhere_once_somebody_built_on_it() {
    let replicas = mesh(&[Role::Writer, Role::Writer, Role::Reader]);
    let [admin, removed, colleague, reader] = [0, 1, 2, 3].map(|at| &replicas[at]);
    let id = create(removed, "draft", 1, 1);
    create(removed, "notes", 2, 2);
    sync(removed, colleague);
    write(colleague, id, 3);
    create(removed, "too late", 4, 4);
    sync(removed, reader);
    admin.revoke(removed.device(), NOW).unwrap();
    sync(admin, reader);
    assert!(
        listing(reader).is_empty(),
        "nothing that counts builds on it yet"
    );
    sync(admin, colleague);
    sync(admin, reader);
    for replica in [admin, colleague, reader] {
        assert_eq!(listing(replica), ["draft 3", "notes 2"]);
        assert_eq!(replica.digest().unwrap(), admin.digest().unwrap());
    }
}

#[test]
fn a_removed_member_that_is_let_in_again_writes_on_and_what_it_wrote_counts() {
    let replicas = mesh(&[Role::Writer, Role::Reader]);
    let [admin, device, reader] = [&replicas[0], &replicas[1], &replicas[2]];
    create(device, "before", 1, 1);
    sync(device, reader);
    admin.revoke(device.device(), NOW).unwrap();
    sync(admin, reader);
    assert!(listing(reader).is_empty());
    admin
        .admit(device.device(), "again", Role::Writer, NOW)
        .unwrap();
    Link::new(admin, device, 1).run().unwrap();
    create(device, "after", 2, 2);
    sync(device, reader);
    sync(admin, reader);
    for replica in &replicas {
        assert_eq!(listing(replica), ["after 2", "before 1"]);
    }
}

#[test]
fn what_a_peer_claims_to_have_of_strangers_is_not_remembered() {
    let replicas = mesh(&[Role::Writer]);
    create(&replicas[0], "a", 1, 1);
    let mut link = Link::new(&replicas[0], &replicas[1], 1);
    link.run().unwrap();
    let strangers = (0..100).map(|life| {
        let device = replicas[1].device();
        let incarnation = Incarnation(life);
        let author = Author {
            device,
            incarnation,
        };
        End {
            author,
            seq: 1,
            check: [0; 8],
        }
    });
    let have = Message::new(&Wire::Have(strangers.collect()));
    let [end, _] = &mut link.ends;
    end.receive(have.as_bytes(), &mut rng(1)).unwrap();
    assert_eq!(end.peer_vector().unwrap().len(), 1);
}

#[test]
fn many_replicas_converge_over_links_that_come_and_go() {
    for seed in 0..6 {
        let replicas = mesh(&[Role::Writer, Role::Writer, Role::Admin]);
        let mut rng = rng(seed);
        let mut links: Vec<(usize, usize, Link)> = Vec::new();
        for step in 0..120 {
            let (a, b) = (rng.random_range(0..4), rng.random_range(0..4));
            match rng.random_range(0..10) {
                0 if a != b => links.push((a, b, Link::new(&replicas[a], &replicas[b], step))),
                1 if !links.is_empty() => {
                    links.remove(rng.random_range(0..links.len()));
                }
                2..=4 => random_edit(&replicas[a], &mut rng, step),
                5..=9 if !links.is_empty() => {
                    let at = rng.random_range(0..links.len());
                    let end = rng.random_range(0..2);
                    let link = &mut links[at].2;
                    link.poll(end).unwrap();
                    link.deliver(1 - end)
                        .unwrap_or_else(|e| panic!("seed {seed}: {e:?}"));
                }
                _ => {}
            }
        }
        for _ in 0..2 {
            for other in 1..4 {
                sync(&replicas[0], &replicas[other]);
            }
        }
        for other in &replicas[1..] {
            assert_eq!(listing(&replicas[0]), listing(other), "seed {seed}");
            assert_eq!(
                replicas[0].digest().unwrap(),
                other.digest().unwrap(),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn a_channel_that_repeats_loses_or_swaps_messages_does_no_harm() {
    for seed in 0..8 {
        let replicas = mesh(&[Role::Writer]);
        let mut rng = rng(seed);
        for step in 0..30 {
            random_edit(&replicas[usize::from(rng.random_bool(0.5))], &mut rng, step);
        }
        let mut link = Link::new(&replicas[0], &replicas[1], seed);
        for _ in 0..200 {
            let end = rng.random_range(0..2);
            match rng.random_range(0..6) {
                0 => drop(link.queues[end].pop_front()),
                1 => {
                    let again = link.queues[end].front().cloned();
                    link.queues[end].extend(again);
                }
                2 => link.queues[end].rotate_left(usize::from(link.queues[end].len() > 1)),
                _ => {}
            }
            let trouble = link.poll(end).and_then(|_| link.deliver(end)).err();
            if trouble.is_some() || rng.random_bool(0.02) {
                assert!(
                    !matches!(trouble, Some(SessionError::Storage(_))),
                    "seed {seed}"
                );
                link = Link::new(&replicas[0], &replicas[1], seed);
            }
        }
        sync(&replicas[0], &replicas[1]);
        assert_eq!(listing(&replicas[0]), listing(&replicas[1]), "seed {seed}");
    }
}

#[test]
fn another_versions_hello_is_answered_with_its_version_and_garbage_with_blame() {
    let replicas = mesh(&[Role::Writer]);
    let mut session = Session::new(&replicas[0], replicas[1].device());
    let later = session.receive(&[0, 9, 1, 2, 3], &mut rng(1)).unwrap_err();
    assert!(
        matches!(later, SessionError::Version { theirs: 9, ours: 2 }),
        "{later:?}"
    );
    for garbage in [&b""[..], b"\xff\xff", &[0; 40], &vec![7; 2 << 20]] {
        assert!(session.receive(garbage, &mut rng(1)).is_err_and(
            |error| error.is_peer_fault() || matches!(error, SessionError::Version { .. })
        ));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(40))]

    #[test]
    fn a_session_takes_any_bytes_without_a_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
    ) {
        let replicas = mesh(&[Role::Writer]);
        let mut session = Session::new(&replicas[0], replicas[1].device());
        if session.receive(&bytes, &mut rng(1)).is_ok() {
            proptest::prop_assert!(replicas[0].vector().is_empty());
        }
    }
}

fn random_edit(replica: &Replica, rng: &mut rand_chacha::ChaCha8Rng, step: u64) {
    let entries = replica.children(EntryId::ROOT).unwrap();
    let mark = u8::try_from(step % 250).unwrap();
    let edit = if entries.is_empty() || rng.random_bool(0.4) {
        let id = replica.fresh_id(EntryId::ROOT, rng).unwrap();
        creation(
            id,
            EntryId::ROOT,
            &format!("{}-{step}", replica.device().tag()),
            mark,
        )
    } else {
        let entry = &entries[rng.random_range(0..entries.len())];
        match rng.random_range(0..3) {
            0 => Edit::Write {
                key: entry.key,
                content: crate::lab::content(mark),
                base: None,
            },
            1 => Edit::Remove {
                key: entry.key,
                base: None,
            },
            _ => Edit::Move {
                key: EntryKey { ..entry.key },
                parent: EntryId::ROOT,
                name: name(&format!("moved-{step}")),
                base: None,
            },
        }
    };
    replica.edit(&[edit], NOW).unwrap();
}

/// What it wrote before it heard of its removal lies aside elsewhere: the same log could not go on.
#[test]
fn a_removed_device_that_comes_back_by_the_recovery_phrase_keeps_what_it_wrote_and_is_not_blamed() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let [founder, device, other] = [&replicas[0], &replicas[1], &replicas[2]];
    let phrase = key(99);
    founder.set_recovery(phrase.device_id(), NOW).unwrap();
    create(device, "before", 1, 1);
    for one in [device, other] {
        sync(founder, one);
    }
    founder.revoke(device.device(), NOW).unwrap();
    create(device, "apart", 2, 2);
    let life = device.shared().author;
    // It hears that it was removed, and then nothing more.
    let _ended = Link::new(founder, device, 7).run();
    assert!(device.role_of(&device.device()).is_none());
    device.recover(&phrase, "laptop", NOW).unwrap();
    assert_ne!(device.shared().author, life);
    create(device, "after", 3, 3);
    sync(device, founder);
    sync(founder, other);
    for replica in [founder, other, device] {
        assert_eq!(listing(replica), ["after 3", "apart 2", "before 1"]);
        assert_eq!(replica.digest().unwrap(), founder.digest().unwrap());
    }
}
