//! Decides which chunk is asked of whom: a pure machine without sockets, clocks or randomness.
//!
//! The driver (`fetch/drive.rs`) tells it what happened (a holder came, a chunk arrived, a holder lacks it)
//! and asks what to request next; `now` is always an argument. The same calls give the same decisions, so
//! slow, lying and vanishing holders are simulated in `plan/tests.rs`.
//!
//! An *item* is one thing to bring: a manifest, or a chunk, once, however many slots of however many jobs
//! it fills. Items are asked in the order in which jobs were added; a holder's window grows with its rate;
//! when nothing is left to ask, fast holders take over what slow ones still owe.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use wormhole_crdt::DeviceId;
use wormhole_store::{ChunkId, Content, Slot};

use super::holder::{Holder, Holding};

/// Bytes asked for or being written at any moment, over all holders: the memory bound of one fetch.
pub(super) const BUDGET_BYTES: u64 = 32 << 20;

/// Chunks in one request. With small files this many share one round trip.
pub(super) const BATCH_ITEMS: usize = 256;

/// Bytes in one request, so that several are in flight even with large chunks.
const BATCH_BYTES: u64 = 1 << 20;

/// Holders that one fetch uses; the bits of an item's `absent` mask.
pub(super) const MAX_HOLDERS: u32 = 64;

/// A thief must be this much sooner than the holder it takes from.
const STEAL_MARGIN: Duration = Duration::from_millis(200);

/// A job by its place in the caller's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobId(pub(super) usize);

/// A thing to bring. Never reused within a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ItemId(u64);

impl ItemId {
    /// The first that a plan gives.
    pub(super) const FIRST: Self = Self(0);

    /// The one that is given after it.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The root and all pages of a content's manifest.
    Manifest(Content),
    /// One chunk.
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its plain length.
        len: u32,
    },
}

impl Want {
    /// What the item is found by: a manifest's root is a blob with a chunk id of its own.
    fn key(&self) -> ChunkId {
        match self {
            Self::Manifest(content) => ChunkId::from_bytes(*content.id.as_bytes()),
            Self::Chunk { id, .. } => *id,
        }
    }

    /// Bytes that are expected for it (a manifest has 36 bytes for each chunk of 256 KiB or so).
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Manifest(content) => 1024 + content.size / 4096,
            Self::Chunk { len, .. } => u64::from(*len),
        }
    }
}

/// One line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    /// The item, to report the answer by.
    pub(super) item: ItemId,
    /// What to ask for.
    pub(super) want: Want,
}

/// Where a chunk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The job.
    pub(super) job: JobId,
    /// The place in the job's content.
    pub(super) slot: Slot,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its manifest is in the store: survey the job again.
    ManifestHere,
    /// Every slot is filled.
    Complete,
    /// No connected member has something that it needs.
    NoHolder,
}

#[derive(Debug)]
struct Item {
    want: Want,
    targets: Vec<Target>,
    /// Jobs that wait for a manifest.
    waiting: Vec<JobId>,
    /// Holders (by bit) that said they lack it.
    absent: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Wanted,
    /// By one holder, or two when it was stolen.
    Asked(Vec<DeviceId>),
    Writing,
}

/// What a fetch knows and decides.
#[derive(Debug, Default)]
pub(super) struct Plan {
    items: HashMap<ItemId, Item>,
    by_key: HashMap<ChunkId, ItemId>,
    wanted: BTreeSet<ItemId>,
    /// Slots that each unfinished job still lacks. A job that is not here needs nothing any more.
    left: HashMap<JobId, u64>,
    holders: BTreeMap<DeviceId, Holder>,
    /// Bits are kept when a holder goes, so that what it lacks is still known when it returns.
    bits: HashMap<DeviceId, u32>,
    in_flight_bytes: u64,
    writing: usize,
    next_item: u64,
    finished: VecDeque<(JobId, Outcome)>,
}

impl Plan {
    /// Adds a job whose manifest must be brought first.
    pub(super) fn want_manifest(&mut self, job: JobId, content: Content) {
        let item = self.item(Want::Manifest(content));
        if let Some(item) = self.items.get_mut(&item) {
            item.waiting.push(job);
        }
    }

    /// Adds a job that lacks `slots`; with none it is complete at once.
    pub(super) fn want_slots(&mut self, job: JobId, slots: Vec<Slot>) {
        if slots.is_empty() {
            self.finished.push_back((job, Outcome::Complete));
            return;
        }
        self.left.insert(job, slots.len() as u64);
        for slot in slots {
            let want = Want::Chunk {
                id: slot.chunk.id,
                len: slot.chunk.len,
            };
            let item = self.item(want);
            if let Some(item) = self.items.get_mut(&item) {
                item.targets.push(Target { job, slot });
            }
        }
    }

    /// The item for `want`: one that can still take targets, or a new one.
    fn item(&mut self, want: Want) -> ItemId {
        if let Some(known) = self.by_key.get(&want.key()) {
            return *known;
        }
        let id = ItemId(self.next_item);
        self.next_item += 1;
        self.by_key.insert(want.key(), id);
        self.wanted.insert(id);
        self.items.insert(
            id,
            Item {
                want,
                targets: Vec::with_capacity(1),
                waiting: Vec::new(),
                absent: 0,
                state: State::Wanted,
            },
        );
        id
    }

    /// A holder is reachable. False when there are too many to keep track of.
    pub(super) fn holder_up(&mut self, device: DeviceId, now: Duration) -> bool {
        let next = u32::try_from(self.bits.len()).unwrap_or(MAX_HOLDERS);
        let bit = *self.bits.entry(device).or_insert(next);
        if bit >= MAX_HOLDERS {
            self.bits.remove(&device);
            return false;
        }
        self.holders
            .entry(device)
            .or_insert_with(|| Holder::new(bit, now));
        true
    }

    /// A holder is gone or was dropped: what it owed is wanted again.
    pub(super) fn holder_down(&mut self, device: DeviceId) {
        let Some(holder) = self.holders.remove(&device) else {
            return;
        };
        for item in holder.owed() {
            self.no_longer_asked(item, device);
        }
    }

    /// What a holder has of a job's content.
    pub(super) fn holding(&mut self, device: DeviceId, job: JobId, holding: Holding) {
        if let Some(holder) = self.holders.get_mut(&device) {
            holder.set_holding(job, holding);
        }
    }

    /// Asks nothing of this holder until `until` (it said that it is busy).
    pub(super) fn hold_off(&mut self, device: DeviceId, until: Duration) {
        if let Some(holder) = self.holders.get_mut(&device) {
            holder.hold_off(until);
        }
    }

    /// The holders in use.
    pub(super) fn holders(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.holders.keys().copied()
    }

    /// What to request of `device` now; `None` when its window or the budget is full, or it has nothing.
    pub(super) fn next(&mut self, device: DeviceId, now: Duration) -> Option<Vec<Ask>> {
        let holder = self.holders.get(&device)?;
        let room = holder
            .room_bytes(now)?
            .min(BUDGET_BYTES.saturating_sub(self.in_flight_bytes));
        if room == 0 && self.in_flight_bytes > 0 {
            return None;
        }
        let mut picked = self.pick_wanted(device, room.min(BATCH_BYTES));
        if picked.is_empty() {
            picked = self.pick_owed(device, room.min(BATCH_BYTES), now);
        }
        if picked.is_empty() {
            return None;
        }
        Some(
            picked
                .into_iter()
                .filter_map(|item| self.ask(device, item, now))
                .collect(),
        )
    }

    /// Items nobody was asked for, in order, that `device` may have.
    fn pick_wanted(&mut self, device: DeviceId, room: u64) -> Vec<ItemId> {
        let Some(holder) = self.holders.get(&device) else {
            return Vec::new();
        };
        let (mut picked, mut bytes) = (Vec::new(), 0);
        let mut skipped_to = None;
        for id in self.wanted.range(holder.cursor()..) {
            let Some(item) = self.items.get(id) else {
                continue;
            };
            if !self.is_live(item) || !may_have(holder, item) {
                if picked.is_empty() {
                    skipped_to = Some(*id);
                }
                continue;
            }
            if picked.len() == holder.batch_items() || (bytes >= room && !picked.is_empty()) {
                break;
            }
            bytes += item.want.bytes();
            picked.push(*id);
        }
        if let (Some(to), Some(holder)) = (skipped_to, self.holders.get_mut(&device)) {
            holder.skip_past(to);
        }
        picked
    }

    /// Items that a slower holder owes and that `device` would bring sooner: the last of its queue first.
    fn pick_owed(&self, device: DeviceId, room: u64, now: Duration) -> Vec<ItemId> {
        let Some(thief) = self.holders.get(&device) else {
            return Vec::new();
        };
        let slowest = self
            .holders
            .iter()
            .filter(|(other, holder)| **other != device && holder.owes())
            .max_by_key(|(other, holder)| (holder.expected_end(now), **other));
        let Some((_, victim)) = slowest else {
            return Vec::new();
        };
        let (mut picked, mut bytes) = (Vec::new(), 0);
        for id in victim.owed_from_the_end() {
            let Some(item) = self.items.get(&id) else {
                continue;
            };
            let alone = matches!(&item.state, State::Asked(by) if by.len() == 1);
            if !alone || !may_have(thief, item) {
                continue;
            }
            bytes += item.want.bytes();
            let too_late =
                thief.expected_after(bytes, now) + STEAL_MARGIN >= victim.expected_end(now);
            if too_late || bytes > room && !picked.is_empty() || picked.len() == BATCH_ITEMS {
                break;
            }
            picked.push(id);
        }
        picked
    }

    fn ask(&mut self, device: DeviceId, id: ItemId, now: Duration) -> Option<Ask> {
        let item = self.items.get_mut(&id)?;
        match &mut item.state {
            State::Wanted => {
                item.state = State::Asked(vec![device]);
                self.wanted.remove(&id);
            }
            State::Asked(by) => by.push(device),
            State::Writing => return None,
        }
        self.in_flight_bytes += item.want.bytes();
        self.holders
            .get_mut(&device)?
            .asked(id, item.want.bytes(), now);
        Some(Ask {
            item: id,
            want: item.want,
        })
    }

    /// An item's bytes came from `device`. Gives where they go, or nothing when they are not needed any
    /// more (another holder was faster, or the jobs that wanted them are over).
    ///
    /// Until [`Plan::written`] or [`Plan::spoiled`] is called for it, the item counts against the budget.
    pub(super) fn arrived(
        &mut self,
        device: DeviceId,
        id: ItemId,
        now: Duration,
    ) -> Option<Vec<Target>> {
        if let Some(holder) = self.holders.get_mut(&device) {
            holder.paid(id, now);
        }
        let item = self.items.get_mut(&id)?;
        let State::Asked(by) = &item.state else {
            return None;
        };
        if !by.contains(&device) {
            return None;
        }
        // The copies that others still owe stay in their queues and are ignored when they come; the
        // budget no longer counts them, as they may never come.
        let others = by.len() as u64 - 1;
        self.in_flight_bytes = self
            .in_flight_bytes
            .saturating_sub(item.want.bytes().saturating_mul(others));
        self.by_key.remove(&item.want.key());
        item.state = State::Writing;
        self.writing += 1;
        let live = |target: &&Target| self.left.contains_key(&target.job);
        let targets: Vec<Target> = item.targets.iter().filter(live).copied().collect();
        if targets.is_empty() && item.waiting.is_empty() {
            self.written(id);
            return None;
        }
        Some(targets)
    }

    /// An item that had arrived is verified and in its places (a manifest: in the store).
    pub(super) fn written(&mut self, id: ItemId) {
        let Some(item) = self.items.remove(&id) else {
            return;
        };
        self.writing = self.writing.saturating_sub(1);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(item.want.bytes());
        for job in item.waiting {
            self.finished.push_back((job, Outcome::ManifestHere));
        }
        for target in item.targets {
            let Some(left) = self.left.get_mut(&target.job) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.left.remove(&target.job);
                self.finished.push_back((target.job, Outcome::Complete));
            }
        }
    }

    /// An item that had arrived was not what it should be: it is wanted again. The driver drops the holder.
    pub(super) fn spoiled(&mut self, id: ItemId) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        self.writing = self.writing.saturating_sub(1);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(item.want.bytes());
        // Another job may have begun a new item for the same chunk meanwhile; both are brought.
        self.by_key.entry(item.want.key()).or_insert(id);
        item.state = State::Wanted;
        self.wanted_again(id);
    }

    /// `device` was asked for the item and does not have it.
    pub(super) fn absent(&mut self, device: DeviceId, id: ItemId, now: Duration) {
        if let Some(holder) = self.holders.get_mut(&device) {
            holder.lacked(id, now);
            if let Some(item) = self.items.get_mut(&id) {
                item.absent |= holder.mask();
            }
        }
        self.no_longer_asked(id, device);
        let Some(item) = self.items.get(&id) else {
            return;
        };
        if item.state == State::Wanted && !self.holders.values().any(|h| may_have(h, item)) {
            self.give_up_item(id);
        }
    }

    /// `device` was not asked for the item after all; it may be asked again.
    pub(super) fn returned(&mut self, device: DeviceId, id: ItemId) {
        if let Some(holder) = self.holders.get_mut(&device) {
            holder.returned(id);
        }
        self.no_longer_asked(id, device);
    }

    fn no_longer_asked(&mut self, id: ItemId, device: DeviceId) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        let State::Asked(by) = &mut item.state else {
            return;
        };
        let before = by.len();
        by.retain(|other| *other != device);
        let gone = (before - by.len()) as u64;
        self.in_flight_bytes = self
            .in_flight_bytes
            .saturating_sub(item.want.bytes() * gone);
        if by.is_empty() {
            item.state = State::Wanted;
            self.wanted_again(id);
        }
    }

    fn wanted_again(&mut self, id: ItemId) {
        self.wanted.insert(id);
        for holder in self.holders.values_mut() {
            holder.rewind_to(id);
        }
    }

    /// Drops an item that nobody can give, and ends every job that needs it.
    fn give_up_item(&mut self, id: ItemId) {
        self.wanted.remove(&id);
        let Some(item) = self.items.remove(&id) else {
            return;
        };
        self.by_key.remove(&item.want.key());
        for job in item.waiting {
            self.finished.push_back((job, Outcome::NoHolder));
        }
        for target in item.targets {
            if self.left.remove(&target.job).is_some() {
                self.finished.push_back((target.job, Outcome::NoHolder));
            }
        }
    }

    /// Stops bringing anything for this job (its sink failed).
    ///
    /// Its items are not searched for; they are passed over, and dropped at the end.
    pub(super) fn forget(&mut self, job: JobId) {
        self.left.remove(&job);
    }

    fn is_live(&self, item: &Item) -> bool {
        !item.waiting.is_empty() || item.targets.iter().any(|t| self.left.contains_key(&t.job))
    }

    /// Ends the jobs that can no longer go on: nothing is on its way and nobody may have what is wanted.
    ///
    /// Called by the driver after it has asked every holder for more.
    pub(super) fn give_up_if_stuck(&mut self, now: Duration) {
        let moving = self.writing > 0
            || self
                .holders
                .values()
                .any(|h| h.owes() || h.is_held_off(now));
        if moving {
            return;
        }
        while let Some(id) = self.wanted.first().copied() {
            self.give_up_item(id);
        }
    }

    /// The next job that something became of.
    pub(super) fn pop_finished(&mut self) -> Option<(JobId, Outcome)> {
        self.finished.pop_front()
    }

    /// Items still to be asked for: the driver surveys further jobs when it is low.
    pub(super) fn wanted_items(&self) -> usize {
        self.wanted.len()
    }

    /// Slots that are not filled yet.
    pub(super) fn wanted_slots(&self) -> u64 {
        self.left.values().sum()
    }

    /// Bytes asked for or being written.
    #[cfg(test)]
    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Whether nothing is wanted, asked for or being written.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.items.is_empty() && self.finished.is_empty()
    }
}

/// Whether, as far as we know, the holder can give the item.
fn may_have(holder: &Holder, item: &Item) -> bool {
    if item.absent & holder.mask() != 0 {
        return false;
    }
    item.targets.is_empty()
        || item
            .targets
            .iter()
            .any(|t| holder.may_have(t.job, t.slot.index))
}

#[cfg(test)]
mod tests;
