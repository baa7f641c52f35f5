//! Random logs with hostile authors: what one honest device took every other takes, in messages, and all see the same.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::log::Quota;
use super::*;
use crate::limit::{MAX_AUTHOR_RECORDS, MAX_MEMBER_HEADS, MAX_TOLD_HEADS};

/// Hands `to` all that `from` has to tell, until there is nothing more. Nothing of it may be blamed.
fn tell(from: &MemberLog, to: &mut MemberLog) {
    for _ in 0..4 {
        let told = to.told();
        assert!(told.heads.len() <= MAX_TOLD_HEADS);
        let records: Vec<Record> = from.beyond(&told).into_iter().cloned().collect();
        for record in records {
            let again = Record::decode(&record.bytes).unwrap();
            match to.insert(again) {
                Ok(_) | Err(MemberFault::MissingParent { .. } | MemberFault::Unreadable { .. }) => {
                }
                Err(fault) => panic!("{fault}"),
            }
        }
    }
}

fn random_action(rng: &mut ChaCha8Rng) -> Action {
    let device = device(rng.random_range(1..8));
    let roles = [Role::Admin, Role::Admin, Role::Writer, Role::Reader];
    let role = *roles.choose(rng).unwrap();
    let cut = Vec::new();
    match rng.random_range(0..12) {
        0..5 => Action::Admit {
            device,
            name: "some device".to_owned(),
            role,
        },
        5..9 => Action::Revoke { device, cut },
        9..11 => Action::SetRole { device, role, cut },
        _ => Action::Recovery {
            key: self::device(*[2, 20, 21].choose(rng).unwrap()),
        },
    }
}

/// Has somebody sign something, somewhere: on top of all that the log has, or pretending to know less.
fn random_record(log: &MemberLog, rng: &mut ChaCha8Rng) -> Record {
    let all: Vec<Hash> = log.records().map(|record| record.hash).collect();
    let mut parents = match rng.random_range(0..3) {
        0 => log.heads(),
        _ => {
            let count = rng.random_range(1..3);
            all.sample(rng, count).copied().collect()
        }
    };
    parents.sort_unstable();
    parents.truncate(MAX_MEMBER_HEADS);
    let author = if rng.random_range(0..12) == 0 {
        20
    } else {
        rng.random_range(1..8)
    };
    let key = key(author);
    if rng.random_range(0..15) == 0 {
        let news = [News::Action, News::Format, News::Role];
        let news = *news.choose(rng).unwrap();
        let bytes = later::sign(&key, log.mesh(), parents, device(3), news);
        return Record::decode(&bytes).unwrap();
    }
    if rng.random_range(0..8) == 0
        && let Some(left) = log.leave(&key, NOW)
    {
        return left;
    }
    Record::sign(&key, Some(log.mesh()), parents, NOW, random_action(rng))
}

fn assert_same(logs: &[MemberLog], seed: u64) {
    for log in logs {
        assert_eq!(log.told(), logs[0].told(), "seed {seed}");
        assert_eq!(log.state().members, logs[0].state().members, "seed {seed}");
        assert_eq!(
            log.state().recovery,
            logs[0].state().recovery,
            "seed {seed}"
        );
        let records = log.records().map(|record| record.bytes.as_slice());
        let leaves = log.leaves().map(|(_, record)| record.bytes.as_slice());
        let again = MemberLog::from_records(records.chain(leaves)).unwrap();
        assert_eq!(again.told(), log.told(), "read again, seed {seed}");
        assert_eq!(again.state().members, log.state().members, "seed {seed}");
    }
    // And what they judge by it.
    for cited in logs[0].records().map(|record| record.hash) {
        for number in 1..8 {
            let author = Author {
                device: device(number),
                incarnation: Incarnation(1),
            };
            let verdict = logs[0].judge(author, 1, &[cited]);
            for log in logs.iter().filter(|log| log.knows_all(&[cited])) {
                assert_eq!(log.judge(author, 1, &[cited]), verdict, "seed {seed}");
            }
        }
    }
}

/// Whatever hostile admins, members and strangers sign, and wherever: devices that met end alike.
#[test]
fn whatever_is_signed_every_device_takes_it_in_any_order_and_sees_the_same() {
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut logs = vec![found(); 4];
        for _ in 0..60 {
            let at = rng.random_range(0..logs.len());
            let record = random_record(&logs[at], &mut rng);
            // What an honest device refuses goes nowhere.
            let _ = logs[at].insert(record);
            if rng.random_range(0..4) == 0 {
                let from = logs.choose(&mut rng).unwrap().clone();
                tell(&from, &mut logs[at]);
            }
        }
        for _ in 0..2 {
            for from in 0..logs.len() {
                for to in 0..logs.len() {
                    let from = logs[from].clone();
                    tell(&from, &mut logs[to]);
                }
            }
        }
        assert_same(&logs, seed);
        // The same records in another order.
        let mut records: Vec<Record> = logs[0].records().skip(1).cloned().collect();
        records.extend(logs[0].leaves().map(|(_, record)| record.clone()));
        records.shuffle(&mut rng);
        let mut other = found();
        while !records.is_empty() {
            let before = records.len();
            records.retain(|record| match other.insert(record.clone()) {
                Ok(_) => false,
                Err(MemberFault::MissingParent { .. }) => true,
                Err(fault) => panic!("seed {seed}: {fault}"),
            });
            assert!(records.len() < before, "seed {seed}");
        }
        assert_same(&[logs[0].clone(), other], seed);
    }
}

/// One admin signs without end, each device is shown another part of it, and nobody else is held up: the others
/// go on, understand one another, and agree once it is removed.
#[test]
fn an_admin_that_signs_without_end_stops_nobody_else() {
    let quota = Quota {
        records: 200,
        bytes: 1 << 20,
    };
    let mut base = found().with_quota(quota);
    base.add(1, admit(2, Role::Admin));
    base.add(1, admit(3, Role::Admin));
    let early = base.heads();
    let flood = |from: u8, log: &mut MemberLog| {
        for number in 0..250_u16 {
            let action = Action::Admit {
                device: DeviceId::from_bytes([from; 32]),
                name: format!("{number}"),
                role: Role::Reader,
            };
            let record = Record::sign(&key(2), Some(log.mesh()), early.clone(), NOW, action);
            log.insert(record).unwrap();
        }
    };
    let (mut one, mut three) = (base.clone(), base);
    flood(100, &mut one);
    flood(200, &mut three);
    assert!(one.heads().len() > MAX_MEMBER_HEADS);
    for (log, by) in [(&mut one, 1), (&mut three, 3)] {
        let record = log.add(by, admit(by + 10, Role::Writer));
        assert!(record.parents.len() <= MAX_MEMBER_HEADS);
        let author = Author {
            device: device(by + 10),
            incarnation: Incarnation(1),
        };
        let cited = log.cited(&author.device);
        assert!(cited.len() <= MAX_MEMBER_HEADS);
        assert_eq!(log.judge(author, 1, &cited), Verdict::Admit);
    }
    tell(&one.clone(), &mut three);
    tell(&three.clone(), &mut one);
    for log in [&one, &three] {
        assert_eq!(log.state().role_of(&device(11)), Some(Role::Writer));
        assert_eq!(log.state().role_of(&device(13)), Some(Role::Writer));
    }
    while one.state().role_of(&device(2)).is_some() || one.heads().len() > 1 {
        one.add(1, revoke(2));
    }
    tell(&one.clone(), &mut three);
    tell(&three.clone(), &mut one);
    // Of what does not count each keeps what it came upon first.
    assert_eq!(one.heads(), three.heads());
    assert_eq!(one.told().leaves, three.told().leaves);
    assert_eq!(one.roles(), three.roles());
}

/// A long log is added to, read and judged at a cost that does not grow with its length.
#[test]
fn a_long_log_takes_no_more_for_each_record_than_a_short_one() {
    let mut log = found();
    for number in 0..4000_u32 {
        let device = DeviceId::from_bytes([7; 32]);
        let action = match number % 2 {
            0 => Action::Admit {
                device,
                name: "comes and goes".to_owned(),
                role: Role::Reader,
            },
            _ => Action::Revoke {
                device,
                cut: Vec::new(),
            },
        };
        log.add(1, action);
    }
    assert_eq!(log.heads().len(), 1);
    assert!(log.longest_past() <= 1, "words of a past beside its length");
    let records: Vec<Vec<u8>> = log.records().map(|record| record.bytes.clone()).collect();
    assert!(records.len() < MAX_AUTHOR_RECORDS);
    let again = MemberLog::from_records(records.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(again.told(), log.told());
}
