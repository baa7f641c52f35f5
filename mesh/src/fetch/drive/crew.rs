//! The lanes to one holder, and which of them gets the next request.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use tokio::sync::mpsc;
use wormhole_store::Content;

use crate::{
    attachment::Visit,
    fetch::{
        lane::{Command, LaneId},
        plan::{Ask, ItemId, JobId},
    },
};

/// Lanes to one holder: streams have small windows, so a long fast path needs several.
const MAX_LANES: usize = 4;

/// A lane that owes more bytes than this is busy: the next request goes to another, or to a new one. As
/// much as a holder is first asked for, so that a slow one, whose window never grows, keeps to one lane.
const BUSY_BYTES: u64 = 2 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Crew {
    visit: Visit,
    lanes: BTreeMap<LaneId, Hand>,
    /// Fewer once the holder refused one.
    max_lanes: usize,
    /// Questions that wait for the first lane.
    questions: VecDeque<(JobId, Content)>,
}

/// The driver's end of a lane.
struct Hand {
    commands: mpsc::Sender<Command>,
    owed: VecDeque<(ItemId, u64)>,
    owed_bytes: u64,
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hand")
            .field("owed_bytes", &self.owed_bytes)
            .finish_non_exhaustive()
    }
}

/// Who takes the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// This lane.
    Lane(LaneId),
    /// One that must be hired first.
    New,
}

impl Crew {
    pub(super) fn new(visit: Visit) -> Self {
        Self {
            visit,
            lanes: BTreeMap::new(),
            max_lanes: MAX_LANES,
            questions: VecDeque::new(),
        }
    }

    /// The visit of the holder that the lanes belong to.
    pub(super) fn visit(&self) -> Visit {
        self.visit
    }

    pub(super) fn has(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Who can take a request now; `None` when all lanes have enough to write.
    pub(super) fn slot(&self) -> Option<Slot> {
        let free = self
            .lanes
            .iter()
            .filter(|(_, hand)| hand.commands.capacity() > 1);
        let least = free.min_by_key(|(_, hand)| hand.owed_bytes);
        match least {
            Some((_, hand))
                if hand.owed_bytes > BUSY_BYTES && self.lanes.len() < self.max_lanes =>
            {
                Some(Slot::New)
            }
            Some((lane, _)) => Some(Slot::Lane(*lane)),
            None if self.lanes.is_empty() => Some(Slot::New),
            None => None,
        }
    }

    pub(super) fn hire(&mut self, lane: LaneId, commands: mpsc::Sender<Command>) {
        self.lanes.insert(
            lane,
            Hand {
                commands,
                owed: VecDeque::new(),
                owed_bytes: 0,
            },
        );
    }

    /// Gives a lane a request. It must have been named by [`Crew::slot`].
    pub(super) fn give(&mut self, lane: LaneId, asks: Vec<Ask>) {
        let Some(hand) = self.lanes.get_mut(&lane) else {
            return;
        };
        // Questions go first, while there is room for them and the request: what is known about the
        // holder's content decides what else it is asked for.
        while hand.commands.capacity() > 1
            && let Some((job, content)) = self.questions.pop_front()
        {
            hand.send(Command::Have(job, content));
        }
        for ask in &asks {
            hand.owed.push_back((ask.item, ask.want.bytes()));
            hand.owed_bytes += ask.want.bytes();
        }
        hand.send(Command::Ask(asks));
    }

    /// Asks how much the holder has of a content, with the next request.
    pub(super) fn ask_holding(&mut self, job: JobId, content: Content) {
        self.questions.push_back((job, content));
    }

    /// An answer about the item came.
    pub(super) fn paid(&mut self, lane: LaneId, item: ItemId) {
        let Some(hand) = self.lanes.get_mut(&lane) else {
            return;
        };
        // Answers come in the order of the requests, so the first is the one.
        if let Some(at) = hand.owed.iter().position(|(owed, _)| *owed == item)
            && let Some((_, bytes)) = hand.owed.remove(at)
        {
            hand.owed_bytes -= bytes;
        }
    }

    /// The holder did not take this lane. True if it has others, which are then all there will be.
    pub(super) fn refused(&mut self, lane: LaneId) -> bool {
        let others = self.lanes.keys().filter(|other| **other != lane).count();
        self.max_lanes = others.max(1);
        others > 0
    }

    /// Takes a lane away; gives what it owed.
    pub(super) fn fire(&mut self, lane: LaneId) -> Vec<ItemId> {
        let hand = self.lanes.remove(&lane);
        hand.map_or_else(Vec::new, |hand| {
            hand.owed.into_iter().map(|(item, _)| item).collect()
        })
    }
}

impl Hand {
    fn send(&self, command: Command) {
        // Room was checked by `slot`. A lane that has just ended says so in an event, which gives
        // everything it owes to others.
        if self.commands.try_send(command).is_err() {
            tracing::trace!("the lane has ended");
        }
    }
}
