//! Who sends what is missing cannot forge it, nor pass over anything.

use super::*;
use crate::id::EntryId;
use crate::lab::{Disk, Link, NOW, create, key, listing, mesh, rng, write};
use crate::log::Scan;
use crate::member::Role;

/// A founder who wrote a file often, a new device with a snapshot of it, and the founder's log.
fn new_device() -> (Replica, Replica, Disk, Vec<Vec<u8>>) {
    let founder = mesh(&[Role::Writer]).remove(0);
    let id = create(&founder, "plan", 1, 1);
    (2..9).for_each(|number| write(&founder, id, number));
    let key = key(9);
    founder
        .admit(key.device_id(), "new", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let new = Replica::join(disk.database(), &founder.welcome(), key, &mut rng(9)).unwrap();
    let mut link = Link::with_snapshots(&founder, &new, 7);
    while new.is_new() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }
    let mut all = Vec::new();
    log::scan(&founder.read().unwrap(), 0, |_, _, _, fetch| {
        all.push(fetch.bytes()?);
        Ok(Scan::Taken)
    })
    .unwrap();
    assert_eq!(all.len(), 8);
    assert_eq!(listing(&new), ["plan 8"]);
    (founder, new, disk, all)
}

fn have(replica: &Replica) -> Option<u64> {
    let shared = replica.shared();
    let hole = shared.gap()?.holes.values().next()?;
    Some(hole.have.seq)
}

#[test]
fn what_is_missing_is_taken_in_order_and_only_once() {
    let (founder, new, _disk, log) = new_device();
    // The first is alive, so it is here.
    assert!(new.take_below(&[]).unwrap());
    assert_eq!(have(&new), Some(1));
    assert!(
        !new.take_below(&[&log[2], &log[3]]).unwrap(),
        "the second is missing"
    );
    assert!(
        new.take_below(&[&log[0], &log[1], &log[0], &log[3]])
            .unwrap()
    );
    assert_eq!(have(&new), Some(2));
    assert!(!new.take_below(&[&log[1]]).unwrap());
    let rest: Vec<&[u8]> = log[2..].iter().map(Vec::as_slice).collect();
    assert!(new.take_below(&rest).unwrap());
    assert_eq!(have(&new), None);
    assert_eq!(new.digest().unwrap(), founder.digest().unwrap());
    assert!(!new.take_below(&rest).unwrap());
}

#[test]
fn a_forged_envelope_is_refused_and_what_came_before_it_is_kept() {
    let (_, new, _disk, log) = new_device();
    let mut forged = log[1].clone();
    let at = forged.len() - 40;
    forged[at] ^= 1;
    let refused = new.take_below(&[&log[0], &forged, &log[1]]).unwrap_err();
    assert!(refused.is_peer_fault());
    assert_eq!(have(&new), Some(1));
    assert!(new.take_below(&[b"garbage"]).unwrap_err().is_peer_fault());
    assert_eq!(listing(&new), ["plan 8"]);
}

#[test]
fn how_far_the_logs_are_complete_survives_a_crash() {
    let (founder, new, disk, log) = new_device();
    assert!(new.take_below(&[&log[0], &log[1]]).unwrap());
    new.flush().unwrap();
    assert!(new.take_below(&[&log[2], &log[3]]).unwrap());
    // Before closing the database writes anything.
    let disk = disk.crash();
    drop(new);
    let new = Replica::open(disk.database(), key(9)).unwrap();
    assert_eq!(have(&new), Some(2), "the rest was not flushed");
    create(&new, "mine", 7, 70);
    Link::with_snapshots(&founder, &new, 7).run().unwrap();
    assert_eq!(have(&new), None);
    assert_eq!(listing(&founder), ["mine 7", "plan 8"]);
    assert_eq!(new.digest().unwrap(), founder.digest().unwrap());
}

#[test]
fn a_snapshot_cut_off_by_a_crash_leaves_nothing() {
    let (founder, _, _, _) = new_device();
    let device = key(10);
    founder
        .admit(device.device_id(), "newer", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let new = Replica::join(disk.database(), &founder.welcome(), device, &mut rng(9)).unwrap();
    let mut link = Link::with_snapshots(&founder, &new, 7);
    while !new.is_staging() {
        for end in [0, 1] {
            link.deliver(end).unwrap();
            link.poll(end).unwrap();
        }
    }
    link.deliver(1).unwrap();
    new.flush().unwrap();
    let disk = disk.crash();
    assert!(stage::is_littered(&new.read().unwrap()).unwrap());
    let again = Replica::open(disk.database(), key(10)).unwrap();
    assert!(!stage::is_littered(&again.read().unwrap()).unwrap());
    assert!(again.is_new() && again.children(EntryId::ROOT).unwrap().is_empty());
    Link::with_snapshots(&founder, &again, 7).run().unwrap();
    assert_eq!(again.digest().unwrap(), founder.digest().unwrap());
}
