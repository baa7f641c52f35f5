//! Runs one fetch: the loop between jobs, plan, lanes and sinks.
//!
//! All state is here and in the plan; lanes and blocking work are tasks of this loop and end with it. Nothing
//! here decides what is asked of whom, that is the plan's business.

mod crew;
mod sink;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::DeviceId;
use wormhole_store::{Encoded, FetchJob, Holding as StoreHolding, Lack, WriteError};

use self::{
    crew::Crew,
    sink::{Surveyed, Wrote},
};
use super::{
    error::FetchError,
    holder::Holding,
    lane::{self, Event, Lane, LaneError, LaneId, What},
    plan::{ItemId, JobId, Outcome, Plan},
    progress::Progress,
};
use crate::{
    attachment::{Attachment, Presence, Visit},
    error::OpenError,
    peer::Misbehaviour,
    serve::message::Refusal,
    streams::Streams,
};

/// Events of lanes that wait for the loop.
const EVENTS: usize = 64;

/// Jobs surveyed in one go.
const SURVEY: usize = 256;

/// Further jobs are surveyed while fewer items than this are left to ask for ...
const ENOUGH_ITEMS: usize = 16 * 1024;

/// ... that fill fewer slots than this: one item can fill very many.
const ENOUGH_SLOTS: u64 = 4 * Lack::MAX_SLOTS as u64;

/// How often slow holders are looked at.
const TICK: Duration = Duration::from_millis(100);

/// A holder whose lanes break this often, and bring nothing in between, is left out of the fetch.
const MAX_STRIKES: u32 = 3;

/// A holder that is busy, or whose lane broke, is asked again after this ...
const HOLD_OFF: Duration = Duration::from_millis(500);

/// ... doubled each time while it stays busy, up to this.
const MAX_HOLD_OFF: Duration = Duration::from_secs(16);

/// A holder that is busy this often in a row, some four hours, is left out of the fetch, or it would never end.
const MAX_BUSY: u32 = 1000;

/// A content's manifest is brought at most so often; then it must be the content that is wrong.
const MAX_SURVEYS: u32 = 4;

/// Contents with more bytes than this are asked about before their chunks are distributed.
const ASK_HOLDING_BYTES: u64 = 4 << 20;

/// See the module.
pub(super) struct Drive {
    mesh: Arc<Attachment>,
    streams: Streams,
    jobs: Arc<[FetchJob]>,
    progress: Progress,
    plan: Plan,
    crews: BTreeMap<DeviceId, Crew>,
    troubles: BTreeMap<DeviceId, Trouble>,
    next_lane: u64,
    lanes: JoinSet<()>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    to_survey: VecDeque<JobId>,
    surveys: BTreeMap<JobId, u32>,
    /// The part that comes next of jobs that have several.
    parts: BTreeMap<JobId, u64>,
    surveying: JoinSet<sink::Survey>,
    writing: JoinSet<(DeviceId, Vec<(ItemId, Wrote)>)>,
    results: Vec<Option<Result<(), FetchError>>>,
    open: usize,
    begun: Instant,
}

/// What went wrong with a holder during one visit, since it last brought something.
#[derive(Debug)]
struct Trouble {
    visit: Visit,
    /// Lanes that broke.
    strikes: u32,
    /// Lanes that it had no room for.
    busy: u32,
    /// Asked nothing before.
    until: Duration,
    /// It is left out, whatever it still brings.
    out: bool,
}

impl Drive {
    pub(super) fn new(
        mesh: Arc<Attachment>,
        streams: Streams,
        jobs: Arc<[FetchJob]>,
        progress: Progress,
    ) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS);
        Self {
            mesh,
            streams,
            progress,
            plan: Plan::default(),
            crews: BTreeMap::new(),
            troubles: BTreeMap::new(),
            next_lane: 0,
            lanes: JoinSet::new(),
            events,
            inbox,
            to_survey: (0..jobs.len()).map(JobId).collect(),
            surveys: BTreeMap::new(),
            parts: BTreeMap::new(),
            surveying: JoinSet::new(),
            writing: JoinSet::new(),
            results: jobs.iter().map(|_| None).collect(),
            open: jobs.len(),
            jobs,
            begun: Instant::now(),
        }
    }

    /// Brings every job to an end.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Vec<Result<(), FetchError>> {
        let mut present = self.mesh.present();
        let mesh = Arc::clone(&self.mesh);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.open > 0 {
            let here = present.borrow_and_update().clone();
            self.recruit(&here);
            self.survey();
            self.request();
            self.settle();
            if self.open == 0 {
                break;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => self.end_all(|| FetchError::Cancelled),
                () = mesh.cancel.cancelled() => self.end_all(|| FetchError::Stopped),
                () = mesh.until_paused() => self.end_all(|| FetchError::Paused),
                Some(written) = self.writing.join_next() => match written {
                    Ok((device, wrote)) => self.on_written(device, wrote).await,
                    Err(error) => self.on_panic(&error),
                },
                Some(surveyed) = self.surveying.join_next() => match surveyed {
                    Ok((surveyed, rest)) => self.on_surveyed(surveyed, rest),
                    Err(error) => self.on_panic(&error),
                },
                Some(event) = self.inbox.recv() => self.on_event(event).await,
                _ = present.changed() => {}
                _ = tick.tick() => {}
            }
            while let Some(ended) = self.lanes.try_join_next() {
                if let Err(error) = ended {
                    self.on_panic(&error);
                }
            }
        }
        // The caller may take the sinks away as soon as this returns.
        while self.writing.join_next().await.is_some() {}
        while self.surveying.join_next().await.is_some() {}
        let ended = |result: Option<_>| result.unwrap_or(Err(FetchError::Stopped));
        self.results.into_iter().map(ended).collect()
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins to use members that came, and stops using those that went.
    fn recruit(&mut self, present: &Presence) {
        let went =
            |(device, crew): &(&DeviceId, &Crew)| present.visit(device) != Some(crew.visit());
        let gone: Vec<_> = self
            .crews
            .iter()
            .filter(went)
            .map(|(device, _)| *device)
            .collect();
        for device in gone {
            self.dismiss(device);
        }
        // Who comes back starts anew.
        self.troubles
            .retain(|device, trouble| present.visit(device) == Some(trouble.visit));
        for (device, visit) in present.iter() {
            let trouble = self.troubles.get(&device);
            if trouble.is_some_and(|trouble| trouble.out)
                || self.crews.contains_key(&device)
                || !self.mesh.is_member(&device)
            {
                continue;
            }
            let until = trouble.map(|trouble| trouble.until);
            if self.plan.holder_up(device, self.now()) {
                if let Some(until) = until {
                    self.plan.hold_off(device, until);
                }
                self.crews.insert(device, Crew::new(visit));
            }
        }
        self.progress.set_peers(self.crews.len());
    }

    /// Takes a holder's lanes away; what it owed is asked of others.
    fn dismiss(&mut self, device: DeviceId) {
        self.crews.remove(&device);
        self.plan.holder_down(device);
    }

    fn survey(&mut self) {
        let is_busy =
            self.plan.wanted_items() > ENOUGH_ITEMS || self.plan.wanted_slots() > ENOUGH_SLOTS;
        if !self.surveying.is_empty() || is_busy {
            return;
        }
        let count = self.to_survey.len().min(SURVEY);
        if count == 0 {
            return;
        }
        let part = |job: JobId| (job, self.parts.get(&job).copied().unwrap_or(0));
        let batch: Vec<_> = self.to_survey.drain(..count).map(part).collect();
        let (store, jobs) = (self.mesh.store.clone(), Arc::clone(&self.jobs));
        self.surveying
            .spawn_blocking(move || sink::survey(&store, &jobs, batch));
    }

    fn on_surveyed(&mut self, surveyed: Vec<(JobId, Surveyed)>, rest: Vec<JobId>) {
        for job in rest.into_iter().rev() {
            self.to_survey.push_front(job);
        }
        for (id, surveyed) in surveyed {
            let Some(job) = self.jobs.get(id.0) else {
                continue;
            };
            match surveyed {
                Surveyed::NeedsManifest => {
                    let times = self.surveys.entry(id).or_default();
                    *times += 1;
                    if *times > MAX_SURVEYS {
                        self.end(id, Err(FetchError::NoHolder));
                    } else {
                        self.plan.want_manifest(id, job.content);
                    }
                }
                Surveyed::Lacks(Lack { slots, here, next }) => {
                    self.progress.begin(id, here);
                    match next {
                        Some(next) => self.parts.insert(id, next),
                        None => self.parts.remove(&id),
                    };
                    let missing: u64 = slots.iter().map(|slot| u64::from(slot.chunk.len)).sum();
                    if missing > ASK_HOLDING_BYTES {
                        for crew in self.crews.values_mut() {
                            crew.ask_holding(id, job.content);
                        }
                    }
                    self.plan.want_slots(id, slots);
                }
                Surveyed::Failed(error) => self.end(id, Err(FetchError::Sink(error))),
            }
        }
    }

    /// Gives every holder as much to do as it can take.
    fn request(&mut self) {
        let now = self.now();
        let devices: Vec<_> = self.plan.holders().collect();
        for device in devices {
            let Some(crew) = self.crews.get_mut(&device) else {
                continue;
            };
            while let Some(slot) = crew.slot() {
                let Some(asks) = self.plan.next(device, now) else {
                    break;
                };
                match slot {
                    crew::Slot::Lane(lane) => crew.give(lane, asks),
                    crew::Slot::New => {
                        self.next_lane += 1;
                        let lane = LaneId(self.next_lane);
                        let (commands, inbox) = mpsc::channel(lane::COMMANDS);
                        let task = Lane {
                            device,
                            id: lane,
                            mesh: self.mesh.id(),
                            limits: Arc::clone(&self.mesh.limits),
                            store: self.mesh.store.clone(),
                            streams: self.streams.clone(),
                            commands: inbox,
                            events: self.events.clone(),
                        };
                        self.lanes.spawn(task.run());
                        crew.hire(lane, commands);
                        crew.give(lane, asks);
                    }
                }
            }
        }
    }

    /// Ends the jobs that the plan is done with.
    fn settle(&mut self) {
        // A survey may find that more is wanted, but not that what is wanted can be had.
        self.plan.give_up_if_stuck(self.now());
        while let Some((job, outcome)) = self.plan.pop_finished() {
            match outcome {
                Outcome::ManifestHere => self.to_survey.push_front(job),
                Outcome::Complete if self.parts.contains_key(&job) => {
                    self.to_survey.push_front(job);
                }
                Outcome::Complete => self.end(job, Ok(())),
                Outcome::NoHolder => self.end(job, Err(FetchError::NoHolder)),
            }
        }
        self.survey();
    }

    async fn on_event(&mut self, event: Event) {
        let Event { device, lane, what } = event;
        if !self.crews.get(&device).is_some_and(|crew| crew.has(lane)) {
            return; // of a holder that was dismissed meanwhile
        }
        let now = self.now();
        match what {
            What::Chunks(chunks) => self.on_chunks(device, lane, chunks),
            What::Absent(items) => {
                for item in items {
                    self.paid(device, lane, item);
                    self.plan.absent(device, item, now);
                }
            }
            What::Manifest(item) => {
                self.paid(device, lane, item);
                if self.plan.arrived(device, item, now).is_some() {
                    self.plan.written(item);
                }
            }
            What::ManifestFailed(item, error) => {
                self.paid(device, lane, item);
                self.plan.absent(device, item, now);
                tracing::warn!(%error, "cannot keep a manifest");
            }
            What::Mismatched(item, id) => {
                self.paid(device, lane, item);
                for target in self.plan.arrived(device, item, now).unwrap_or_default() {
                    self.end(target.job, Err(WriteError::Mismatch { id }.into()));
                }
                self.plan.written(item);
            }
            What::Held(job, holding) => self.plan.holding(device, job, understood(holding)),
            What::Ended(Ok(())) => {}
            What::Ended(Err(error)) => self.on_lane_error(device, lane, &error).await,
        }
    }

    fn on_chunks(&mut self, device: DeviceId, lane: LaneId, chunks: Vec<(ItemId, Encoded)>) {
        let now = self.now();
        let mut work = Vec::with_capacity(chunks.len());
        for (item, encoded) in chunks {
            self.paid(device, lane, item);
            if let Some(targets) = self.plan.arrived(device, item, now) {
                work.push((item, encoded, targets));
            }
        }
        if !work.is_empty() {
            let (store, jobs) = (self.mesh.store.clone(), Arc::clone(&self.jobs));
            self.writing
                .spawn_blocking(move || (device, sink::write(&store, &jobs, work)));
        }
    }

    fn paid(&mut self, device: DeviceId, lane: LaneId, item: ItemId) {
        if let Some(crew) = self.crews.get_mut(&device) {
            crew.paid(lane, item);
        }
    }

    async fn on_written(&mut self, device: DeviceId, wrote: Vec<(ItemId, Wrote)>) {
        let mut lied = false;
        for (item, wrote) in wrote {
            match wrote {
                Wrote::All(put) => {
                    for (job, bytes) in put {
                        self.progress.add(job, bytes);
                    }
                    self.forgive(device);
                    self.plan.written(item);
                }
                Wrote::Failed(failed) => {
                    for (job, error) in failed {
                        self.plan.forget(job);
                        self.end(job, Err(FetchError::Sink(error)));
                    }
                    self.plan.written(item);
                }
                Wrote::NotThatChunk => {
                    self.plan.spoiled(item);
                    lied = true;
                }
            }
        }
        if lied {
            self.banish(device, Misbehaviour::BadChunk).await;
        }
    }

    async fn on_lane_error(&mut self, device: DeviceId, lane: LaneId, error: &LaneError) {
        tracing::debug!(%device, %error, "a lane ended");
        if let Some(reason) = error.misbehaviour() {
            self.banish(device, reason).await;
            return;
        }
        let is_busy = matches!(
            error,
            LaneError::Open(OpenError::PeerQuota { .. } | OpenError::Busy { .. })
        );
        if is_busy
            && let Some(crew) = self.crews.get_mut(&device)
            && crew.refused(lane)
        {
            // It has other lanes there: what this one was given is asked again on them.
            for item in crew.fire(lane) {
                self.plan.returned(device, item);
            }
            return;
        }
        let now = self.now();
        let Some(trouble) = self.trouble(device) else {
            return;
        };
        match error {
            // Its room is taken by others, which is no fault of its own.
            LaneError::Open(OpenError::PeerQuota { .. } | OpenError::Busy { .. }) => {
                let pause = HOLD_OFF.saturating_mul(1 << trouble.busy.min(16));
                trouble.until = now + pause.min(MAX_HOLD_OFF);
                trouble.busy += 1;
                trouble.out |= trouble.busy >= MAX_BUSY;
            }
            // It will not change its mind during this fetch.
            LaneError::Refused(Refusal::NotMember | Refusal::Paused)
            | LaneError::Open(OpenError::Unsupported { .. } | OpenError::Stopped) => {
                trouble.out = true;
            }
            LaneError::Refused(Refusal::Unable)
            | LaneError::Open(
                OpenError::Unreachable { .. } | OpenError::Backlog { .. } | OpenError::Lost { .. },
            )
            | LaneError::Frame(_)
            | LaneError::Closed
            | LaneError::Silent
            | LaneError::Misbehaved(_)
            | LaneError::Panicked => {
                trouble.until = now + HOLD_OFF;
                trouble.strikes += 1;
                trouble.out |= trouble.strikes >= MAX_STRIKES;
            }
        }
        self.dismiss(device);
    }

    /// The record of a holder that is in use.
    fn trouble(&mut self, device: DeviceId) -> Option<&mut Trouble> {
        let visit = self.crews.get(&device)?.visit();
        let fresh = || Trouble {
            visit,
            strikes: 0,
            busy: 0,
            until: Duration::ZERO,
            out: false,
        };
        Some(self.troubles.entry(device).or_insert_with(fresh))
    }

    /// The holder brought something: what was before is forgotten, unless it is left out for good.
    fn forgive(&mut self, device: DeviceId) {
        if self
            .troubles
            .get(&device)
            .is_some_and(|trouble| !trouble.out)
        {
            self.troubles.remove(&device);
        }
    }

    /// A liar is not asked again, and the others hear of it.
    async fn banish(&mut self, device: DeviceId, reason: Misbehaviour) {
        if let Some(trouble) = self.trouble(device) {
            trouble.out = true;
        }
        self.dismiss(device);
        self.streams.misbehaved(device, reason).await;
    }

    fn on_panic(&mut self, error: &tokio::task::JoinError) {
        if error.is_panic() {
            tracing::error!(%error, "a part of a fetch panicked");
            self.end_all(|| FetchError::Stopped);
        }
    }

    fn end(&mut self, job: JobId, result: Result<(), FetchError>) {
        self.plan.forget(job);
        self.progress.end(job);
        if let Some(open @ None) = self.results.get_mut(job.0) {
            *open = Some(result);
            self.open -= 1;
        }
    }

    fn end_all(&mut self, why: impl Fn() -> FetchError) {
        for result in &mut self.results {
            result.get_or_insert_with(|| Err(why()));
        }
        self.open = 0;
    }
}

/// What a holder said, as the plan understands it. Without a manifest it cannot say: it may have anything.
fn understood(holding: StoreHolding) -> Holding {
    match holding {
        StoreHolding::All | StoreHolding::NoManifest => Holding::All,
        StoreHolding::None => Holding::None,
        StoreHolding::Some(slots) => Holding::Some(slots),
    }
}
