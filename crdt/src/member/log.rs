//! The membership log of one mesh, in memory: what may be added to it, what it says, and what another device lacks of it.
//!
//! Whether a record is taken depends on nothing but the record and those that it builds on, so that what one honest
//! device took every other takes, in any order. One thing is bounded by what is here: how many records of one admin are
//! kept. What is beyond waits aside until somebody else builds on it.

mod rotation;

pub(crate) use rotation::Rotation;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::place::Places;
use super::record::{Action, Cut, Record};
use super::state::State;
use super::{MemberFault, Role, Verdict};
use crate::id::{Author, DeviceId, DeviceKey, Hash, Incarnation, MeshId, Timestamp};
use crate::limit::{
    MAX_AUTHOR_RECORD_BYTES, MAX_AUTHOR_RECORDS, MAX_LEAVE_BYTES, MAX_MEMBER_HEADS, MAX_TOLD_HEADS,
};

/// How one device tells another what it has of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The records that count and that no other builds on, or as many of them as fit.
    pub(crate) heads: Vec<Hash>,
    /// A hash over who left.
    pub(crate) leaves: Hash,
    /// A hash over the records that do not count: somebody may have cited them before that was known.
    pub(crate) void: Hash,
}

/// The membership log of one mesh.
#[derive(Debug, Clone)]
pub(crate) struct MemberLog {
    mesh: MeshId,
    graph: Graph,
    /// The records that count.
    effective: Places,
    heads: BTreeSet<Hash>,
    state: State,
    /// By the admission that each ends.
    leaves: BTreeMap<Hash, Record>,
    aside: Aside,
    quota: Quota,
}

/// How much of one admin is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Quota {
    const DEFAULT: Self = Self {
        records: MAX_AUTHOR_RECORDS,
        bytes: MAX_AUTHOR_RECORD_BYTES,
    };
}

/// Records beyond their author's quota, until somebody else builds on them. The oldest go first.
#[derive(Debug, Clone, Default)]
struct Aside {
    records: BTreeMap<Hash, Record>,
    order: VecDeque<Hash>,
    bytes: usize,
}

impl MemberLog {
    /// Starts a mesh.
    pub(crate) fn found(
        key: &DeviceKey,
        mesh_name: &str,
        device_name: &str,
        now: Timestamp,
        rng: &mut dyn Rng,
    ) -> Self {
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let (mesh_name, device_name) = (mesh_name.to_owned(), device_name.to_owned());
        let action = Action::Found {
            mesh_name,
            device_name,
            nonce,
        };
        Self::start(Record::sign(key, None, Vec::new(), now, action))
    }

    /// Rebuilds a log from its records, parents first. The first founds the mesh.
    pub(crate) fn from_records<'a>(
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, MemberFault> {
        let mut records = records.into_iter();
        let first = Record::decode(records.next().ok_or(MemberFault::Malformed)?)?;
        if !matches!(first.action, Action::Found { .. })
            || first.mesh.is_some()
            || !first.parents.is_empty()
        {
            return Err(MemberFault::OtherMesh);
        }
        let mut log = Self::start(first);
        for bytes in records {
            log.insert(Record::decode(bytes)?)?;
        }
        Ok(log)
    }

    fn start(first: Record) -> Self {
        let mut log = Self {
            mesh: MeshId::from_bytes(*first.hash.as_bytes()),
            graph: Graph::default(),
            effective: Places::default(),
            heads: BTreeSet::new(),
            state: State::default(),
            leaves: BTreeMap::new(),
            aside: Aside::default(),
            quota: Quota::DEFAULT,
        };
        log.take_in(first, Places::default());
        log
    }

    #[cfg(test)]
    pub(super) fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    #[cfg(test)]
    pub(super) fn longest_past(&self) -> usize {
        let words = self.graph.nodes().map(|(_, node)| node.past.words());
        words.max().unwrap_or(0)
    }

    pub(crate) fn mesh(&self) -> MeshId {
        self.mesh
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The records that count and that no other that counts builds on.
    pub(crate) fn heads(&self) -> Vec<Hash> {
        self.heads.iter().copied().collect()
    }

    /// The records of the graph; the place of each never changes.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.graph.nodes().map(|(_, node)| &node.record)
    }

    /// The records of those who left.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (&Hash, &Record)> {
        self.leaves.iter()
    }

    /// Those of them whose admission counts: the others are told of no other admission.
    pub(crate) fn told_leaves(&self) -> impl Iterator<Item = (&Hash, &Record)> {
        self.leaves.iter().filter(|(admission, _)| {
            let place = self.graph.place(admission);
            place.is_some_and(|place| self.effective.contains(place))
        })
    }

    /// The records that do not count, parents first. What was written by who took them to count cites them, so that
    /// nobody can judge it without them.
    pub(crate) fn void(&self) -> impl Iterator<Item = &Record> {
        // Nearly always there is none, and this is asked all the time.
        let all = self.effective.len() == self.graph.len();
        let nodes = (!all).then(|| self.graph.nodes()).into_iter().flatten();
        let void = nodes.filter(|(place, _)| !self.effective.contains(*place));
        void.map(|(_, node)| &node.record)
    }

    /// What to tell others of what is here.
    pub(crate) fn told(&self) -> Told {
        let mut hasher = blake3::Hasher::new();
        for (admission, _) in self.told_leaves() {
            hasher.update(admission.as_bytes());
        }
        let mut void: Vec<&Hash> = self.void().map(|record| &record.hash).collect();
        void.sort_unstable();
        let mut void_hasher = blake3::Hasher::new();
        for hash in void {
            void_hasher.update(hash.as_bytes());
        }
        Told {
            heads: self.heads.iter().copied().take(MAX_TOLD_HEADS).collect(),
            leaves: Hash::from_bytes(*hasher.finalize().as_bytes()),
            void: Hash::from_bytes(*void_hasher.finalize().as_bytes()),
        }
    }

    /// Heads that `device` cites in what it signs: as many as may be cited, those first that say what it may do.
    pub(crate) fn cited(&self, device: &DeviceId) -> Vec<Hash> {
        if self.heads.len() <= MAX_MEMBER_HEADS {
            return self.heads();
        }
        let holds = |head: &Hash, place: usize| {
            let head = self.graph.place(head);
            head.is_some_and(|head| head == place || self.graph.follows(head, place))
        };
        let about = self.graph.about(device).iter().rev();
        let mut cited: BTreeSet<Hash> = BTreeSet::new();
        for place in about
            .copied()
            .filter(|place| self.effective.contains(*place))
        {
            if cited.len() < MAX_MEMBER_HEADS && !cited.iter().any(|head| holds(head, place)) {
                cited.extend(self.heads.iter().find(|head| holds(head, place)));
            }
        }
        for head in &self.heads {
            if cited.len() >= MAX_MEMBER_HEADS {
                break;
            }
            cited.insert(*head);
        }
        cited.into_iter().collect()
    }

    /// Adds a record. `Ok(false)` when it was known, or waits aside.
    pub(crate) fn insert(&mut self, record: Record) -> Result<bool, MemberFault> {
        if self.graph.place(&record.hash).is_some() || self.aside.records.contains_key(&record.hash)
        {
            return Ok(false);
        }
        if record.mesh != Some(self.mesh)
            || record.parents.is_empty()
            || matches!(record.action, Action::Found { .. })
        {
            return Err(MemberFault::OtherMesh);
        }
        if matches!(record.action, Action::Leave) {
            return self.insert_leave(record);
        }
        let missing = self.missing(&record)?;
        let (count, bytes) = self.graph.written_by(&record.author);
        if count >= self.quota.records || bytes + record.bytes.len() > self.quota.bytes {
            self.aside.keep(record);
            return Ok(false);
        }
        for hash in missing {
            if let Some(waiting) = self.aside.take(&hash) {
                self.insert_checked(waiting)?;
            }
        }
        self.insert_checked(record)?;
        Ok(true)
    }

    /// The parents that wait aside, and theirs, parents first.
    fn missing(&self, record: &Record) -> Result<Vec<Hash>, MemberFault> {
        let (mut found, mut order) = (BTreeSet::new(), Vec::new());
        let mut open: Vec<(Hash, bool)> =
            record.parents.iter().map(|hash| (*hash, false)).collect();
        while let Some((hash, is_done)) = open.pop() {
            if is_done {
                order.push(hash);
                continue;
            }
            if self.graph.place(&hash).is_some() || !found.insert(hash) {
                continue;
            }
            let Some(waiting) = self.aside.records.get(&hash) else {
                return Err(MemberFault::MissingParent { parent: hash });
            };
            open.push((hash, true));
            open.extend(waiting.parents.iter().map(|parent| (*parent, false)));
        }
        Ok(order)
    }

    /// Adds a record whose parents are here, if its author could write it where it stood.
    fn insert_checked(&mut self, record: Record) -> Result<(), MemberFault> {
        let past = self.graph.past_of(&record.parents);
        let before = self.effective_in(&past);
        if !self
            .graph
            .permits(&record, &past, &|at| before.contains(at))
        {
            let author = record.author;
            return Err(match self.graph.has_unknown(&past) {
                true => MemberFault::Unreadable { author },
                false => MemberFault::NotAdmin { author },
            });
        }
        self.take_in(record, past);
        Ok(())
    }

    fn insert_leave(&mut self, record: Record) -> Result<bool, MemberFault> {
        let [admission] = *record.parents.as_slice() else {
            return Err(MemberFault::Malformed);
        };
        if record.bytes.len() > MAX_LEAVE_BYTES {
            return Err(MemberFault::TooLarge);
        }
        let place = self.graph.place(&admission);
        let Some(node) = place.and_then(|place| self.graph.node(place)) else {
            return Err(MemberFault::MissingParent { parent: admission });
        };
        let author = record.author;
        match node.record.action {
            Action::Admit { device, .. } if device == author => {}
            Action::Found { .. } if node.record.author == author => {}
            Action::Unknown => return Err(MemberFault::Unreadable { author }),
            _ => return Err(MemberFault::NotAdmin { author }),
        }
        if self.leaves.contains_key(&admission) {
            return Ok(false);
        }
        self.leaves.insert(admission, record);
        self.state
            .look_up(&self.graph, &self.effective, &self.leaves, author);
        Ok(true)
    }

    fn take_in(&mut self, record: Record, past: Places) {
        let (place, disputes) = self.graph.add(record, past);
        if disputes {
            self.effective = self.graph.effective(&self.graph.all());
            self.state = State::derive(&self.graph, &self.effective, &self.leaves);
            self.heads = self.top();
            return;
        }
        let effective = &self.effective;
        let foes = self.graph.foes(place);
        let counts = !foes.iter().any(|foe| effective.contains(*foe))
            && self.graph.is_permitted(place, &|at| effective.contains(at));
        let Some(node) = self.graph.node(place) else {
            return;
        };
        if counts {
            self.effective.insert(place);
            self.heads.retain(|head| {
                let head = self.graph.place(head);
                head.is_none_or(|head| !node.past.contains(head))
            });
            self.heads.insert(node.record.hash);
        }
        self.state
            .apply(&self.graph, &self.effective, &self.leaves, (place, node));
    }

    /// The heads, looked for from the end.
    fn top(&self) -> BTreeSet<Hash> {
        let (mut covered, mut heads) = (Places::default(), BTreeSet::new());
        for place in (0..self.graph.len()).rev() {
            if let Some(node) = self.graph.node(place)
                && self.effective.contains(place)
                && !covered.contains(place)
            {
                covered.add(&node.past);
                heads.insert(node.record.hash);
            }
        }
        heads
    }

    /// What counts where there is nothing but `past`.
    fn effective_in(&self, past: &Places) -> Places {
        let closed = self.graph.disputed().all(|(place, foes)| {
            !past.contains(place) || foes.iter().all(|foe| past.contains(*foe))
        });
        if closed {
            // Nothing from outside bears upon it.
            self.effective.shared(past)
        } else {
            self.graph.effective(past)
        }
    }

    /// Signs the next record. The caller inserts it.
    pub(crate) fn next(&self, key: &DeviceKey, now: Timestamp, action: Action) -> Record {
        let parents = self.cited(&key.device_id());
        Record::sign(key, Some(self.mesh), parents, now, action)
    }

    /// The record by which `key`'s device says that it goes; `None` when it is no member, or an admin, which
    /// goes by a removal.
    pub(crate) fn leave(&self, key: &DeviceKey, now: Timestamp) -> Option<Record> {
        let effective = |at| self.effective.contains(at);
        let (role, seat) = self.graph.seat(&key.device_id(), &effective)?;
        let admissions = seat.admissions.iter();
        let admission = admissions
            .filter_map(|at| self.graph.node(*at).map(|node| node.record.hash))
            .find(|hash| !self.leaves.contains_key(hash))?;
        let parents = vec![admission];
        (role != Role::Admin)
            .then(|| Record::sign(key, Some(self.mesh), parents, now, Action::Leave))
    }

    /// Whether one admin has written all that is kept of it.
    pub(crate) fn is_full_for(&self, author: &DeviceId) -> bool {
        let (count, bytes) = self.graph.written_by(author);
        count >= self.quota.records || bytes + MAX_LEAVE_BYTES > self.quota.bytes
    }

    /// Records that a member who told this lacks, parents first.
    pub(crate) fn beyond(&self, theirs: &Told) -> Vec<&Record> {
        let mut records = self.beyond_heads(&theirs.heads, &self.heads());
        let told = self.told();
        if theirs.void != told.void {
            // Of those that count all are there by then that they build on.
            let sent: BTreeSet<Hash> = records.iter().map(|record| record.hash).collect();
            records.extend(self.void().filter(|record| !sent.contains(&record.hash)));
        }
        if theirs.leaves != told.leaves {
            records.extend(self.told_leaves().map(|(_, record)| record));
        }
        records
    }

    /// Records below `wanted` that are not below `heads`, parents first.
    pub(crate) fn beyond_heads(&self, heads: &[Hash], wanted: &[Hash]) -> Vec<&Record> {
        let known = self.graph.past_of(heads);
        let wanted = self.graph.past_of(wanted);
        let nodes = self.graph.nodes();
        nodes
            .filter(|(place, _)| wanted.contains(*place) && !known.contains(*place))
            .map(|(_, node)| &node.record)
            .collect()
    }

    /// The records that say why a device is no member: all of the log that concerns it.
    pub(crate) fn concerning(&self, device: &DeviceId) -> Vec<Hash> {
        if self.state.members.contains_key(device) {
            return self.heads();
        }
        let removals = self.state.removals.iter();
        let mut places: BTreeSet<usize> = removals
            .filter(|removal| removal.device == *device)
            .map(|removal| removal.place)
            .collect();
        for place in self.graph.about(device) {
            let foes = self.graph.foes(*place).iter();
            places.extend(foes.filter(|foe| self.effective.contains(**foe)));
        }
        let nodes = places.iter().filter_map(|place| self.graph.node(*place));
        nodes.map(|node| node.record.hash).collect()
    }

    /// Whether somebody who has `theirs` knows that `device`, which is this one, has left.
    pub(crate) fn tells_of_leaving(&self, theirs: &Told, device: &DeviceId) -> bool {
        if self.state.has_left(device) {
            return theirs.leaves == self.told().leaves;
        }
        let mut removals = self.state.removals.iter();
        removals.any(|removal| {
            removal.device == *device && removal.by == *device && {
                let past = self.graph.past_of(&theirs.heads);
                past.contains(removal.place)
            }
        })
    }

    /// Changes whenever something in the log does.
    pub(crate) fn mark(&self) -> Hash {
        let told = self.told();
        let mut hasher = blake3::Hasher::new();
        for hash in told.heads.iter().chain([&told.leaves]) {
            hasher.update(hash.as_bytes());
        }
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    pub(crate) fn knows_all(&self, heads: &[Hash]) -> bool {
        heads.iter().all(|head| self.graph.place(head).is_some())
    }

    /// Whether envelope `seq` of `author`, written when it saw the membership `cited`, counts.
    pub(crate) fn judge(&self, author: Author, seq: u64, cited: &[Hash]) -> Verdict {
        if cited.is_empty() || !self.knows_all(cited) {
            return Verdict::UnknownHeads;
        }
        let current =
            cited.len() == self.heads.len() && cited.iter().all(|head| self.heads.contains(head));
        let device = author.device;
        if current && self.state.role_of(&device).is_some_and(Role::can_write) {
            return Verdict::Admit;
        }
        let past = self.graph.past_of(cited);
        let before = self.effective_in(&past);
        let seat = self.graph.seat(&device, &|at| before.contains(at));
        if !seat.is_some_and(|(role, _)| role.can_write()) {
            return match self.graph.has_unknown(&past) {
                // The part that is not understood may say otherwise.
                true => Verdict::UnknownHeads,
                false => Verdict::NotWriter,
            };
        }
        // What it stood on then, as far as that counts in the whole picture.
        let counts = self.effective.shared(&past);
        match self.graph.seat(&device, &|at| counts.contains(at)) {
            Some((role, seat)) if role.can_write() => {
                let mut admissions = seat.admissions.iter();
                let stands = admissions.any(|admission| {
                    let mut later = self.state.removals.iter();
                    later.all(|removal| {
                        removal.device != device
                            || past.contains(removal.place)
                            || !self.graph.follows(removal.place, *admission)
                            || seq <= cut_for(&removal.cut, author.incarnation)
                    })
                });
                match stands {
                    true => Verdict::Admit,
                    false => Verdict::BeyondCut,
                }
            }
            Some(_) | None => Verdict::BeyondCut,
        }
    }
}

impl Aside {
    fn keep(&mut self, record: Record) {
        self.bytes += record.bytes.len();
        self.order.push_back(record.hash);
        self.records.insert(record.hash, record);
        while self.order.len() > MAX_AUTHOR_RECORDS || self.bytes > MAX_AUTHOR_RECORD_BYTES {
            let Some(oldest) = self.order.front().copied() else {
                break;
            };
            self.take(&oldest);
        }
    }

    fn take(&mut self, hash: &Hash) -> Option<Record> {
        let record = self.records.remove(hash)?;
        self.bytes -= record.bytes.len();
        self.order.retain(|other| other != hash);
        Some(record)
    }
}

fn cut_for(cut: &Cut, incarnation: Incarnation) -> u64 {
    cut.iter()
        .find(|(life, _)| *life == incarnation)
        .map_or(0, |(_, seq)| *seq)
}
