//! What a replica refuses, and what survives a crash.

use std::sync::Mutex;

use proptest::prelude::*;
use redb::ReadableTable;

use super::*;
use crate::EntryId;
use crate::bucket::desk::Desk;
use crate::entry::{Mode, Version};
use crate::envelope::{Cause, Draft, Envelope, Frame};
use crate::error::{EnvelopeFault, MemberError, Misbehaviour, SessionError};
use crate::id::{Branch, BucketId};
use crate::lab::{Disk, Link, NOW, create, creation, key, listing, mesh, mesh_on, rng, sync};
use crate::limit::{MAX_CLOCK_LEAP, MAX_DEVICE_LIVES, MAX_ENVELOPE_DEPS};
use crate::member::Role;
use crate::register::{Attributes, Packed, Put, Register};

mod branch;

/// A member that writes envelopes by hand, honest unless it is told otherwise.
pub(super) struct Forger {
    key: DeviceKey,
    pub(super) author: Author,
    mesh: MeshId,
    members: Vec<Hash>,
    epoch: EpochSecret,
    desk: Desk,
    seq: u64,
    prev: Hash,
}

impl Forger {
    pub(super) fn new(number: u8, of: &Replica) -> Self {
        let key = key(number);
        Self {
            author: Author {
                device: key.device_id(),
                incarnation: Incarnation(1),
            },
            key,
            mesh: of.mesh_id(),
            members: of.shared().members.heads(),
            epoch: of.shared().epochs.current().unwrap().clone(),
            desk: Desk::new(),
            seq: 0,
            prev: Hash::from_bytes([0; 32]),
        }
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        self.forge(|_| {})
    }

    /// An envelope of a later format.
    fn later(&mut self) -> Vec<u8> {
        self.seq += 1;
        let place = crate::envelope::Place {
            author: self.author,
            seq: self.seq,
            prev: self.prev,
        };
        let format = crate::envelope::FORMAT + 1;
        let bytes = crate::envelope::sign(&self.key, format, self.mesh, place, b"?", b"?");
        self.prev = Frame::read(&bytes).unwrap().hash;
        bytes
    }

    fn forge(&mut self, spoil: impl FnOnce(&mut Draft<'_>)) -> Vec<u8> {
        // Each life writes to an entry of its own.
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.author.incarnation.0.to_be_bytes());
        let id = EntryId::from_bytes(id);
        let written = self.version(self.seq + 1);
        let value = Attributes::of_mode(written, Mode::new(0o755)).encode();
        let put = Put {
            id,
            register: Register::Attributes,
            value,
        };
        self.say(put, spoil)
    }

    /// A version of its own.
    pub(super) fn version(&self, lamport: u64) -> Version {
        Version {
            lamport,
            device: self.author.device.tag(),
            branch: Branch::from_bytes([0; 8]),
        }
    }

    /// An envelope that writes one register.
    pub(super) fn say(&mut self, put: Put, spoil: impl FnOnce(&mut Draft<'_>)) -> Vec<u8> {
        let bucket = put.id.bucket();
        let change = self.desk.write(&self.author, self.seq + 1, &[put]);
        let mut draft = Draft {
            mesh: self.mesh,
            author: self.author,
            seq: self.seq + 1,
            prev: self.prev,
            causes: Vec::new(),
            members: self.members.clone(),
            clock: self.seq + 1,
            at: NOW,
            changes: vec![(bucket, &change)],
        };
        spoil(&mut draft);
        let bytes = draft.sign(&self.key, &self.epoch).unwrap();
        self.seq += 1;
        self.prev = Frame::read(&bytes).map_or(self.prev, |frame| frame.hash);
        bytes
    }
}

pub(super) fn fault(replica: &Replica, envelope: &[u8]) -> EnvelopeFault {
    match replica.apply(&[envelope]) {
        Err(SessionError::Misbehaved(Misbehaviour::Envelope { fault, .. })) => fault,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_honest_envelope_is_taken() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let mut forger = Forger::new(2, &replica);
    let (one, two) = (forger.next(), forger.next());
    let applied = replica.apply(&[&one, &two, &one]).unwrap();
    assert_eq!(applied.sent, [(forger.author.into(), 2)]);
    assert!(!applied.causes_missing);
}

#[test]
fn an_envelope_by_somebody_who_may_not_write_is_refused() {
    let replica = mesh(&[Role::Reader, Role::Seed]).remove(0);
    for number in [2, 3, 99] {
        let mut forger = Forger::new(number, &replica);
        assert_eq!(fault(&replica, &forger.next()), EnvelopeFault::NotWriter);
    }
}

#[test]
fn an_envelope_for_another_mesh_is_refused() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let other = MeshId::from_bytes([9; 32]);
    let envelope = Forger::new(2, &replica).forge(|draft| draft.mesh = other);
    assert_eq!(fault(&replica, &envelope), EnvelopeFault::OtherMesh);
}

#[test]
fn an_envelope_signed_by_another_key_is_refused() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let mut forger = Forger::new(2, &replica);
    forger.key = key(7);
    assert_eq!(fault(&replica, &forger.next()), EnvelopeFault::BadSignature);
}

#[test]
fn a_clock_far_beyond_all_others_is_refused() {
    let replica = mesh(&[Role::Writer]).remove(0);
    for stamp in [MAX_CLOCK_LEAP + 1, u64::MAX] {
        let envelope = Forger::new(2, &replica).forge(|draft| draft.clock = stamp);
        assert_eq!(
            fault(&replica, &envelope),
            EnvelopeFault::ClockLeap { stamp }
        );
    }
    let lying = Forger::new(2, &replica).forge(|draft| draft.clock = 0);
    assert_eq!(
        fault(&replica, &lying),
        EnvelopeFault::ClockLeap { stamp: 1 }
    );
}

#[test]
fn a_change_filed_under_another_bucket_is_refused() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let elsewhere = BucketId::new(5).unwrap();
    let envelope = Forger::new(2, &replica).forge(|draft| draft.changes[0].0 = elsewhere);
    assert!(matches!(
        fault(&replica, &envelope),
        EnvelopeFault::Change { .. }
    ));
}

#[test]
fn envelopes_without_their_causes_are_left_and_asked_for_again() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let mut forger = Forger::new(2, &replica);
    let (one, two) = (forger.next(), forger.next());
    assert!(replica.apply(&[&two]).unwrap().causes_missing);
    assert!(replica.vector().is_empty());
    let stranger = Author {
        device: key(3).device_id(),
        incarnation: Incarnation(1),
    };
    let early = Forger::new(2, &replica).forge(|draft| {
        draft.causes = vec![Cause {
            author: stranger,
            seq: 1,
            hash: Hash::from_bytes([1; 32]),
        }];
    });
    assert!(replica.apply(&[&early]).unwrap().causes_missing);
    assert!(!replica.apply(&[&one, &two]).unwrap().causes_missing);
}

#[test]
fn what_came_before_a_bad_envelope_is_kept() {
    let replica = mesh(&[Role::Writer, Role::Writer]).remove(0);
    let (mut good, mut bad) = (Forger::new(2, &replica), Forger::new(3, &replica));
    let bad = bad.forge(|draft| draft.clock = u64::MAX);
    assert!(replica.apply(&[&good.next(), &bad, &good.next()]).is_err());
    assert_eq!(replica.vector().get(good.author), 1);
}

#[test]
fn a_message_that_is_no_envelope_is_blamed_on_the_peer() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let refused = replica.apply(&[b"garbage"]).unwrap_err();
    assert!(refused.is_peer_fault());
}

#[test]
fn an_edit_survives_a_crash_and_a_deferred_one_does_after_flush() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    create(&replica, "kept", 1, 1);
    let id = replica.fresh_id(EntryId::ROOT, &mut rng(2)).unwrap();
    replica
        .edit_deferred(&[creation(id, EntryId::ROOT, "deferred", 2)], NOW)
        .unwrap();
    let found = |disk: &Disk| listing(&Replica::open(disk.database(), key(1)).unwrap());
    assert_eq!(found(&disk.crash()), ["kept 1"]);
    assert!(replica.is_dirty().unwrap());
    replica.flush().unwrap();
    assert!(!replica.is_dirty().unwrap());
    assert_eq!(found(&disk.crash()), ["deferred 2", "kept 1"]);
}

#[test]
fn what_a_crash_took_of_a_peers_log_comes_again() {
    let disks = [Disk::default(), Disk::default()];
    let replicas = mesh_on(&disks, &[Role::Writer]);
    create(&replicas[0], "a", 1, 1);
    sync(&replicas[0], &replicas[1]);
    assert_eq!(listing(&replicas[1]), ["a 1"]);
    let crashed = Replica::open(disks[1].crash().database(), key(2)).unwrap();
    assert!(listing(&crashed).is_empty(), "it was not flushed");
    sync(&replicas[0], &crashed);
    assert_eq!(listing(&crashed), ["a 1"]);
}

#[test]
fn a_replica_whose_commit_failed_refuses_to_write_and_opens_again_whole() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    create(&replica, "kept", 1, 1);
    let id = replica.fresh_id(EntryId::ROOT, &mut rng(2)).unwrap();
    disk.break_down();
    let edit = [creation(id, EntryId::ROOT, "lost", 2)];
    assert!(replica.edit(&edit, NOW).is_err());
    let second = replica.edit(&edit, NOW).unwrap_err();
    assert!(
        matches!(second, crate::EditError::Storage(StorageError::Poisoned)),
        "{second:?}"
    );
    let again = Replica::open(disk.crash().database(), key(1)).unwrap();
    assert_eq!(listing(&again), ["kept 1"]);
}

#[test]
fn a_database_is_opened_only_by_its_device_and_founded_only_once() {
    let disk = Disk::default();
    assert!(matches!(
        Replica::open(disk.database(), key(1)),
        Err(OpenError::Empty)
    ));
    drop(mesh_on(std::slice::from_ref(&disk), &[]));
    let other = Replica::open(disk.crash().database(), key(2));
    assert!(matches!(other, Err(OpenError::OtherDevice { .. })));
    let new = NewMesh {
        name: "n".into(),
        device_name: "d".into(),
        key: key(1),
    };
    let again = Replica::create(disk.crash().database(), &new, NOW, &mut rng(1));
    assert!(matches!(again, Err(OpenError::Occupied { .. })));
}

#[test]
fn a_replica_of_an_earlier_format_is_refused_with_what_to_do() {
    let header = redb::TableDefinition::<&str, &[u8]>::new("header");
    for (format, said) in [
        (1_u32, "join it again"),
        (5, "files stay"),
        (7, "update Wormhole"),
    ] {
        let disk = Disk::default();
        let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
        let txn = replica.inner.db.begin_write().unwrap();
        let row = format.to_be_bytes();
        let mut table = txn.open_table(header).unwrap();
        table.insert("format", row.as_slice()).unwrap();
        drop(table);
        txn.commit().unwrap();
        let refused = Replica::open(disk.crash().database(), key(1)).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
    }
}

#[test]
fn an_observer_hears_every_commit_in_order_and_may_use_the_replica() {
    #[derive(Default)]
    struct Heard {
        replica: Mutex<Option<Replica>>,
        names: Mutex<Vec<String>>,
    }
    impl Observer for Heard {
        fn changed(&self, change: &Change) {
            let replica = self.replica.lock().unwrap().clone().unwrap();
            let Entries::Listed(entries) = &change.entries else {
                return;
            };
            for entry in entries.iter().filter_map(|change| change.after.as_ref()) {
                assert!(replica.entry(&entry.key).unwrap().is_some());
                self.names
                    .lock()
                    .unwrap()
                    .push(entry.name.as_str().to_owned());
            }
        }
    }
    let replica = mesh(&[]).remove(0);
    let heard = Arc::new(Heard::default());
    *heard.replica.lock().unwrap() = Some(replica.clone());
    let subscription = replica.subscribe(heard.clone());
    create(&replica, "a", 1, 1);
    create(&replica, "b", 1, 2);
    drop(subscription);
    create(&replica, "c", 1, 3);
    assert_eq!(*heard.names.lock().unwrap(), ["a", "b"]);
    *heard.replica.lock().unwrap() = None;
}

#[test]
fn only_admins_admit_and_the_last_admin_stays() {
    let replicas = mesh(&[Role::Writer]);
    let device = key(9).device_id();
    let refused = replicas[1].admit(device, "x", Role::Reader, NOW);
    assert!(matches!(refused, Err(MemberError::NotAdmin { .. })));
    let refused = replicas[0].revoke(replicas[0].device(), NOW);
    assert!(matches!(refused, Err(MemberError::LastAdmin)));
    let refused = replicas[0].admit(replicas[1].device(), "x", Role::Reader, NOW);
    assert!(matches!(refused, Err(MemberError::AlreadyMember { .. })));
}

#[test]
fn an_envelope_numbered_zero_is_refused() {
    let replica = mesh(&[Role::Writer]).remove(0);
    let zero = Forger::new(2, &replica).forge(|draft| draft.seq = 0);
    assert!(replica.apply(&[&zero]).unwrap_err().is_peer_fault());
}

/// The first envelopes of many lives of one device.
fn lives(number: u8, count: usize, of: &Replica) -> Vec<Vec<u8>> {
    let mut envelopes = Vec::new();
    for life in (1..).take(count) {
        let mut forger = Forger::new(number, of);
        forger.author.incarnation = Incarnation(life);
        envelopes.push(forger.next());
    }
    envelopes
}

fn apply_all(replica: &Replica, envelopes: &[Vec<u8>]) {
    let envelopes: Vec<&[u8]> = envelopes.iter().map(Vec::as_slice).collect();
    assert!(!replica.apply(&envelopes).unwrap().causes_missing);
}

#[test]
fn a_device_of_very_many_lives_is_heard_in_some_and_nobody_is_blamed() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    apply_all(&replicas[0], &lives(2, MAX_DEVICE_LIVES + 50, &replicas[0]));
    assert_eq!(replicas[0].vector().len(), MAX_DEVICE_LIVES);
    create(&replicas[0], "a", 1, 1);
    sync(&replicas[0], &replicas[2]);
    assert_eq!(listing(&replicas[2]), ["a 1"]);
}

#[test]
fn more_lives_than_an_envelope_can_name_silence_nobody() {
    let devices = u8::try_from(MAX_ENVELOPE_DEPS / MAX_DEVICE_LIVES + 1).unwrap();
    let replicas = mesh(&vec![Role::Writer; usize::from(devices) + 1]);
    for number in 3..3 + devices {
        apply_all(&replicas[0], &lives(number, MAX_DEVICE_LIVES, &replicas[0]));
    }
    assert!(replicas[0].vector().len() > MAX_ENVELOPE_DEPS);
    let id = create(&replicas[0], "a", 1, 1);
    crate::lab::write(&replicas[0], id, 2);
    sync(&replicas[0], &replicas[1]);
    assert_eq!(listing(&replicas[1]), ["a 2"]);
    assert_eq!(replicas[0].digest().unwrap(), replicas[1].digest().unwrap());
}

#[test]
fn what_waits_in_quarantine_is_released_only_for_an_envelope_that_counts() {
    let replicas = mesh(&[Role::Writer, Role::Reader, Role::Writer]);
    let [admin, removed, reader] = [&replicas[0], &replicas[1], &replicas[2]];
    let forger = || Forger::new(4, admin);
    let (mut early, mut bad, mut good) = (forger(), forger(), forger());
    create(removed, "late", 1, 1);
    sync(removed, reader);
    admin.revoke(removed.device(), NOW).unwrap();
    sync(admin, reader);
    assert!(listing(reader).is_empty());
    let author = removed.shared().author;
    let cause = Cause {
        author,
        seq: 1,
        hash: removed.shared().ends[&author.into()].hash,
    };
    let stranger = Cause {
        author: Author {
            device: key(77).device_id(),
            incarnation: Incarnation(1),
        },
        ..cause
    };
    let early = early.forge(|draft| draft.causes = vec![cause, stranger]);
    assert!(reader.apply(&[&early]).unwrap().causes_missing);
    assert!(listing(reader).is_empty());
    let elsewhere = BucketId::new(5).unwrap();
    let bad = bad.forge(|draft| {
        draft.causes = vec![cause];
        draft.changes[0].0 = elsewhere;
    });
    assert!(reader.apply(&[&bad]).is_err());
    assert!(listing(reader).is_empty());
    let good = good.forge(|draft| draft.causes = vec![cause]);
    assert!(!reader.apply(&[&good]).unwrap().causes_missing);
    assert_eq!(listing(reader), ["late 1"]);
}

const TREE_ROWS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("tree_row");

#[test]
fn an_index_that_is_missing_is_made_anew() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    create(&replica, "a", 1, 1);
    let txn = replica.inner.db.begin_write().unwrap();
    txn.delete_table(TREE_ROWS).unwrap();
    txn.commit().unwrap();
    let again = Replica::open(disk.crash().database(), key(1)).unwrap();
    assert_eq!(listing(&again), ["a 1"]);
}

#[test]
fn an_index_that_was_found_damaged_is_made_anew_when_it_is_opened_again() {
    let disk = Disk::default();
    let replica = mesh_on(std::slice::from_ref(&disk), &[]).remove(0);
    create(&replica, "a", 1, 1);
    let txn = replica.inner.db.begin_write().unwrap();
    {
        let mut rows = txn.open_table(TREE_ROWS).unwrap();
        let first = rows.first().unwrap().unwrap().0.value().to_vec();
        rows.insert(first.as_slice(), [0xff].as_slice()).unwrap();
    }
    txn.commit().unwrap();
    let found = replica.children(EntryId::ROOT).unwrap_err();
    assert!(found.blames_index(), "{found:?}");
    let again = Replica::open(disk.crash().database(), key(1)).unwrap();
    assert_eq!(listing(&again), ["a 1"]);
    let id = again.fresh_id(EntryId::ROOT, &mut rng(2)).unwrap();
    let edit = [creation(id, EntryId::ROOT, "b", 2)];
    again.edit(&edit, NOW).unwrap();
    assert_eq!(listing(&again), ["a 1", "b 2"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn decoders_take_any_bytes_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Envelope::decode(&bytes, &Epochs::default()).is_err());
        prop_assert!(crate::member::Record::decode(&bytes).is_err());
        let _ = Frame::read(&bytes);
    }

    #[test]
    fn an_envelope_with_any_bit_flipped_is_refused(at in 0usize..1000, bit in 0u8..8) {
        let replica = mesh(&[Role::Writer]).remove(0);
        let mut bytes = Forger::new(2, &replica).next();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // A flipped number can make it look early; it is then not taken either.
        let outcome = replica.apply(&[&bytes]);
        prop_assert!(outcome.is_err() || outcome.is_ok_and(|applied| applied.causes_missing));
        prop_assert!(replica.vector().is_empty());
    }
}

#[test]
fn a_lost_founder_is_replaced_by_whoever_has_the_recovery_phrase() {
    let replicas = mesh(&[Role::Writer, Role::Reader]);
    let [founder, laptop, reader] = [&replicas[0], &replicas[1], &replicas[2]];
    let phrase = key(77);
    founder.set_recovery(phrase.device_id(), NOW).unwrap();
    let again = founder.set_recovery(key(78).device_id(), NOW);
    assert!(matches!(again, Err(MemberError::HasRecovery)));
    sync(founder, laptop);
    let wrong = laptop.recover(&key(78), "laptop", NOW);
    assert!(matches!(wrong, Err(MemberError::WrongRecovery)));
    laptop.recover(&phrase, "laptop", NOW).unwrap();
    laptop.revoke(founder.device(), NOW).unwrap();
    sync(laptop, reader);
    assert_eq!(reader.role_of(&founder.device()), None);
    assert_eq!(reader.role_of(&laptop.device()), Some(Role::Admin));
    // A device that was itself removed comes back so, too.
    laptop.revoke(reader.device(), NOW).unwrap();
    drop(Link::new(laptop, reader, 1).run());
    assert_eq!(reader.role_of(&reader.device()), None);
    reader.recover(&phrase, "reader", NOW).unwrap();
    sync(reader, laptop);
    assert_eq!(laptop.role_of(&reader.device()), Some(Role::Admin));
}
