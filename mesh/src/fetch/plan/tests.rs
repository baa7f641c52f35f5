//! The plan against simulated holders: fast, slow, silent, lying, vanishing, partial.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wormhole_store::{Bitmap, ChunkRef};

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 32])
}

fn chunk(n: u64) -> ChunkId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    ChunkId::from_bytes(bytes)
}

fn slot(index: u64, id: u64, len: u32) -> Slot {
    Slot {
        index,
        offset: index * u64::from(len),
        chunk: ChunkRef { id: chunk(id), len },
    }
}

/// What a simulated holder does with a request.
#[derive(Clone, Debug)]
struct Habit {
    bytes_per_ms: u64,
    /// It stops answering at this time; the driver notices and drops it after two seconds.
    silent_from: Option<Duration>,
    /// It goes away at this time.
    gone_at: Option<Duration>,
    /// One in so many chunks is bad.
    lies_every: Option<u64>,
    /// It has only chunks whose number is a multiple of this.
    has_every: u64,
}

impl Habit {
    const fn honest(bytes_per_ms: u64) -> Self {
        Self {
            bytes_per_ms,
            silent_from: None,
            gone_at: None,
            lies_every: None,
            has_every: 1,
        }
    }
}

#[derive(Default)]
struct Served {
    queue: VecDeque<(Ask, u64)>,
    credit: u64,
    idle_since: Duration,
    answers: u64,
    bytes: u64,
}

struct Simulation {
    plan: Plan,
    habits: BTreeMap<DeviceId, Habit>,
    served: BTreeMap<DeviceId, Served>,
    outcomes: BTreeMap<JobId, Outcome>,
    put: BTreeMap<(JobId, u64), u32>,
    now: Duration,
    peak_bytes: u64,
}

impl Simulation {
    fn new(habits: Vec<Habit>) -> Self {
        let mut plan = Plan::default();
        let habits: BTreeMap<_, _> = habits
            .into_iter()
            .zip(1..)
            .map(|(habit, n)| (device(n), habit))
            .collect();
        for device in habits.keys() {
            assert!(plan.holder_up(*device, Duration::ZERO));
        }
        let served = habits
            .keys()
            .map(|device| (*device, Served::default()))
            .collect();
        Self {
            plan,
            habits,
            served,
            outcomes: BTreeMap::new(),
            put: BTreeMap::new(),
            now: Duration::ZERO,
            peak_bytes: 0,
        }
    }

    /// Runs until every job has an outcome; fails after an hour of simulated time.
    fn run(&mut self) {
        loop {
            self.request();
            self.plan.give_up_if_stuck(self.now);
            while let Some((job, outcome)) = self.plan.pop_finished() {
                assert_eq!(
                    self.outcomes.insert(job, outcome),
                    None,
                    "{job:?} ended twice"
                );
            }
            if self.plan.is_idle() {
                assert_eq!(self.plan.in_flight_bytes(), 0, "the budget is given back");
                return;
            }
            self.now += MILLI;
            assert!(
                self.now < Duration::from_secs(3600),
                "no end: {:?}",
                self.plan
            );
            self.serve();
            self.peak_bytes = self.peak_bytes.max(self.plan.in_flight_bytes());
        }
    }

    fn request(&mut self) {
        for device in self.plan.holders().collect::<Vec<_>>() {
            while let Some(asks) = self.plan.next(device, self.now) {
                assert!(!asks.is_empty() && asks.len() <= BATCH_ITEMS);
                let served = self.served.get_mut(&device).unwrap();
                served
                    .queue
                    .extend(asks.into_iter().map(|ask| (ask, ask.want.bytes())));
            }
        }
    }

    fn serve(&mut self) {
        for device in self.plan.holders().collect::<Vec<_>>() {
            let habit = self.habits[&device].clone();
            if habit.gone_at.is_some_and(|at| self.now >= at) {
                self.plan.holder_down(device);
                continue;
            }
            if habit.silent_from.is_some_and(|at| self.now >= at) {
                if self.now >= self.served[&device].idle_since + Duration::from_secs(2) {
                    self.plan.holder_down(device);
                }
                continue;
            }
            let served = self.served.get_mut(&device).unwrap();
            served.idle_since = self.now;
            served.credit = (served.credit + habit.bytes_per_ms).min(4 << 20);
            self.answer(device, &habit);
        }
    }

    fn answer(&mut self, device: DeviceId, habit: &Habit) {
        loop {
            let served = self.served.get_mut(&device).unwrap();
            let Some((ask, bytes)) = served.queue.front().copied() else {
                return;
            };
            let number = match ask.want {
                Want::Chunk { id, .. } => {
                    u64::from_le_bytes(id.as_bytes()[..8].try_into().unwrap())
                }
                Want::Manifest(_) => 0,
            };
            if number % habit.has_every != 0 {
                served.queue.pop_front();
                self.plan.absent(device, ask.item, self.now);
                continue;
            }
            if served.credit < bytes {
                return;
            }
            served.credit -= bytes;
            served.bytes += bytes;
            served.answers += 1;
            served.queue.pop_front();
            let lie = habit
                .lies_every
                .is_some_and(|every| served.answers.is_multiple_of(every));
            let Some(targets) = self.plan.arrived(device, ask.item, self.now) else {
                continue;
            };
            if lie {
                self.plan.spoiled(ask.item);
                self.plan.holder_down(device);
                return;
            }
            for target in targets {
                *self.put.entry((target.job, target.slot.index)).or_default() += 1;
            }
            self.plan.written(ask.item);
        }
    }

    fn bytes_of(&self, n: u8) -> u64 {
        self.served[&device(n)].bytes
    }
}

#[test]
fn every_slot_is_filled_once_and_memory_stays_in_the_budget() {
    let mut simulation = Simulation::new(vec![Habit::honest(100_000)]);
    simulation
        .plan
        .want_slots(JobId(0), (0..400).map(|i| slot(i, i, 256 << 10)).collect());
    simulation.run();
    assert_eq!(simulation.outcomes[&JobId(0)], Outcome::Complete);
    assert_eq!(simulation.put.len(), 400);
    assert!(simulation.put.values().all(|times| *times == 1));
    assert!(
        simulation.peak_bytes <= BUDGET_BYTES + (1 << 20),
        "{}",
        simulation.peak_bytes
    );
}

#[test]
fn a_repeated_chunk_is_fetched_once_for_all_its_slots() {
    let mut simulation = Simulation::new(vec![Habit::honest(10_000)]);
    for job in 0..3 {
        simulation
            .plan
            .want_slots(JobId(job), (0..1000).map(|i| slot(i, 7, 1 << 20)).collect());
    }
    simulation.run();
    assert_eq!(simulation.put.len(), 3000);
    assert_eq!(simulation.bytes_of(1), 1 << 20);
}

#[test]
fn holders_share_the_work_by_their_speed() {
    let mut simulation = Simulation::new(vec![Habit::honest(40_000), Habit::honest(10_000)]);
    simulation
        .plan
        .want_slots(JobId(0), (0..2000).map(|i| slot(i, i, 256 << 10)).collect());
    simulation.run();
    let (fast, slow) = (simulation.bytes_of(1), simulation.bytes_of(2));
    assert!(fast > slow * 2 && slow * 8 > fast, "{fast} and {slow}");
    let ideal = Duration::from_millis((2000 * (256 << 10)) / 50_000);
    assert!(
        simulation.now < ideal * 5 / 4,
        "{:?} instead of {ideal:?}",
        simulation.now
    );
}

#[test]
fn what_a_very_slow_holder_owes_is_taken_over() {
    let mut simulation = Simulation::new(vec![Habit::honest(20_000), Habit::honest(10)]);
    simulation
        .plan
        .want_slots(JobId(0), (0..200).map(|i| slot(i, i, 256 << 10)).collect());
    simulation.run();
    assert_eq!(simulation.outcomes[&JobId(0)], Outcome::Complete);
    // Alone the slow one would need minutes for the two megabytes that it was asked for at first.
    assert!(
        simulation.now < Duration::from_secs(10),
        "{:?}",
        simulation.now
    );
}

#[test]
fn a_job_ends_without_a_holder_when_everyone_lacks_it_and_others_go_on() {
    let mut holder = Habit::honest(10_000);
    holder.has_every = 2;
    let mut simulation = Simulation::new(vec![holder.clone(), holder]);
    for job in 0..20_000 {
        simulation
            .plan
            .want_slots(JobId(job), vec![slot(0, job as u64, 4096)]);
    }
    simulation.run();
    for (job, outcome) in &simulation.outcomes {
        let held = job.0.is_multiple_of(2);
        assert_eq!(
            *outcome,
            if held {
                Outcome::Complete
            } else {
                Outcome::NoHolder
            },
            "{job:?}"
        );
    }
    assert_eq!(simulation.outcomes.len(), 20_000);
}

#[test]
fn without_holders_every_job_ends_at_once() {
    let mut simulation = Simulation::new(vec![]);
    simulation.plan.want_slots(JobId(0), vec![slot(0, 1, 10)]);
    simulation.plan.want_slots(JobId(1), vec![]);
    simulation.run();
    assert_eq!(simulation.outcomes[&JobId(0)], Outcome::NoHolder);
    assert_eq!(simulation.outcomes[&JobId(1)], Outcome::Complete);
    assert_eq!(simulation.now, Duration::ZERO);
}

#[test]
fn nothing_is_asked_of_a_holder_that_said_it_lacks_it() {
    let mut plan = Plan::default();
    plan.holder_up(device(1), Duration::ZERO);
    plan.want_slots(JobId(0), (0..16).map(|i| slot(i, i, 1000)).collect());
    plan.holding(
        device(1),
        JobId(0),
        Holding::Some(Bitmap::from_bytes(vec![0b0000_0101, 0b1000_0000])),
    );
    let asks = plan.next(device(1), Duration::ZERO).unwrap();
    let ids: Vec<_> = asks.iter().map(|ask| ask.want.key()).collect();
    assert_eq!(ids, [chunk(0), chunk(2), chunk(15)]);
}

#[test]
fn a_busy_holder_is_left_alone_and_asked_again() {
    let mut plan = Plan::default();
    plan.holder_up(device(1), Duration::ZERO);
    plan.want_slots(JobId(0), vec![slot(0, 1, 10)]);
    plan.hold_off(device(1), MILLI * 250);
    assert_eq!(plan.next(device(1), MILLI), None);
    plan.give_up_if_stuck(MILLI);
    assert_eq!(
        plan.pop_finished(),
        None,
        "it is not given up while a holder is only busy"
    );
    assert!(plan.next(device(1), MILLI * 250).is_some());
}

#[test]
fn any_crowd_with_one_honest_holder_completes() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut habits = vec![Habit::honest(rng.random_range(500..20_000))];
        for _ in 0..rng.random_range(0..6) {
            habits.push(random_habit(&mut rng));
        }
        let mut simulation = Simulation::new(habits.clone());
        let jobs = rng.random_range(1..40_usize);
        let mut slots_wanted = 0;
        for job in 0..jobs {
            let slots: Vec<_> = (0..rng.random_range(0..60))
                .map(|i| slot(i, rng.random_range(0..2000), 100_000))
                .collect();
            slots_wanted += slots.len();
            simulation.plan.want_slots(JobId(job), slots);
        }
        simulation.run();
        let complete = simulation
            .outcomes
            .values()
            .all(|o| *o == Outcome::Complete);
        assert!(
            complete,
            "seed {seed}: {habits:?} {:?}",
            simulation.outcomes
        );
        assert_eq!(simulation.put.len(), slots_wanted, "seed {seed}");
    }
}

fn random_habit(rng: &mut impl Rng) -> Habit {
    let mut habit = Habit::honest(rng.random_range(10..20_000));
    let at = MILLI * rng.random_range(0..2000);
    match rng.random_range(0..5) {
        0 => habit.silent_from = Some(at),
        1 => habit.gone_at = Some(at),
        2 => habit.lies_every = Some(rng.random_range(1..50)),
        3 => habit.has_every = rng.random_range(2..10),
        _ => {}
    }
    habit
}
