//! A hostile writer that knows the formats: what it says of versions is held against what it had seen.

use crate::entry::{Mode, Version};
use crate::envelope::Cause;
use crate::error::{ChangeFault, EnvelopeFault};
use crate::id::EntryId;
use crate::lab::{content, create, listing, mesh};
use crate::member::Role;
use crate::register::{Attributes, Body, ContentRecord, Extensions, Packed, Put, Register};
use crate::replica::Replica;
use crate::replica::tests::{Forger, fault};

/// A file of the founder's, and somebody who has seen it or has not.
fn file() -> (Replica, EntryId, Version, Forger) {
    let replica = mesh(&[Role::Writer]).remove(0);
    let id = create(&replica, "a", 1, 1);
    let version = replica.entry(&id.into()).unwrap().unwrap().version;
    let forger = Forger::new(2, &replica);
    (replica, id, version, forger)
}

/// All that the replica has.
fn causes(replica: &Replica) -> Vec<Cause> {
    let shared = replica.shared();
    let all = shared.ends.iter().map(|(line, end)| Cause {
        author: line.author,
        seq: end.seq,
        hash: end.hash,
    });
    all.collect()
}

fn record(version: Version, number: u8, base: Vec<Version>) -> ContentRecord {
    let file = content(number);
    ContentRecord {
        version,
        base,
        copied: Vec::new(),
        origin: None,
        body: Body::File {
            content: file.content,
            mtime: file.mtime,
        },
        fence: None,
        extensions: Extensions::default(),
    }
}

fn put(id: EntryId, record: &ContentRecord) -> Put {
    Put {
        id,
        register: Register::Content,
        value: record.encode(),
    }
}

fn change_fault(replica: &Replica, envelope: &[u8]) -> ChangeFault {
    match fault(replica, envelope) {
        EnvelopeFault::Change { fault, .. } => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn replacing_in_advance_what_others_are_yet_to_write_is_refused() {
    let (replica, id, version, mut forger) = file();
    let later = Version {
        lamport: version.lamport + 50,
        ..version
    };
    let own = forger.version(version.lamport + 60);
    let causes = causes(&replica);
    let envelope = forger.say(put(id, &record(own, 6, vec![version, later])), |draft| {
        draft.causes = causes;
        draft.clock = own.lamport;
    });
    assert_eq!(change_fault(&replica, &envelope), ChangeFault::Unseen);
    assert_eq!(listing(&replica), ["a 1"]);
}

#[test]
fn replacing_what_was_not_seen_is_refused() {
    let (replica, id, version, mut forger) = file();
    let own = forger.version(version.lamport + 60);
    let envelope = forger.say(put(id, &record(own, 6, vec![version])), |draft| {
        draft.clock = own.lamport;
    });
    assert_eq!(change_fault(&replica, &envelope), ChangeFault::Unseen);
}

#[test]
fn a_version_of_another_device_is_refused() {
    let (replica, id, version, mut forger) = file();
    let causes = causes(&replica);
    let written = Version {
        lamport: version.lamport + 1,
        ..version
    };
    let attributes = Attributes::of_mode(written, Mode::new(0o777));
    let forged = Put {
        id,
        register: Register::Attributes,
        value: attributes.encode(),
    };
    let envelope = forger.say(forged, |draft| {
        draft.causes = causes;
        draft.clock = written.lamport;
    });
    assert_eq!(change_fault(&replica, &envelope), ChangeFault::Authorship);
}

#[test]
fn other_bytes_under_somebody_elses_version_are_refused() {
    for number in [1, 6] {
        let (replica, id, version, mut forger) = file();
        let causes = causes(&replica);
        // As settling says again what stays.
        let envelope = forger.say(put(id, &record(version, number, Vec::new())), |draft| {
            draft.causes = causes;
            draft.clock = version.lamport;
        });
        if number == 1 {
            replica.apply(&[&envelope]).unwrap();
        } else {
            assert_eq!(change_fault(&replica, &envelope), ChangeFault::Authorship);
        }
        assert_eq!(listing(&replica), ["a 1"]);
    }
}

#[test]
fn what_was_replaced_long_ago_can_only_be_said_again_as_it_was() {
    let (replica, id, version, mut forger) = file();
    for number in 2..9 {
        crate::lab::write(&replica, id, number);
    }
    let causes = causes(&replica);
    let envelope = forger.say(put(id, &record(version, 9, Vec::new())), |draft| {
        draft.causes = causes;
        draft.clock = version.lamport;
    });
    assert_eq!(change_fault(&replica, &envelope), ChangeFault::Authorship);
    assert_eq!(listing(&replica), ["a 8"]);
}
