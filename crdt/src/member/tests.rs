//! The membership log's promises: same set of records, same members, whatever the order.

mod ahead;
mod hostile;
mod void;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::record::later::{self, News};
use super::*;
use crate::id::{Author, DeviceKey, Incarnation};

const NOW: Timestamp = Timestamp(0);

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed([number; 32])
}

fn device(number: u8) -> DeviceId {
    key(number).device_id()
}

fn found() -> MemberLog {
    MemberLog::found(
        &key(1),
        "designs",
        "laptop",
        NOW,
        &mut ChaCha8Rng::seed_from_u64(1),
    )
}

fn admit(number: u8, role: Role) -> Action {
    Action::Admit {
        device: device(number),
        name: format!("device {number}"),
        role,
    }
}

fn revoke(number: u8) -> Action {
    Action::Revoke {
        device: device(number),
        cut: Vec::new(),
    }
}

impl MemberLog {
    fn add(&mut self, by: u8, action: Action) -> Record {
        let record = self.next(&key(by), NOW, action);
        self.insert(record.clone()).expect("the author may");
        record
    }

    /// The bytes of all that `other` has and this log lacks.
    fn beyond_of(&self, other: &Self) -> Vec<Vec<u8>> {
        let records = other.beyond(&self.told());
        records
            .into_iter()
            .map(|record| record.bytes.clone())
            .collect()
    }

    fn roles(&self) -> Vec<(DeviceId, Role)> {
        self.state()
            .members
            .values()
            .map(|m| (m.device, m.role))
            .collect()
    }
}

#[test]
fn a_log_survives_its_bytes() {
    let mut log = found();
    log.add(1, admit(2, Role::Admin));
    log.add(2, admit(3, Role::Reader));
    let bytes: Vec<Vec<u8>> = log.records().map(|record| record.bytes.clone()).collect();
    let again = MemberLog::from_records(bytes.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(again.mesh(), log.mesh());
    assert_eq!(again.roles(), log.roles());
    assert_eq!(again.heads(), log.heads());
}

#[test]
fn only_admins_extend_the_log() {
    let mut log = found();
    log.add(1, admit(2, Role::Writer));
    for stranger in [2, 9] {
        let record = log.next(&key(stranger), NOW, admit(3, Role::Admin));
        let refused = log.insert(record);
        assert_eq!(
            refused,
            Err(MemberFault::NotAdmin {
                author: device(stranger)
            })
        );
    }
}

#[test]
fn a_member_may_leave_by_itself() {
    let mut log = found();
    log.add(1, admit(2, Role::Writer));
    let during = log.heads();
    let left = log.leave(&key(2), NOW).expect("it is a member");
    assert_eq!(log.insert(left.clone()), Ok(true));
    assert_eq!(log.state().role_of(&device(2)), None);
    assert!(log.state().has_left(&device(2)));
    assert_eq!(log.insert(left), Ok(false));
    assert!(log.leave(&key(2), NOW).is_none());
    let author = Author {
        device: device(2),
        incarnation: Incarnation(1),
    };
    assert_eq!(
        log.judge(author, 1, &during),
        Verdict::Admit,
        "what it wrote stays"
    );
    log.add(1, admit(2, Role::Reader));
    assert_eq!(log.state().role_of(&device(2)), Some(Role::Reader));
}

#[test]
fn whoever_is_no_admin_makes_no_heads_and_leaves_once_for_each_admission() {
    let mut log = found();
    for number in 2..=100 {
        log.add(1, admit(number, Role::Reader));
    }
    let heads = log.heads();
    let admission = log.leave(&key(2), NOW).unwrap().parents;
    for at in 0..65 {
        let again = Record::sign(
            &key(2),
            Some(log.mesh()),
            admission.clone(),
            Timestamp(at),
            Action::Leave,
        );
        assert_eq!(log.insert(again), Ok(at == 0));
        let removal = Record::sign(&key(3), Some(log.mesh()), heads.clone(), NOW, revoke(3));
        let author = device(3);
        assert_eq!(log.insert(removal), Err(MemberFault::NotAdmin { author }));
    }
    for number in 3..=100 {
        let left = log.leave(&key(number), NOW).unwrap();
        log.insert(left).unwrap();
    }
    assert_eq!(log.heads(), heads);
    assert_eq!(log.leaves().count(), 99);
    assert_eq!(log.roles(), [(device(1), Role::Admin)]);
}

#[test]
fn a_second_beginning_is_refused_wherever_it_stands() {
    let mut log = found();
    log.add(1, admit(2, Role::Admin));
    let again = Action::Found {
        mesh_name: "designs".to_owned(),
        device_name: "mine".to_owned(),
        nonce: [1; 16],
    };
    let record = log.next(&key(2), NOW, again);
    assert_eq!(log.insert(record), Err(MemberFault::OtherMesh));
}

#[test]
fn any_admin_removes_any_other_for_good() {
    let mut log = found();
    log.add(1, admit(2, Role::Admin));
    let before = log.heads();
    log.add(2, revoke(1));
    assert_eq!(log.roles(), [(device(2), Role::Admin)]);
    // The lost founder's laptop pretends that it had done this earlier.
    for action in [admit(9, Role::Admin), admit(1, Role::Admin)] {
        let backdated = Record::sign(&key(1), Some(log.mesh()), before.clone(), NOW, action);
        log.insert(backdated)
            .expect("it was an admin where the record stands");
    }
    assert_eq!(log.roles(), [(device(2), Role::Admin)]);
    assert_eq!(log.heads().len(), 1, "what is void makes no heads");
}

#[test]
fn two_admins_who_remove_each_other_are_both_removed() {
    let mut base = found();
    base.add(1, admit(2, Role::Admin));
    base.add(1, admit(3, Role::Admin));
    let (mut one, mut two) = (base.clone(), base);
    let records = [
        one.add(1, revoke(2)),
        two.add(2, revoke(1)),
        two.add(2, revoke(3)),
        two.add(2, admit(4, Role::Admin)),
    ];
    for record in records {
        let _ = one.insert(record.clone()).unwrap();
        let _ = two.insert(record).unwrap();
    }
    assert_eq!(one.roles(), [(device(3), Role::Admin)]);
    assert_eq!(one.roles(), two.roles());
    assert_eq!(one.heads(), two.heads());
}

#[test]
fn whom_a_removed_admin_admitted_apart_is_shown_and_admitted_again() {
    let mut base = found();
    base.add(1, admit(2, Role::Admin));
    let mut apart = base.clone();
    let admission = apart.add(2, admit(3, Role::Writer));
    let cited = apart.heads();
    base.add(1, revoke(2));
    base.insert(admission).unwrap();
    assert_eq!(base.roles(), [(device(1), Role::Admin)]);
    let author = Author {
        device: device(3),
        incarnation: Incarnation(1),
    };
    assert_eq!(base.judge(author, 1, &cited), Verdict::BeyondCut);
    let stranded: Vec<_> = base.state().stranded.keys().copied().collect();
    assert_eq!(stranded, [device(3)]);
    base.add(1, admit(3, Role::Writer));
    assert_eq!(base.state().role_of(&device(3)), Some(Role::Writer));
    assert!(base.state().stranded.is_empty());
}

#[test]
fn a_member_that_writes_no_longer_is_cut_and_one_that_is_no_admin_extends_nothing() {
    let mut log = found();
    log.add(1, admit(2, Role::Admin));
    let before = log.heads();
    let life = Incarnation(7);
    log.add(
        1,
        Action::SetRole {
            device: device(2),
            role: Role::Reader,
            cut: vec![(life, 3)],
        },
    );
    assert_eq!(log.state().role_of(&device(2)), Some(Role::Reader));
    let author = Author {
        device: device(2),
        incarnation: life,
    };
    assert_eq!(log.judge(author, 3, &before), Verdict::Admit);
    assert_eq!(log.judge(author, 4, &before), Verdict::BeyondCut);
    assert_eq!(log.judge(author, 4, &log.heads()), Verdict::NotWriter);
    let backdated = Record::sign(
        &key(2),
        Some(log.mesh()),
        before,
        NOW,
        admit(9, Role::Admin),
    );
    log.insert(backdated).unwrap();
    assert_eq!(log.state().role_of(&device(9)), None);
    let record = log.next(&key(2), NOW, admit(9, Role::Admin));
    let author = device(2);
    assert_eq!(log.insert(record), Err(MemberFault::NotAdmin { author }));
}

#[test]
fn the_recovery_key_outranks_all_and_only_itself_replaces_it() {
    let mut log = found();
    log.add(1, admit(2, Role::Admin));
    log.add(1, Action::Recovery { key: device(50) });
    let taken_over = log.next(&key(2), NOW, Action::Recovery { key: device(51) });
    let author = device(2);
    assert_eq!(
        log.insert(taken_over),
        Err(MemberFault::NotAdmin { author })
    );
    let before = log.heads();
    log.add(2, revoke(1));
    log.add(50, revoke(2));
    log.add(50, admit(1, Role::Admin));
    // No removal reaches what the recovery key signed, whatever it pretends to know.
    let late = Record::sign(&key(2), Some(log.mesh()), before, NOW, revoke(50));
    log.insert(late).unwrap();
    assert_eq!(log.roles(), [(device(1), Role::Admin)]);
    log.add(50, Action::Recovery { key: device(52) });
    let record = log.next(&key(50), NOW, revoke(1));
    assert!(log.insert(record).is_err(), "it has replaced itself");
    log.add(52, admit(4, Role::Admin));
    assert_eq!(log.roles().len(), 2);
}

#[test]
fn whom_the_recovery_key_made_admin_other_admins_do_not_change() {
    let mut log = found();
    log.add(1, admit(2, Role::Admin));
    log.add(1, admit(3, Role::Writer));
    log.add(1, Action::Recovery { key: device(50) });
    let before = log.heads();
    let set = |number, role| Action::SetRole {
        device: device(number),
        role,
        cut: Vec::new(),
    };
    log.add(50, set(3, Role::Admin));
    assert!(log.state().outranks(&device(3), &device(2)));
    for action in [revoke(3), set(3, Role::Reader), admit(3, Role::Reader)] {
        let record = log.next(&key(2), NOW, action);
        let author = device(2);
        assert_eq!(log.insert(record), Err(MemberFault::NotAdmin { author }));
    }
    // Nor by a record that was written, or pretends to be, apart from that.
    let apart = Record::sign(&key(2), Some(log.mesh()), before, NOW, set(3, Role::Reader));
    log.insert(apart).unwrap();
    assert_eq!(log.state().role_of(&device(3)), Some(Role::Admin));
    // It may change the others and go itself, and another one that was made admin so may change it.
    log.add(3, revoke(2));
    log.add(50, admit(4, Role::Admin));
    log.add(4, revoke(3));
    assert_eq!(log.state().role_of(&device(3)), None);
    log.add(4, set(1, Role::Reader));
    assert_eq!(log.state().role_of(&device(1)), Some(Role::Reader));
    let bytes: Vec<Vec<u8>> = log.records().map(|record| record.bytes.clone()).collect();
    let again = MemberLog::from_records(bytes.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(again.roles(), log.roles());
}

#[test]
fn what_only_a_later_version_understands_is_kept_and_passed_on_and_is_nobodys_fault() {
    for news in [News::Format, News::Action, News::Role, News::Extension] {
        let mut log = found();
        log.add(1, admit(2, Role::Writer));
        let bytes = later::sign(&key(1), log.mesh(), log.heads(), device(9), news);
        let record = Record::decode(&bytes).unwrap();
        assert_eq!(log.insert(record.clone()), Ok(true), "{news:?}");
        assert_eq!(log.heads(), [record.hash]);
        let understood = matches!(news, News::Extension);
        assert_eq!(log.state().unknown, usize::from(!understood));
        assert_eq!(log.state().role_of(&device(9)).is_some(), understood);
        log.add(1, admit(3, Role::Writer));
        let passed_on = found().beyond_of(&log);
        assert!(passed_on.contains(&bytes), "untouched");

        // Only admins may hand in such a thing ...
        let bytes = later::sign(&key(2), log.mesh(), log.heads(), device(9), news);
        let refused = log.insert(Record::decode(&bytes).unwrap());
        let author = device(2);
        if understood {
            assert_eq!(refused, Err(MemberFault::NotAdmin { author }));
        } else {
            // ... and whoever one of them is about may be one, too, as far as can be told.
            assert_eq!(refused, Err(MemberFault::Unreadable { author }));
            let cited = log.heads();
            let author = Author {
                device: device(9),
                incarnation: Incarnation(1),
            };
            assert_eq!(log.judge(author, 1, &cited), Verdict::UnknownHeads);
        }
    }
}

#[test]
fn a_device_name_that_is_taken_gets_a_number() {
    let mut log = found();
    assert_eq!(free_name(log.state(), "tablet"), "tablet");
    assert_eq!(free_name(log.state(), "laptop"), "laptop (2)");
    let name = "laptop (2)".to_owned();
    let device = device(2);
    let role = Role::Reader;
    log.add(1, Action::Admit { device, name, role });
    assert_eq!(free_name(log.state(), "laptop"), "laptop (3)");
    let long = "é".repeat(64);
    let (name, device) = (long.clone(), self::device(3));
    log.add(1, Action::Admit { device, name, role });
    assert!(label_fits(&free_name(log.state(), &long)));
}

#[test]
fn a_forged_or_foreign_record_is_refused() {
    let log = found();
    let mut bytes = log.next(&key(1), NOW, admit(2, Role::Admin)).bytes;
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(
        Record::decode(&bytes),
        Err(MemberFault::BadSignature { .. } | MemberFault::Malformed)
    ));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut other = MemberLog::found(&key(1), "other", "laptop", NOW, &mut rng);
    let record = log.next(&key(1), NOW, admit(2, Role::Admin));
    assert_eq!(other.insert(record), Err(MemberFault::OtherMesh));
}

#[test]
fn records_added_apart_by_two_admins_all_count() {
    let mut base = found();
    base.add(1, admit(2, Role::Admin));
    let (mut one, mut two) = (base.clone(), base);
    let a = one.add(1, admit(3, Role::Writer));
    let b = two.add(2, admit(4, Role::Reader));
    one.insert(b).unwrap();
    two.insert(a).unwrap();
    assert_eq!(one.roles(), two.roles());
    assert_eq!(one.roles().len(), 4);
    let next = one.add(1, admit(5, Role::Seed));
    assert_eq!(next.parents.len(), 2);
}

#[test]
fn an_envelope_counts_by_the_membership_it_names_and_by_the_cut() {
    let mut log = found();
    let before = log.heads();
    log.add(1, admit(2, Role::Writer));
    log.add(1, admit(3, Role::Reader));
    let during = log.heads();
    let life = Incarnation(7);
    let of = |number| Author {
        device: device(number),
        incarnation: life,
    };
    assert_eq!(log.judge(of(2), 1, &before), Verdict::NotWriter);
    assert_eq!(log.judge(of(2), 1, &during), Verdict::Admit);
    assert_eq!(log.judge(of(3), 1, &during), Verdict::NotWriter);
    assert_eq!(
        log.judge(of(2), 1, &[Hash::from_bytes([9; 32])]),
        Verdict::UnknownHeads
    );
    assert_eq!(log.judge(of(2), 1, &[]), Verdict::UnknownHeads);

    log.add(
        1,
        Action::Revoke {
            device: device(2),
            cut: vec![(life, 5)],
        },
    );
    assert_eq!(log.judge(of(2), 5, &during), Verdict::Admit);
    assert_eq!(log.judge(of(2), 6, &during), Verdict::BeyondCut);
    assert_eq!(log.judge(of(2), 6, &log.heads()), Verdict::NotWriter);

    log.add(1, admit(2, Role::Writer));
    assert_eq!(log.judge(of(2), 6, &log.heads()), Verdict::Admit);
    assert_eq!(log.judge(of(2), 6, &during), Verdict::BeyondCut);
}
