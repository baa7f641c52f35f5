//! The registers against Automerge: whatever three authors write and in whatever causal order it
//! reaches them, each register shows the values that Automerge documents show for the same writes.
//!
//! The oracle makes its own changes, with Automerge's own dependencies and numbers.

use std::collections::BTreeMap;

use automerge::transaction::Transactable;
use automerge::{ActorId, Automerge, Change, ReadDoc};
use proptest::prelude::*;

use super::desk::Desk;
use super::key::RegisterKey;
use super::tests::{BUCKET, author, put, register};
use crate::id::Author;

const AUTHORS: usize = 3;
const KEYS: u8 = 4;

/// What happens next, by the numbers of replicas.
#[derive(Debug, Clone)]
enum Event {
    /// One replica writes these registers in one change.
    Write { at: usize, keys: Vec<u8> },
    /// One sends another some of what that lacks, in the order in which it came.
    Send { from: usize, to: usize, most: usize },
}

#[derive(Clone)]
struct Sent {
    author: usize,
    seq: u64,
    deps: Vec<(Author, u64)>,
    bytes: Vec<u8>,
    own: Change,
}

struct Replica {
    desk: Desk,
    own: Automerge,
    arrived: Vec<Sent>,
    seen: BTreeMap<usize, u64>,
}

impl Replica {
    fn new(number: usize) -> Self {
        let mut own = Automerge::new();
        own.set_actor(ActorId::from(writer(number).actor().as_slice()));
        Self {
            desk: Desk::new(),
            own,
            arrived: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    fn write(&mut self, number: usize, keys: &[u8], stamp: &mut u64) {
        let seq = self.seen.get(&number).copied().unwrap_or(0) + 1;
        let mut puts = BTreeMap::new();
        for key in keys {
            *stamp += 1;
            puts.insert(*key, put(*key, *stamp));
        }
        let puts: Vec<_> = puts.into_values().collect();
        let deps = self.seen.iter().filter(|(author, _)| **author != number);
        let deps: Vec<_> = deps.map(|(author, seq)| (writer(*author), *seq)).collect();
        let bytes = self
            .desk
            .write_having_seen(&writer(number), seq, &deps, &puts);
        let mut transaction = self.own.transaction();
        for put in &puts {
            let name = RegisterKey {
                id: put.id,
                register: put.register,
            };
            transaction
                .put(automerge::ROOT, name.to_string(), put.value.clone())
                .unwrap();
        }
        transaction.commit();
        let sent = Sent {
            author: number,
            seq,
            deps,
            own: self.own.get_last_local_change().unwrap(),
            bytes,
        };
        self.note(sent);
    }

    fn take(&mut self, sent: Sent) {
        if self.seen.get(&sent.author).copied().unwrap_or(0) >= sent.seq {
            return;
        }
        self.desk
            .offer(
                BUCKET(),
                &writer(sent.author),
                sent.seq,
                &sent.deps,
                &sent.bytes,
            )
            .unwrap();
        self.own.apply_changes([sent.own.clone()]).unwrap();
        self.note(sent);
    }

    fn note(&mut self, sent: Sent) {
        self.seen.insert(sent.author, sent.seq);
        self.arrived.push(sent);
    }

    fn check(&self) {
        for number in 1..=KEYS {
            let key = register(number);
            let ours = self.desk.values(key);
            assert_eq!(ours, values(&self.own, key));
        }
    }
}

fn writer(number: usize) -> Author {
    author(u8::try_from(number).unwrap() + 1)
}

fn values(doc: &Automerge, key: RegisterKey) -> Vec<Vec<u8>> {
    let all = doc.get_all(automerge::ROOT, key.to_string()).unwrap();
    let mut values: Vec<_> = all
        .iter()
        .map(|(value, _)| value.as_bytes().unwrap().to_vec())
        .collect();
    values.sort();
    values
}

fn event() -> impl Strategy<Value = Event> {
    let keys = proptest::collection::vec(1..=KEYS, 1..4);
    prop_oneof![
        2 => (0..AUTHORS, keys).prop_map(|(at, keys)| Event::Write { at, keys }),
        3 => (0..AUTHORS, 0..AUTHORS, 1..4_usize)
            .prop_map(|(from, to, most)| Event::Send { from, to, most }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn registers_show_what_automerge_documents_show(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut replicas: Vec<Replica> = (0..AUTHORS).map(Replica::new).collect();
        let mut stamp = 0;
        let everything = (0..2).flat_map(|_| 0..AUTHORS).flat_map(|from| {
            (0..AUTHORS).map(move |to| Event::Send { from, to, most: usize::MAX })
        });
        for event in events.into_iter().chain(everything) {
            let at = match event {
                Event::Write { at, keys } => {
                    replicas[at].write(at, &keys, &mut stamp);
                    at
                }
                Event::Send { from, to, most } => {
                    let seen = replicas[to].seen.clone();
                    let lacking = |sent: &&Sent| {
                        seen.get(&sent.author).copied().unwrap_or(0) < sent.seq
                    };
                    let arrived = replicas[from].arrived.iter();
                    let some: Vec<Sent> = arrived.filter(lacking).take(most).cloned().collect();
                    for sent in some {
                        replicas[to].take(sent);
                    }
                    to
                }
            };
            replicas[at].check();
        }
        for other in &replicas[1..] {
            prop_assert_eq!(replicas[0].desk.bytes(), other.desk.bytes());
            prop_assert_eq!(replicas[0].desk.digest(), other.desk.digest());
        }
    }
}
