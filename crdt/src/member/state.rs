//! Who is a member, as it follows from the records that count.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, Node, Seat};
use super::place::Places;
use super::record::{Action, Cut, Record};
use super::{Member, Role};
use crate::id::{DeviceId, Hash, Timestamp};

/// The members, and the cuts of those who were members.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) mesh_name: String,
    pub(crate) members: BTreeMap<DeviceId, Member>,
    /// Removals that took effect and took the right to write.
    pub(crate) removals: Vec<Removal>,
    /// Devices that were admitted by somebody whose admission of them is void. Nothing that they wrote counts
    /// until they are admitted again.
    pub(crate) stranded: BTreeMap<DeviceId, Member>,
    /// Devices that said themselves that they go, and that no admin has removed.
    left: BTreeSet<DeviceId>,
    /// The key that outranks the admins.
    pub(crate) recovery: Option<DeviceId>,
    /// Those whom it made admins: other admins do not change them.
    pub(crate) recovered: BTreeSet<DeviceId>,
    /// Only programs that know this format may write.
    pub(crate) format: u16,
    /// Nobody gives up what of the history is younger than so many days; `None` when nobody said so.
    pub(crate) retention: Option<u32>,
    /// How many records only a later version understands.
    pub(crate) unknown: usize,
}

/// One removal that took effect.
#[derive(Debug, Clone)]
pub(crate) struct Removal {
    pub(crate) device: DeviceId,
    /// Who removed it; itself when it left.
    pub(crate) by: DeviceId,
    pub(crate) at: Timestamp,
    pub(crate) cut: Cut,
    pub(super) place: usize,
}

impl State {
    pub(crate) fn role_of(&self, device: &DeviceId) -> Option<Role> {
        self.members.get(device).map(|member| member.role)
    }

    /// Whether the mesh would have no admin without this one.
    pub(crate) fn is_last_admin(&self, device: &DeviceId) -> bool {
        let mut admins = self.members.values().filter(|m| m.role == Role::Admin);
        admins.next().is_some_and(|first| first.device == *device) && admins.next().is_none()
    }

    /// Whether `by` may not change `device`, though it is an admin: the recovery key made that one admin.
    pub(crate) fn outranks(&self, device: &DeviceId, by: &DeviceId) -> bool {
        device != by && self.recovered.contains(device) && !self.recovered.contains(by)
    }

    /// Whether a device said itself that it goes, and no admin has ended its admission.
    pub(crate) fn has_left(&self, device: &DeviceId) -> bool {
        self.left.contains(device)
    }

    /// Computes everything.
    pub(super) fn derive(
        graph: &Graph,
        effective: &Places,
        leaves: &BTreeMap<Hash, Record>,
    ) -> Self {
        let mut state = Self::default();
        for (place, node) in graph.nodes() {
            state.apply(graph, effective, leaves, (place, node));
        }
        state
    }

    /// Takes one more record into account. Those before it are.
    pub(super) fn apply(
        &mut self,
        graph: &Graph,
        effective: &Places,
        leaves: &BTreeMap<Hash, Record>,
        (place, node): (usize, &Node),
    ) {
        let record = &node.record;
        if effective.contains(place) {
            match &record.action {
                Action::Found { mesh_name, .. } => self.mesh_name.clone_from(mesh_name),
                Action::Revoke { device, cut } => self.cut(place, record, *device, cut),
                Action::SetRole { device, role, cut } if !role.can_write() => {
                    self.cut(place, record, *device, cut);
                }
                Action::Recovery { .. } => {
                    self.recovery = graph.recovery(&|at| effective.contains(at));
                }
                Action::Format { minimum } => self.format = self.format.max(*minimum),
                Action::Retention { .. } => self.retention = graph.retention(effective),
                Action::Unknown => self.unknown += 1,
                Action::Admit { .. }
                | Action::SetRole { .. }
                | Action::Rotate { .. }
                | Action::Leave => {}
            }
        }
        if let Some(device) = record.about() {
            self.look_up(graph, effective, leaves, device);
        }
    }

    /// Brings what is known of one device up to date.
    pub(super) fn look_up(
        &mut self,
        graph: &Graph,
        effective: &Places,
        leaves: &BTreeMap<Hash, Record>,
        device: DeviceId,
    ) {
        self.members.remove(&device);
        self.stranded.remove(&device);
        self.left.remove(&device);
        self.recovered.remove(&device);
        if graph.is_recovered(&device, &|at| effective.contains(at)) {
            self.recovered.insert(device);
        }
        if let Some((role, seat)) = graph.seat(&device, &|at| effective.contains(at)) {
            let stays = |at: &usize| {
                let admission = graph.node(*at);
                // An admin goes by a record of the graph.
                role == Role::Admin
                    || admission.is_none_or(|node| !leaves.contains_key(&node.record.hash))
            };
            match admitted(graph, &seat, role, stays) {
                Some(member) => drop(self.members.insert(device, member)),
                None => drop(self.left.insert(device)),
            }
        } else if let Some((role, seat)) = graph.seat(&device, &|_| true)
            && let Some(member) = admitted(graph, &seat, role, |_| true)
        {
            self.stranded.insert(device, member);
        }
    }

    fn cut(&mut self, place: usize, record: &Record, device: DeviceId, cut: &Cut) {
        self.removals.push(Removal {
            device,
            by: record.author,
            at: record.at,
            cut: cut.clone(),
            place,
        });
    }
}

/// A member as its admission tells; of several the one with the smallest hash.
fn admitted(
    graph: &Graph,
    seat: &Seat,
    role: Role,
    stays: impl Fn(&usize) -> bool,
) -> Option<Member> {
    let admissions = seat.admissions.iter().filter(|at| stays(at));
    let records = admissions.filter_map(|at| graph.node(*at).map(|node| &node.record));
    let record = records.min_by_key(|record| record.hash)?;
    let (device, name, admitted_by) = match &record.action {
        Action::Found { device_name, .. } => (record.author, device_name, None),
        Action::Admit { device, name, .. } => (*device, name, Some(record.author)),
        _ => return None,
    };
    Some(Member {
        device,
        name: name.clone(),
        role,
        admitted_by,
        admitted_at: record.at,
    })
}
