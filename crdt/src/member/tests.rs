//! The membership log's promises: same set of records, same members, whatever the order.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

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

    fn roles(&self) -> Vec<(DeviceId, Role)> {
        self.state
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
    log.add(2, revoke(2));
    assert_eq!(log.state().role_of(&device(2)), None);
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
fn when_two_admins_remove_each_other_the_senior_one_stays_everywhere() {
    let mut base = found();
    base.add(1, admit(2, Role::Admin));
    base.add(1, admit(3, Role::Writer));
    let (mut one, mut two) = (base.clone(), base.clone());
    let by_senior = one.add(1, revoke(2));
    let by_junior = two.add(2, revoke(1));
    let also_by_junior = two.add(2, admit(4, Role::Admin));
    one.insert(by_junior).unwrap();
    one.insert(also_by_junior).unwrap();
    two.insert(by_senior).unwrap();
    assert_eq!(one.roles(), two.roles());
    assert_eq!(one.heads(), two.heads());
    assert_eq!(one.state().role_of(&device(1)), Some(Role::Admin));
    assert_eq!(one.state().role_of(&device(2)), None);
    assert_eq!(one.state().role_of(&device(4)), None);
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
