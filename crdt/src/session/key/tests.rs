//! Who gets which epoch's secret, and what is sent before that: nothing.

use crate::epoch::EpochSecret;
use crate::epoch::keys;
use crate::error::{EditError, SessionError};
use crate::id::{DeviceId, DeviceKey, EntryId, EpochId};
use crate::lab::{Disk, Link, NOW, create, creation, key, listing, mesh, mesh_on, rng, sync};
use crate::member::Role;
use crate::replica::Replica;
use crate::session::Session;
use crate::session::wire::Wire;

fn known(replica: &Replica) -> Vec<EpochId> {
    replica
        .epoch_secrets()
        .iter()
        .map(EpochSecret::id)
        .collect()
}

fn current(replica: &Replica) -> EpochId {
    known(replica)[0]
}

/// Runs a link, and drops what one end says of keys.
fn run_without_keys(link: &mut Link) -> Result<(), SessionError> {
    loop {
        let mut busy = false;
        for end in [0, 1] {
            link.queues[end]
                .retain(|message| !matches!(Wire::decode(message.as_bytes()), Ok(Wire::Keys(_))));
            busy |= link.deliver(end)?;
            busy |= link.poll(end)?;
        }
        if !busy {
            return Ok(());
        }
    }
}

#[test]
fn who_is_removed_cannot_read_what_is_sealed_afterwards() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let [admin, removed, stays] = [0, 1, 2].map(|at| &replicas[at]);
    let first = current(admin);
    admin.revoke(removed.device(), NOW).unwrap();
    assert_ne!(current(admin), first);
    assert!(!admin.needs_rotation());
    create(admin, "plan", 1, 1);
    sync(admin, stays);
    create(stays, "answer", 2, 2);
    sync(admin, stays);
    for replica in [admin, stays] {
        assert_eq!(listing(replica), ["answer 2", "plan 1"]);
        assert_eq!(known(replica).len(), 2);
        assert_eq!(current(replica), current(admin));
    }
    let author = admin.shared().author;
    let sealed = admin.sealed_envelope(author, 1).unwrap().unwrap();
    assert!(stays.open_sealed(&sealed).is_ok());
    assert!(removed.open_sealed(&sealed).is_err());
    Link::new(admin, removed, 1).run().unwrap_err();
    Link::new(stays, removed, 1).run().unwrap_err();
    assert_eq!(known(removed), [first]);
}

#[test]
fn who_was_away_over_many_rotations_comes_back_with_an_old_secret_by_any_member() {
    let disks: Vec<Disk> = (0..6).map(|_| Disk::default()).collect();
    let replicas = mesh_on(
        &disks,
        &[
            Role::Reader,
            Role::Writer,
            Role::Writer,
            Role::Seed,
            Role::Writer,
        ],
    );
    let (admin, colleague, away) = (&replicas[0], &replicas[1], &replicas[5]);
    for (round, removed) in (0..).zip(&replicas[2..5]) {
        create(admin, &format!("f{round}"), round, u64::from(round));
        admin.revoke(removed.device(), NOW).unwrap();
        sync(admin, colleague);
    }
    create(admin, "last", 9, 9);
    sync(admin, colleague);
    sync(colleague, away);
    assert_eq!(listing(away), listing(admin));
    assert_eq!(known(away).len(), 4);
    assert_eq!(current(away), current(admin));
    // And after a restart, for those who come later.
    let again = Replica::open(disks[5].crash().database(), key(6)).unwrap();
    assert_eq!(current(&again), current(admin));
    create(&again, "back", 7, 7);
    let newcomer = key(9);
    admin
        .admit(newcomer.device_id(), "new", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let newcomer = Replica::join(disk.database(), &admin.welcome(), newcomer, &mut rng(9)).unwrap();
    sync(admin, &newcomer);
    sync(&again, &newcomer);
    assert_eq!(listing(&newcomer).len(), 5);
    assert_eq!(current(&newcomer), current(admin));
}

#[test]
fn who_is_admitted_apart_from_a_rotation_is_handed_the_secret_by_who_has_it() {
    let replicas = mesh(&[Role::Admin, Role::Reader, Role::Writer]);
    let [one, two, reader, removed] = [0, 1, 2, 3].map(|at| &replicas[at]);
    let newcomer = key(9);
    two.admit(newcomer.device_id(), "new", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let newcomer = Replica::join(disk.database(), &two.welcome(), newcomer, &mut rng(9)).unwrap();
    one.revoke(removed.device(), NOW).unwrap();
    create(one, "plan", 1, 1);
    sync(one, reader);
    // The reader learns of the newcomer from the newcomer itself, and is no admin.
    sync(reader, &newcomer);
    assert_eq!(listing(&newcomer), ["plan 1"]);
    assert_eq!(current(&newcomer), current(one));
    assert!(!one.needs_rotation());
}

#[test]
fn rotations_made_apart_stay_readable_and_the_next_one_is_known_to_nobody_who_went() {
    let replicas = mesh(&[Role::Admin, Role::Writer, Role::Writer, Role::Reader]);
    let [one, two, x, y, reader] = [0, 1, 2, 3, 4].map(|at| &replicas[at]);
    one.revoke(x.device(), NOW).unwrap();
    two.revoke(y.device(), NOW).unwrap();
    create(one, "by one", 1, 1);
    create(two, "by two", 2, 2);
    sync(one, reader);
    sync(two, reader);
    sync(one, two);
    sync(one, reader);
    for replica in [one, two, reader] {
        assert_eq!(listing(replica), ["by one 1", "by two 2"]);
        assert_eq!(known(replica).len(), 3);
        assert_eq!(current(replica), current(one));
    }
    // Each of the two was given the secret that was made for the removal of the other.
    assert!(one.needs_rotation());
    assert!(!reader.rotate_if_needed(NOW).unwrap(), "only admins do");
    assert!(two.rotate_if_needed(NOW).unwrap());
    sync(one, two);
    sync(one, reader);
    for replica in [one, two, reader] {
        assert_eq!(known(replica).len(), 4);
        assert_eq!(current(replica), current(two));
        assert!(!replica.needs_rotation());
    }
}

#[test]
fn who_leaves_makes_the_next_admin_rotate() {
    let replicas = mesh(&[Role::Writer, Role::Admin, Role::Reader]);
    let [admin, writer, other, reader] = [0, 1, 2, 3].map(|at| &replicas[at]);
    for leaver in [writer, other] {
        let before = current(admin);
        let mut link = Link::new(admin, leaver, 3);
        link.run().unwrap();
        leaver.leave(NOW).unwrap();
        assert_eq!(current(leaver), before, "who goes makes none");
        link.run().unwrap_or(());
        assert!(admin.needs_rotation());
        assert!(admin.rotate_if_needed(NOW).unwrap());
        assert!(!admin.needs_rotation());
        assert_ne!(current(admin), before);
    }
    create(admin, "plan", 1, 1);
    sync(admin, reader);
    assert_eq!(listing(reader), ["plan 1"]);
    // Let in again, a device is given what it needs by the invite, and nothing is due.
    let device = writer.device();
    admin.admit(device, "again", Role::Writer, NOW).unwrap();
    assert!(!admin.needs_rotation());
    admin.revoke(device, NOW).unwrap();
    assert!(!admin.needs_rotation());
}

#[test]
fn until_a_member_has_proved_the_current_epoch_it_gets_records_and_nothing_else() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let [admin, removed, away] = [0, 1, 2].map(|at| &replicas[at]);
    create(admin, "before", 1, 1);
    admin.revoke(removed.device(), NOW).unwrap();
    create(admin, "after", 2, 2);
    let mut link = Link::new(admin, away, 1);
    run_without_keys(&mut link).unwrap();
    assert_eq!(away.members().len(), 2, "it is told of the removal");
    assert!(listing(away).is_empty());
    assert!(!link.ends.iter().any(Session::in_sync));
    sync(admin, away);
    assert_eq!(listing(away).len(), 2);
}

#[test]
fn a_device_that_is_no_member_hears_nothing_of_epochs() {
    let replicas = mesh(&[Role::Writer]);
    let [admin, removed] = [&replicas[0], &replicas[1]];
    admin.revoke(removed.device(), NOW).unwrap();
    let mut link = Link::new(admin, removed, 1);
    loop {
        for message in &link.queues[1] {
            let wire = Wire::decode(message.as_bytes()).unwrap();
            assert!(!matches!(wire, Wire::Epochs(_) | Wire::Keys(_)), "{wire:?}");
        }
        let step = link.deliver(0).and_then(|_| link.deliver(1));
        if step.and_then(|_| link.poll(0)).is_err() {
            return;
        }
        link.poll(1).unwrap();
    }
}

#[test]
fn a_secret_that_no_record_names_is_not_taken_and_who_sends_it_is_not_to_blame() {
    let replicas = mesh(&[Role::Writer]);
    let device = replicas[1].device();
    let own = EpochSecret::from_bytes([9; 32]);
    let list = keys::seal(&own, [device]);
    assert!(!replicas[1].take_keys(&[&list]).unwrap());
    assert_eq!(known(&replicas[1]).len(), 1);
    assert!(replicas[1].take_keys(&[&list[..60]]).is_err());
}

#[test]
fn what_the_list_of_a_rotation_has_no_room_for_is_handed_over_all_the_same() {
    let replicas = mesh(&[Role::Writer, Role::Writer]);
    let [admin, removed, stays] = [0, 1, 2].map(|at| &replicas[at]);
    admin.revoke(removed.device(), NOW).unwrap();
    let secret = admin.epoch_secrets()[0].clone();
    let kept = admin.keys_for(&secret, &stays.device()).unwrap();
    assert!(
        admin.shared().members.keeps(&kept),
        "the list that the record names"
    );
    let latecomer = key(50).device_id();
    let made = admin.keys_for(&secret, &latecomer).unwrap();
    assert!(!admin.shared().members.keeps(&made));
    let opened = keys::KeyList::read(&made).unwrap().open(&key(50));
    assert_eq!(opened, Some(secret));
    let many = (0..keys::MAX_ENTRIES + 7).map(|number| {
        let seed = *blake3::hash(&number.to_be_bytes()).as_bytes();
        DeviceKey::from_seed(seed).device_id()
    });
    let many: Vec<DeviceId> = many.collect();
    let list = keys::seal(&EpochSecret::from_bytes([3; 32]), many);
    assert!(list.len() <= crate::limit::MAX_KEYS_BYTES);
    assert!(keys::KeyList::read(&list).is_some());
}

#[test]
fn a_device_below_the_least_format_goes_on_receiving_and_does_not_write() {
    let replicas = mesh(&[Role::Writer]);
    let [admin, writer] = [&replicas[0], &replicas[1]];
    create(admin, "before", 1, 1);
    admin.set_retention(30, NOW).unwrap();
    admin.require_format(u16::MAX, NOW).unwrap();
    sync(admin, writer);
    for replica in [admin, writer] {
        assert!(replica.needs_update());
        assert_eq!(replica.retention_days(), Some(30));
        assert_eq!(listing(replica), ["before 1"]);
        let id = replica.fresh_id(EntryId::ROOT, &mut rng(4)).unwrap();
        let edit = creation(id, EntryId::ROOT, "new", 4);
        let refused = replica.edit(&[edit], NOW);
        assert!(
            matches!(refused, Err(EditError::NeedsUpdate)),
            "{refused:?}"
        );
    }
}
