//! One holder as the plan sees it: what it has, what it owes, how fast it is.
//!
//! Pure bookkeeping with `now` as an argument; which item goes to which holder is decided in `plan`.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use wormhole_store::Bitmap;

use super::plan::{BATCH_ITEMS, ItemId, JobId};

/// Bytes in flight to a holder whose rate is not known yet.
const FIRST_WINDOW: u64 = 2 << 20;

/// Bytes in flight to the slowest holder: a whole chunk and the next.
const MIN_WINDOW: u64 = 512 << 10;

/// Bytes in flight to the fastest: enough for 1 Gbit/s at 128 ms.
const MAX_WINDOW: u64 = 16 << 20;

/// A window holds what the holder delivers in this time, so a slow one is never owed much at the end.
const WINDOW_TIME: Duration = Duration::from_millis(400);

/// Requests on their way to one holder, whatever their size.
const MAX_OWED_ITEMS: usize = 4096;

/// The rate is looked at this often.
const RATE_INTERVAL: Duration = Duration::from_millis(50);

/// The rate that an unmeasured holder is credited with when it is compared with others.
const ASSUMED_RATE: u64 = 1 << 20;

/// What a holder said it has of one content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holding {
    /// Every slot.
    All,
    /// Nothing.
    None,
    /// These slots.
    Some(Bitmap),
}

impl Holding {
    fn has(&self, slot: u64) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Some(slots) => slots.get(slot),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Holder {
    bit: u32,
    holding: HashMap<JobId, Holding>,
    owed: VecDeque<(ItemId, u64)>,
    owed_bytes: u64,
    cursor: Option<ItemId>,
    held_off_until: Duration,
    batch_items: usize,
    rate: Option<u64>,
    measured_bytes: u64,
    measured_from: Duration,
    last_progress: Duration,
}

impl Holder {
    pub(super) fn new(bit: u32, now: Duration) -> Self {
        Self {
            bit,
            holding: HashMap::new(),
            owed: VecDeque::new(),
            owed_bytes: 0,
            cursor: None,
            held_off_until: Duration::ZERO,
            batch_items: BATCH_ITEMS,
            rate: None,
            measured_bytes: 0,
            measured_from: now,
            last_progress: now,
        }
    }

    /// The holder's bit in an item's `absent` mask.
    pub(super) fn mask(&self) -> u64 {
        1_u64.checked_shl(self.bit).unwrap_or(0)
    }

    /// Whether it may have the slot; true until it said otherwise.
    pub(super) fn may_have(&self, job: JobId, slot: u64) -> bool {
        self.holding
            .get(&job)
            .is_none_or(|holding| holding.has(slot))
    }

    pub(super) fn set_holding(&mut self, job: JobId, holding: Holding) {
        self.holding.insert(job, holding);
        self.cursor = None;
    }

    pub(super) fn hold_off(&mut self, until: Duration) {
        self.held_off_until = self.held_off_until.max(until);
    }

    pub(super) fn is_held_off(&self, now: Duration) -> bool {
        now < self.held_off_until
    }

    /// Bytes that may be asked of it now; `None` when nothing may.
    pub(super) fn room_bytes(&self, now: Duration) -> Option<u64> {
        if self.is_held_off(now) || self.owed.len() >= MAX_OWED_ITEMS {
            return None;
        }
        let window = self.window_bytes();
        (self.owed_bytes < window).then(|| window - self.owed_bytes)
    }

    fn window_bytes(&self) -> u64 {
        match self.rate {
            None => FIRST_WINDOW,
            Some(rate) => {
                let millis = u64::try_from(WINDOW_TIME.as_millis()).unwrap_or(u64::MAX);
                (rate / 1000)
                    .saturating_mul(millis)
                    .clamp(MIN_WINDOW, MAX_WINDOW)
            }
        }
    }

    /// Items in one request: fewer for a holder that mostly lacks what it is asked for.
    pub(super) fn batch_items(&self) -> usize {
        self.batch_items
    }

    /// The first item that is worth looking at for this holder.
    pub(super) fn cursor(&self) -> ItemId {
        self.cursor.unwrap_or(ItemId::FIRST)
    }

    /// Nothing up to and including `item` is for this holder.
    pub(super) fn skip_past(&mut self, item: ItemId) {
        self.cursor = Some(item.next());
    }

    /// `item` is wanted again.
    pub(super) fn rewind_to(&mut self, item: ItemId) {
        self.cursor = self.cursor.map(|cursor| cursor.min(item));
    }

    pub(super) fn asked(&mut self, item: ItemId, bytes: u64, now: Duration) {
        if self.owed.is_empty() {
            // An idle time is not a slow time.
            self.measured_from = now;
            self.measured_bytes = 0;
            self.last_progress = now;
        }
        self.owed.push_back((item, bytes));
        self.owed_bytes += bytes;
    }

    /// It delivered the item.
    pub(super) fn paid(&mut self, item: ItemId, now: Duration) {
        let Some(bytes) = self.settle(item) else {
            return;
        };
        self.last_progress = now;
        self.measured_bytes += bytes;
        self.batch_items = (self.batch_items * 2).min(BATCH_ITEMS);
        let elapsed = now.saturating_sub(self.measured_from);
        if elapsed >= RATE_INTERVAL {
            let nanos = elapsed.as_nanos().max(1);
            let sample = u128::from(self.measured_bytes) * 1_000_000_000 / nanos;
            let sample = u64::try_from(sample).unwrap_or(u64::MAX);
            self.rate = Some(self.rate.map_or(sample, |rate| rate / 2 + sample / 2));
            self.measured_from = now;
            self.measured_bytes = 0;
        }
    }

    /// It does not have the item.
    pub(super) fn lacked(&mut self, item: ItemId, now: Duration) {
        if self.settle(item).is_some() {
            self.last_progress = now;
            self.batch_items = (self.batch_items / 2).max(8);
        }
    }

    /// It was not asked for the item after all.
    pub(super) fn returned(&mut self, item: ItemId) {
        self.settle(item);
    }

    fn settle(&mut self, item: ItemId) -> Option<u64> {
        // Answers come nearly in the order of the requests: the search ends at once.
        let at = self.owed.iter().position(|(owed, _)| *owed == item)?;
        let (_, bytes) = self.owed.remove(at)?;
        self.owed_bytes = self.owed_bytes.saturating_sub(bytes);
        Some(bytes)
    }

    pub(super) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    pub(super) fn owed(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.owed.iter().map(|(item, _)| *item)
    }

    pub(super) fn owed_from_the_end(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.owed.iter().rev().map(|(item, _)| *item)
    }

    /// When it will have delivered what it owes. A holder that is silent falls behind with time.
    pub(super) fn expected_end(&self, now: Duration) -> Duration {
        let silent = now.saturating_sub(self.last_progress);
        self.expected_after(0, now) + silent
    }

    /// When it would have delivered what it owes and `more` bytes.
    pub(super) fn expected_after(&self, more: u64, now: Duration) -> Duration {
        let rate = self.rate.unwrap_or(ASSUMED_RATE).max(1);
        let millis = (self.owed_bytes.saturating_add(more)).saturating_mul(1000) / rate;
        now + Duration::from_millis(millis)
    }
}
