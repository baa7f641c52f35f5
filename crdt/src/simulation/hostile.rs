//! A member that may write and means harm, among honest replicas that meet at random.
//!
//! It forks its log wherever it likes, begins lives, leaps with its clock, names causes that nobody has, and says
//! each thing to somebody else. What one honest replica accepts all must accept, in any order: none ever blames
//! another, and in the end they hold the same.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use crate::bucket::desk::Desk;
use crate::entry::{Mode, Version};
use crate::envelope::{self, Cause, Draft, FORMAT, Frame, Place};
use crate::id::{Author, Branch, BucketId, DeviceKey, DeviceTag, EntryId, Hash, Incarnation};
use crate::lab::{Link, create, ends, key, mesh, rng};
use crate::limit::{MAX_BRANCHES, MAX_CLOCK_LEAP, MAX_DEVICE_LIVES};
use crate::member::Role;
use crate::register::{Attributes, Packed, Put, Register};
use crate::replica::Replica;

/// How many honest replicas there are.
const HONEST: usize = 3;

/// What the hostile writer has signed.
struct Hostile {
    key: DeviceKey,
    /// Envelopes to go on from, with their clocks.
    signed: Vec<(Author, u64, Hash, u64)>,
    all: Vec<Vec<u8>>,
}

impl Hostile {
    fn new() -> Self {
        Self {
            key: key(2),
            signed: Vec::new(),
            all: Vec::new(),
        }
    }

    /// Where the next envelope stands, and the clock of the one before it.
    fn place(&self, rng: &mut ChaCha8Rng) -> (Place, u64) {
        if self.signed.is_empty() || rng.random_range(0..8) == 0 {
            let author = Author {
                device: self.key.device_id(),
                incarnation: Incarnation(rng.random_range(0..6)),
            };
            let (seq, prev) = (1, Hash::ZERO);
            return (Place { author, seq, prev }, 0);
        }
        let at = match rng.random_range(0..4) > 0 {
            true => self.signed.len() - 1,
            false => rng.random_range(0..self.signed.len()),
        };
        let (author, seq, prev, clock) = self.signed[at];
        let seq = seq + 1;
        (Place { author, seq, prev }, clock)
    }

    /// One more envelope, which need not be a good one.
    fn sign(&mut self, victim: &Replica, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let shared = victim.shared();
        let (place, before) = self.place(rng);
        let Place { author, seq, prev } = place;
        let clock = match rng.random_range(0..12) {
            0 => before.saturating_add(MAX_CLOCK_LEAP),
            1 => u64::MAX,
            _ => before + 1,
        };
        let change = change(author, seq, (before, clock), rng);
        if rng.random_range(0..20) == 0 {
            let mesh = victim.mesh_id();
            return envelope::sign(&self.key, FORMAT + 1, mesh, place, b"?", &change);
        }
        let mut causes = Vec::new();
        for (line, end) in &shared.ends {
            if rng.random_range(0..3) == 0 {
                causes.push(Cause {
                    author: line.author,
                    seq: end.seq,
                    hash: end.hash,
                });
            }
        }
        if rng.random_range(0..20) == 0 {
            causes.extend(causes.first().map(|cause| Cause {
                hash: Hash::from_bytes([9; 32]),
                ..*cause
            }));
        }
        let draft = Draft {
            mesh: victim.mesh_id(),
            author,
            seq,
            prev,
            causes,
            members: shared.members.heads(),
            clock,
            at: crate::Timestamp(rng.random_range(0..1000)),
            changes: vec![(BucketId::new(0).unwrap(), &change)],
        };
        let bytes = draft.sign(&self.key, shared.epochs.current().unwrap());
        bytes.unwrap()
    }

    fn act(&mut self, victims: &[Replica], rng: &mut ChaCha8Rng) {
        let victim = &victims[rng.random_range(0..victims.len())];
        let bytes = match self.all.is_empty() || rng.random() {
            true => self.sign(victim, rng),
            false => self.all[rng.random_range(0..self.all.len())].clone(),
        };
        // It may be cut off for it; what was taken before that is taken.
        if victim.apply(&[&bytes]).is_ok() {
            let Frame {
                author, seq, hash, ..
            } = Frame::read(&bytes).unwrap();
            let clock = victim.shared().ends.values().map(|end| end.clock).max();
            self.signed.push((author, seq, hash, clock.unwrap_or(0)));
            self.all.push(bytes);
        }
    }
}

/// A write, which need not be in its author's name.
fn change(author: Author, seq: u64, (before, clock): (u64, u64), rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut id = [0; 16];
    id[15] = rng.random_range(0..4);
    let device = match rng.random_range(0..8) {
        0 => DeviceTag::from_bytes([1; 8]),
        _ => author.device.tag(),
    };
    let written = Version {
        lamport: clock.min(before + 1 + rng.random_range(0..3)),
        device,
        branch: Branch::from_bytes([0; 8]),
    };
    let mode = Mode::new(if rng.random() { 0o755 } else { 0o644 });
    let value = Attributes::of_mode(written, mode);
    let put = Put {
        id: EntryId::from_bytes(id),
        register: Register::Attributes,
        value: value.encode(),
    };
    Desk::new().write(&author, seq, &[put])
}

fn meet(one: &Replica, other: &Replica, seed: u64) {
    for replica in [one, other] {
        replica.flush().unwrap();
    }
    Link::new(one, other, seed)
        .run()
        .expect("no honest replica blames another");
}

fn meet_all(honest: &[Replica]) {
    for _ in 0..2 {
        for (one, other) in [(0, 1), (1, 2), (0, 2)] {
            meet(&honest[one], &honest[other], 7);
        }
    }
}

fn run(seed: u64, steps: u64) {
    println!("seed {seed}");
    let mut rng = rng(seed);
    let mut replicas = mesh(&[Role::Writer, Role::Writer, Role::Writer]);
    // The second member is the hostile one.
    replicas.remove(1);
    let honest = &replicas[..HONEST];
    let mut hostile = Hostile::new();
    for step in 0..steps {
        match rng.random_range(0..10) {
            0..6 => hostile.act(honest, &mut rng),
            6 => {
                let at = rng.random_range(0..HONEST);
                create(&honest[at], &format!("file {step}"), 1, rng.next_u64());
            }
            _ => {
                let one = rng.random_range(0..HONEST);
                let other = (one + rng.random_range(1..HONEST)) % HONEST;
                meet(&honest[one], &honest[other], step);
            }
        }
    }
    meet_all(honest);
    for (replica, number) in honest.iter().zip(0..) {
        create(replica, &format!("last {number}"), 2, 1 << 40 | number);
        meet_all(honest);
    }
    meet_all(honest);
    for other in &honest[1..] {
        assert_eq!(ends(&honest[0]), ends(other), "seed {seed}");
        let digests = [&honest[0], other].map(|replica| replica.digest().unwrap());
        assert_eq!(digests[0], digests[1], "seed {seed}");
        assert!(other.shared().ends.len() <= MAX_DEVICE_LIVES * (MAX_BRANCHES + 1));
    }
}

#[test]
fn honest_replicas_agree_whatever_a_hostile_writer_does_and_never_blame_one_another() {
    let steps = super::from_env("SIMULATION_STEPS", 120);
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        return run(seed.parse().expect("a number"), steps);
    }
    for seed in 0..super::from_env("SIMULATION_SEEDS", 24) {
        run(seed, steps);
    }
}
