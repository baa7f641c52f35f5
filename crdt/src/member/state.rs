//! Who is a member, as a pure function of a set of membership records.
//!
//! Records form a graph by their parents. They are put into one order that depends on nothing but
//! the set: a record comes after its parents, and among those that could come next the one by the
//! most senior author comes first. A record takes effect only if its author is an admin at that
//! point. So when two admins remove each other at the same time, on every replica the senior one
//! stays, and what the other did in that split moment does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Action, Record};
use super::{Member, Role};
use crate::id::{DeviceId, Hash, Incarnation};

/// The members, and the cuts of those who were members.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) mesh_name: String,
    pub(crate) members: BTreeMap<DeviceId, Member>,
    /// Removals that took effect, in order.
    pub(crate) removals: Vec<Removal>,
    /// Order of first admission: lower is more senior.
    seniority: BTreeMap<DeviceId, usize>,
}

/// One removal that took effect.
#[derive(Debug, Clone)]
pub(crate) struct Removal {
    pub(crate) record: Hash,
    pub(crate) device: DeviceId,
    pub(crate) cut: Vec<(Incarnation, u64)>,
}

impl State {
    /// Computes the state of `included` (a set that holds the parents of each of its records).
    pub(crate) fn derive(records: &BTreeMap<Hash, Record>, included: &BTreeSet<Hash>) -> Self {
        let mut state = Self::default();
        let mut waiting: BTreeMap<Hash, usize> = BTreeMap::new();
        let mut children: BTreeMap<Hash, Vec<Hash>> = BTreeMap::new();
        let mut ready: BTreeSet<(usize, Hash)> = BTreeSet::new();
        for hash in included {
            let Some(record) = records.get(hash) else {
                continue;
            };
            if record.parents.is_empty() {
                ready.insert((0, *hash));
                continue;
            }
            waiting.insert(*hash, record.parents.len());
            for parent in &record.parents {
                children.entry(*parent).or_default().push(*hash);
            }
        }
        while let Some((_, hash)) = ready.pop_first() {
            let Some(record) = records.get(&hash) else {
                continue;
            };
            state.apply(record);
            for child in children.remove(&hash).unwrap_or_default() {
                let Some(left) = waiting.get_mut(&child) else {
                    continue;
                };
                *left -= 1;
                if *left == 0
                    && let Some(record) = records.get(&child)
                {
                    let rank = state.seniority.get(&record.author).copied();
                    ready.insert((rank.unwrap_or(usize::MAX), child));
                }
            }
        }
        state
    }

    pub(crate) fn role_of(&self, device: &DeviceId) -> Option<Role> {
        self.members.get(device).map(|member| member.role)
    }

    fn apply(&mut self, record: &Record) {
        match &record.action {
            Action::Found {
                mesh_name,
                device_name,
                ..
            } => {
                self.mesh_name.clone_from(mesh_name);
                self.add(record, record.author, device_name, Role::Admin, None);
            }
            Action::Admit { device, name, role } => {
                // An admission of somebody who is here already changes nothing: of two admins who
                // admit the same device at once, the senior one decides.
                if self.is_admin(&record.author) && !self.members.contains_key(device) {
                    self.add(record, *device, name, *role, Some(record.author));
                }
            }
            Action::Revoke { device, cut } => {
                let allowed = self.is_admin(&record.author) || record.author == *device;
                if allowed && self.members.remove(device).is_some() {
                    let (record, device, cut) = (record.hash, *device, cut.clone());
                    self.removals.push(Removal {
                        record,
                        device,
                        cut,
                    });
                }
            }
        }
    }

    fn is_admin(&self, device: &DeviceId) -> bool {
        self.role_of(device) == Some(Role::Admin)
    }

    fn add(
        &mut self,
        record: &Record,
        device: DeviceId,
        name: &str,
        role: Role,
        admitted_by: Option<DeviceId>,
    ) {
        let next = self.seniority.len();
        self.seniority.entry(device).or_insert(next);
        let name = name.to_owned();
        let member = Member {
            device,
            name,
            role,
            admitted_by,
            admitted_at: record.at,
        };
        self.members.insert(device, member);
    }
}
