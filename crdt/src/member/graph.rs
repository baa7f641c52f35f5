//! The records as a graph, and what any part of it says about a device: its role, and whether it may extend the log.
//!
//! A device is a member while an admission of it stands that no removal has in its past. So a removal ends what its
//! author knew of, and an admission that came later, or apart from it, stays. Roles are statements in the same way: a later one
//! replaces those that it knows, and of several that were made apart the one that gives least counts. Which records
//! count at all is decided in `effect`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Role;
use super::place::Places;
use super::record::{Action, Record};
use crate::id::{DeviceId, Hash};

/// Records with their pasts. The place of a record is its number in the list; parents come first.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    nodes: Vec<Arc<Node>>,
    places: BTreeMap<Hash, usize>,
    by_author: BTreeMap<DeviceId, Vec<usize>>,
    /// Bytes of all records of an author.
    weights: BTreeMap<DeviceId, usize>,
    about: BTreeMap<DeviceId, Vec<usize>>,
    recoveries: Vec<usize>,
    rotations: Vec<usize>,
    retentions: Vec<usize>,
    unknown: Vec<usize>,
    /// For each place, the records that take its effect away unless they have none themselves.
    foes: BTreeMap<usize, Vec<usize>>,
}

/// A record in the graph.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) record: Record,
    /// All that it builds on, without itself.
    pub(super) past: Places,
}

/// What a device's role stands on in some part of the graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Seat {
    /// Admissions that no removal ended.
    pub(super) admissions: Vec<usize>,
    /// What was said about its role and not replaced.
    statements: Vec<usize>,
}

impl Graph {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, place: usize) -> Option<&Node> {
        self.nodes.get(place).map(Arc::as_ref)
    }

    pub(super) fn place(&self, hash: &Hash) -> Option<usize> {
        self.places.get(hash).copied()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().map(Arc::as_ref).enumerate()
    }

    /// Everything.
    pub(super) fn all(&self) -> Places {
        (0..self.nodes.len()).collect()
    }

    /// The known ones of these records and all that they build on.
    pub(super) fn past_of(&self, hashes: &[Hash]) -> Places {
        let mut past = Places::default();
        for place in hashes.iter().filter_map(|hash| self.place(hash)) {
            past.insert(place);
            if let Some(node) = self.node(place) {
                past.add(&node.past);
            }
        }
        past
    }

    /// Whether the one builds on the other.
    pub(super) fn follows(&self, later: usize, earlier: usize) -> bool {
        self.node(later)
            .is_some_and(|node| node.past.contains(earlier))
    }

    /// How many records of an author there are, and their bytes.
    pub(super) fn written_by(&self, author: &DeviceId) -> (usize, usize) {
        let count = self.by_author.get(author).map_or(0, Vec::len);
        (count, self.weights.get(author).copied().unwrap_or(0))
    }

    /// Whether something in there is only understood by a later version.
    pub(super) fn has_unknown(&self, within: &Places) -> bool {
        self.unknown.iter().any(|place| within.contains(*place))
    }

    /// The records about a device's membership.
    pub(super) fn about(&self, device: &DeviceId) -> &[usize] {
        self.about.get(device).map_or(&[], Vec::as_slice)
    }

    pub(super) fn foes(&self, place: usize) -> &[usize] {
        self.foes.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Every record with a foe.
    pub(super) fn disputed(&self) -> impl Iterator<Item = (usize, &[usize])> {
        self.foes
            .iter()
            .map(|(place, foes)| (*place, foes.as_slice()))
    }

    /// What `place` needs to be judged first, beside its foes.
    pub(super) fn grounds(&self, place: usize) -> impl Iterator<Item = usize> {
        let node = self.node(place);
        let about = node.map_or(&[][..], |node| self.about(&node.record.author));
        // Whom the recovery key made admin nobody else changes: that, too, must be known first.
        let recovers = |node: &&Node| {
            let mut recoveries = self.recoveries.iter();
            recoveries.any(|recovery| node.past.contains(*recovery))
        };
        let subject = node.filter(recovers).and_then(|node| node.record.about());
        let subject = subject.map_or(&[][..], |device| self.about(&device));
        about
            .iter()
            .chain(subject)
            .chain(&self.recoveries)
            .copied()
            .filter(move |ground| node.is_some_and(|node| node.past.contains(*ground)))
    }

    /// What a device's role stands on, and the role, by those records that `counts`.
    pub(super) fn seat(
        &self,
        device: &DeviceId,
        counts: &dyn Fn(usize) -> bool,
    ) -> Option<(Role, Seat)> {
        let mut seat = Seat::default();
        for place in self.about(device).iter().copied().filter(|at| counts(*at)) {
            let Some(node) = self.node(place) else {
                continue;
            };
            let unknown_to = |earlier: &usize| !node.past.contains(*earlier);
            match &node.record.action {
                Action::Revoke { .. } => seat.admissions.retain(unknown_to),
                Action::Found { .. } | Action::Admit { .. } => {
                    seat.admissions.push(place);
                    seat.statements.retain(unknown_to);
                    seat.statements.push(place);
                }
                Action::SetRole { .. } => {
                    seat.statements.retain(unknown_to);
                    seat.statements.push(place);
                }
                Action::Recovery { .. }
                | Action::Format { .. }
                | Action::Rotate { .. }
                | Action::Retention { .. }
                | Action::Leave
                | Action::Unknown => {}
            }
        }
        if seat.admissions.is_empty() {
            return None;
        }
        // What the recovery key says outranks what admins said apart from it.
        if seat.statements.iter().any(|at| self.is_by_recovery(*at)) {
            seat.statements.retain(|at| self.is_by_recovery(*at));
        }
        let mut least = None;
        for place in &seat.statements {
            let role = match self.node(*place).map(|node| &node.record.action) {
                Some(Action::Found { .. }) => Role::Admin,
                Some(Action::Admit { role, .. }) if seat.admissions.contains(place) => *role,
                Some(Action::SetRole { role, .. }) => *role,
                _ => continue,
            };
            least = least.max(Some(role));
        }
        Some((least?, seat))
    }

    /// Those of `places` that `counts` and that no later one of them builds on.
    fn latest(&self, places: &[usize], counts: &dyn Fn(usize) -> bool) -> Vec<&Node> {
        let mut latest: Vec<(usize, &Node)> = Vec::new();
        for place in places.iter().copied().filter(|at| counts(*at)) {
            let Some(node) = self.node(place) else {
                continue;
            };
            latest.retain(|(earlier, _)| !node.past.contains(*earlier));
            latest.push((place, node));
        }
        latest.into_iter().map(|(_, node)| node).collect()
    }

    /// The rotations that counting ones do not build on, the one that counts most first.
    pub(super) fn latest_rotations(&self, effective: &Places) -> Vec<&Node> {
        let mut latest = self.latest(&self.rotations, &|at| effective.contains(at));
        latest.sort_by_key(|node| node.record.hash);
        latest
    }

    /// All rotations, whether they count or not.
    pub(super) fn rotations(&self) -> impl DoubleEndedIterator<Item = (usize, &Node)> {
        let places = self.rotations.iter();
        places.filter_map(|place| self.node(*place).map(|node| (*place, node)))
    }

    /// Every device that any record was about.
    pub(super) fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.about.keys()
    }

    /// How many days of history are kept by all: of what was said apart, the most.
    pub(super) fn retention(&self, effective: &Places) -> Option<u32> {
        let latest = self.latest(&self.retentions, &|at| effective.contains(at));
        let days = latest.iter().filter_map(|node| match node.record.action {
            Action::Retention { days } => Some(days),
            _ => None,
        });
        days.max()
    }

    /// The key that outranks the admins, by those records that `counts`.
    pub(super) fn recovery(&self, counts: &dyn Fn(usize) -> bool) -> Option<DeviceId> {
        let latest = self.latest(&self.recoveries, counts);
        let first = latest.into_iter().min_by_key(|node| node.record.hash)?;
        match first.record.action {
            Action::Recovery { key } => Some(key),
            _ => None,
        }
    }

    /// Whether a record's author may write it on top of `past`, by those records of it that `counts`.
    pub(super) fn permits(
        &self,
        record: &Record,
        past: &Places,
        counts: &dyn Fn(usize) -> bool,
    ) -> bool {
        let before = |at| past.contains(at) && counts(at);
        let recovery = self.recovery(&before);
        if self.is_recovery(&record.author, past) {
            // No removal reaches what it signs, so it has this right or none.
            return recovery == Some(record.author);
        }
        let role = self.seat(&record.author, &before).map(|(role, _)| role);
        role == Some(Role::Admin)
            && (recovery.is_none()
                || !matches!(record.action, Action::Recovery { .. })
                    && !self.is_outranked(record, &before))
    }

    /// Whether a record is about a device that the recovery key made admin, and its author is not one of those.
    fn is_outranked(&self, record: &Record, counts: &dyn Fn(usize) -> bool) -> bool {
        let subject = record.about().filter(|device| *device != record.author);
        subject.is_some_and(|device| {
            self.is_recovered(&device, counts) && !self.is_recovered(&record.author, counts)
        })
    }

    /// Whether a device is admin by the word of the recovery key, by those records that `counts`.
    pub(super) fn is_recovered(&self, device: &DeviceId, counts: &dyn Fn(usize) -> bool) -> bool {
        let Some((Role::Admin, seat)) = self.seat(device, counts) else {
            return false;
        };
        let mut statements = seat.statements.iter();
        statements.any(|place| self.is_by_recovery(*place))
    }

    /// Whether a record is signed by a key that outranks the admins.
    fn is_by_recovery(&self, place: usize) -> bool {
        self.node(place)
            .is_some_and(|node| self.is_recovery(&node.record.author, &node.past))
    }

    /// Whether something in `past`, whether it counts or not, names this key as the one that outranks the admins.
    fn is_recovery(&self, author: &DeviceId, past: &Places) -> bool {
        let mut known = self.recoveries.iter().filter(|at| past.contains(**at));
        known.any(|at| {
            let record = self.node(*at).map(|node| &node.record.action);
            matches!(record, Some(Action::Recovery { key }) if key == author)
        })
    }

    /// Adds a record whose parents are here. Gives its place, and whether it is a foe of records before it.
    pub(super) fn add(&mut self, record: Record, past: Places) -> (usize, bool) {
        let place = self.nodes.len();
        let author = record.author;
        self.places.insert(record.hash, place);
        self.by_author.entry(author).or_default().push(place);
        *self.weights.entry(author).or_default() += record.bytes.len();
        if let Some(device) = record.about() {
            self.about.entry(device).or_default().push(place);
        }
        match record.action {
            Action::Recovery { .. } => self.recoveries.push(place),
            Action::Rotate { .. } => self.rotations.push(place),
            Action::Retention { .. } => self.retentions.push(place),
            Action::Unknown => self.unknown.push(place),
            _ => {}
        }
        self.nodes.push(Arc::new(Node { record, past }));
        let foes: Vec<usize> = self
            .about(&author)
            .iter()
            .chain(&self.recoveries)
            .copied()
            .filter(|foe| self.is_foe(*foe, place))
            .collect();
        if !foes.is_empty() {
            self.foes.insert(place, foes);
        }
        let victims = self.victims(place);
        for victim in &victims {
            self.foes.entry(*victim).or_default().push(place);
        }
        (place, !victims.is_empty())
    }

    /// Records before `place` that it is a foe of.
    fn victims(&self, place: usize) -> Vec<usize> {
        let Some(node) = self.node(place) else {
            return Vec::new();
        };
        let unseated = node.record.unseats();
        let written = unseated.and_then(|device| self.by_author.get(&device));
        let rivals = match node.record.action {
            Action::Recovery { .. } => self.recoveries.as_slice(),
            _ => &[],
        };
        let before = written.map_or(&[][..], Vec::as_slice).iter().chain(rivals);
        before
            .copied()
            .filter(|victim| *victim < place && self.is_foe(place, *victim))
            .collect()
    }

    /// Whether one record takes the effect of another away. A removal does it to all that the removed device
    /// wrote apart from it; of two first recovery keys the one with the greater hash has none.
    fn is_foe(&self, foe: usize, victim: usize) -> bool {
        let (Some(by), Some(of)) = (self.node(foe), self.node(victim)) else {
            return false;
        };
        if foe == victim || by.past.contains(victim) || of.past.contains(foe) {
            return false;
        }
        if let (Action::Recovery { .. }, Action::Recovery { .. }) =
            (&by.record.action, &of.record.action)
        {
            return by.record.hash < of.record.hash;
        }
        if by.record.unseats() != Some(of.record.author)
            || self.is_recovery(&of.record.author, &of.past)
        {
            return false;
        }
        // Its own going is nobody's dispute.
        let goes = of.record.about() == Some(of.record.author)
            && matches!(of.record.action, Action::Revoke { .. });
        !goes
    }
}
