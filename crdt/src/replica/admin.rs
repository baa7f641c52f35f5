//! Members: who they are, letting one in, removing one.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;

use super::{Change, Commit, Replica, Writer, header, renew};
use crate::error::{MemberError, Misbehaviour, SessionError, StorageError};
use crate::id::{DeviceId, DeviceKey, Hash, Incarnation, Timestamp};
use crate::member::{
    Action, Member, MemberFault, MemberLog, Record, Removed, Role, Rotation, State, WRITES_FORMAT,
    Welcome, free_name, label_fits,
};

impl Replica {
    /// The members, ordered by device.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.shared()
            .members
            .state()
            .members
            .values()
            .cloned()
            .collect()
    }

    /// What `device` may do; `None` if it is no member (any more).
    #[must_use]
    pub fn role_of(&self, device: &DeviceId) -> Option<Role> {
        self.shared().members.state().role_of(device)
    }

    /// Devices whose admission is void, because whoever admitted them had been removed. Nothing that they wrote counts
    /// until they are admitted again.
    #[must_use]
    pub fn stranded(&self) -> Vec<Member> {
        let shared = self.shared();
        shared.members.state().stranded.values().cloned().collect()
    }

    /// Who removed `device`, and when; `None` while it is a member, or if it never was.
    #[must_use]
    pub fn removal_of(&self, device: &DeviceId) -> Option<Removed> {
        let shared = self.shared();
        let state = shared.members.state();
        if state.members.contains_key(device) {
            return None;
        }
        let removals = state.removals.iter();
        let last = removals
            .filter(|removal| removal.device == *device)
            .max_by_key(|removal| removal.at)?;
        Some(Removed {
            by: last.by,
            at: last.at,
        })
    }

    /// Changes with every change of the membership.
    #[must_use]
    pub fn membership_mark(&self) -> Hash {
        self.shared().members.mark()
    }

    /// Whether the mesh would be left without an admin if this device went.
    #[must_use]
    pub fn is_last_admin(&self) -> bool {
        let shared = self.shared();
        shared.members.state().is_last_admin(&self.device())
    }

    /// Whether somebody decided something about this mesh that only a later version understands.
    #[must_use]
    pub fn needs_update(&self) -> bool {
        let shared = self.shared();
        let state = shared.members.state();
        state.unknown > 0 || state.format > WRITES_FORMAT
    }

    /// So many days of the mesh's history are not to be given up by anybody; `None` when nobody said so.
    #[must_use]
    pub fn retention_days(&self) -> Option<u32> {
        self.shared().members.state().retention
    }

    /// Says how many days of the mesh's history nobody may give up. Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn set_retention(&self, days: u32, now: Timestamp) -> Result<(), MemberError> {
        self.extend(now, |_| Ok(Action::Retention { days }))
    }

    /// Has only programs write from now on that know this format. A device with an older one goes on receiving and says
    /// that it needs an update. Never goes back. Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn require_format(&self, minimum: u16, now: Timestamp) -> Result<(), MemberError> {
        self.extend(now, |_| Ok(Action::Format { minimum }))
    }

    /// What a newly admitted device needs to start.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        let shared = self.shared();
        let members = &shared.members;
        // Those, too, that do not count: others may have built on them.
        let records = members.records();
        let leaves = members.told_leaves().map(|(_, record)| record);
        Welcome {
            mesh: self.inner.mesh,
            name: members.state().mesh_name.clone(),
            records: records
                .into_iter()
                .chain(leaves)
                .map(|record| record.bytes.clone())
                .collect(),
            epochs: shared.epochs.all().to_vec(),
        }
    }

    /// Lets a device in. Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn admit(
        &self,
        device: DeviceId,
        name: &str,
        role: Role,
        now: Timestamp,
    ) -> Result<Member, MemberError> {
        if !label_fits(name) {
            return Err(MemberError::Refused(MemberFault::BadLabel));
        }
        let name = name.to_owned();
        self.extend(now, |state| match state.role_of(&device) {
            Some(role) => Err(MemberError::AlreadyMember { device, role }),
            None => {
                let name = free_name(state, &name);
                Ok(Action::Admit { device, name, role })
            }
        })?;
        let shared = self.shared();
        let member = shared.members.state().members.get(&device);
        member.cloned().ok_or(MemberError::NotMember { device })
    }

    /// Removes a device. What it wrote and this device has seen stays; what others see of it
    /// later does not count, nor does what it decided as an admin and this device has not seen. From now on envelopes
    /// are sealed with a secret that it is not given. Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn revoke(&self, device: DeviceId, now: Timestamp) -> Result<(), MemberError> {
        let (cut, own) = (self.cut_of(&device), self.device());
        self.extend(now, |state| {
            // Of who left by itself what it signs still counts, until an admin says otherwise.
            if state.role_of(&device).is_none() && !state.has_left(&device) {
                return Err(MemberError::NotMember { device });
            }
            if state.outranks(&device, &own) {
                return Err(MemberError::Outranked { device });
            }
            if state.is_last_admin(&device) {
                return Err(MemberError::LastAdmin);
            }
            Ok(Action::Revoke { device, cut })
        })?;
        // Who goes by itself would know the secret: the next admin makes one.
        if device != self.device()
            && let Err(error) = self.rotate_if_needed(now)
        {
            // The device is removed; the secret is made when it is looked for the next time.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no new secret was made"
            );
        }
        Ok(())
    }

    /// Gives a member another role. When it writes no longer, what it wrote and this device has seen stays.
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn set_role(
        &self,
        device: DeviceId,
        role: Role,
        now: Timestamp,
    ) -> Result<(), MemberError> {
        let cut = match role.can_write() {
            true => Vec::new(),
            false => self.cut_of(&device),
        };
        let own = self.device();
        self.extend(now, |state| match state.role_of(&device) {
            None => Err(MemberError::NotMember { device }),
            Some(before) if before == role => Err(MemberError::AlreadyMember { device, role }),
            Some(_) if state.outranks(&device, &own) => Err(MemberError::Outranked { device }),
            Some(_) if state.is_last_admin(&device) => Err(MemberError::LastAdmin),
            Some(_) => Ok(Action::SetRole { device, role, cut }),
        })
    }

    /// Says that this device goes. Durable on return; others must hear of it before the replica is removed.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn leave(&self, now: Timestamp) -> Result<(), MemberError> {
        let own = self.device();
        match self.role_of(&own) {
            None => Err(MemberError::NotMember { device: own }),
            Some(Role::Admin) => self.revoke(own, now),
            Some(_) => {
                let mut writer = self.inner.writer()?;
                let mut members = MemberLog::clone(&writer.members);
                let record = members.leave(&self.inner.key, now);
                let record = record.ok_or(MemberError::NotMember { device: own })?;
                members.insert(record).map_err(MemberError::Refused)?;
                self.set_members(&mut writer, members, Origin::Here, None)?;
                drop(writer);
                self.inner.observers.deliver();
                Ok(())
            }
        }
    }

    /// Names the key that outranks all admins. Only once: after that only the key itself could name another. Durable
    /// on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn set_recovery(&self, key: DeviceId, now: Timestamp) -> Result<(), MemberError> {
        self.extend(now, |state| match state.recovery {
            Some(_) => Err(MemberError::HasRecovery),
            None => Ok(Action::Recovery { key }),
        })
    }

    /// Whether there is a key that outranks all admins.
    #[must_use]
    pub fn has_recovery(&self) -> bool {
        self.shared().members.state().recovery.is_some()
    }

    /// Makes this device an admin by the hand of the recovery key, whatever became of the admins, and of this
    /// device's membership. Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn recover(
        &self,
        key: &DeviceKey,
        device_name: &str,
        now: Timestamp,
    ) -> Result<(), MemberError> {
        let device = self.device();
        if !label_fits(device_name) {
            return Err(MemberError::Refused(MemberFault::BadLabel));
        }
        let mut writer = self.inner.writer()?;
        let state = writer.members.state();
        if state.recovery != Some(key.device_id()) {
            return Err(MemberError::WrongRecovery);
        }
        let role = Role::Admin;
        let action = match state.role_of(&device) {
            Some(Role::Admin) => return Err(MemberError::AlreadyMember { device, role }),
            Some(_) => Action::SetRole {
                device,
                role,
                cut: Vec::new(),
            },
            None => Action::Admit {
                device,
                name: free_name(state, device_name),
                role,
            },
        };
        let mut members = MemberLog::clone(&writer.members);
        let record = members.next(key, now, action);
        members.insert(record).map_err(MemberError::Refused)?;
        self.set_members(&mut writer, members, Origin::Here, None)?;
        drop(writer);
        self.inner.observers.deliver();
        Ok(())
    }

    /// The last number of each life of a device that is here.
    fn cut_of(&self, device: &DeviceId) -> Vec<(Incarnation, u64)> {
        let shared = self.shared();
        let mut cut = BTreeMap::new();
        let lines = shared.vector.iter();
        // Of a life with branches, up to the end of the longest.
        for (line, seq) in lines.filter(|(line, _)| line.author.device == *device) {
            let last = cut.entry(line.author.incarnation).or_insert(0);
            *last = seq.max(*last);
        }
        cut.into_iter().collect()
    }

    fn extend(
        &self,
        now: Timestamp,
        action: impl FnOnce(&State) -> Result<Action, MemberError>,
    ) -> Result<(), MemberError> {
        let own = self.device();
        let mut writer = self.inner.writer()?;
        let state = writer.members.state();
        let role = state.role_of(&own);
        if role != Some(Role::Admin) {
            return Err(MemberError::NotAdmin { role });
        }
        let action = action(state)?;
        let mut members = MemberLog::clone(&writer.members);
        if members.is_full_for(&own) {
            return Err(MemberError::Refused(MemberFault::Full));
        }
        let record = members.next(&self.inner.key, now, action);
        members.insert(record).map_err(MemberError::Refused)?;
        self.set_members(&mut writer, members, Origin::Here, None)?;
        drop(writer);
        self.inner.observers.deliver();
        Ok(())
    }

    /// Takes membership records from a peer, parents first. Durable on return.
    pub(crate) fn take_members(
        &self,
        records: &[&[u8]],
        rng: &mut dyn Rng,
    ) -> Result<(), SessionError> {
        let mut writer = self.inner.writer()?;
        let mut members = MemberLog::clone(&writer.members);
        let mut news = false;
        let mut fault = None;
        for bytes in records {
            match Record::decode(bytes).and_then(|record| members.insert(record)) {
                Ok(new) => news |= new,
                // Not the sender's fault: it may keep, or understand, what is not here.
                Err(MemberFault::MissingParent { .. } | MemberFault::Unreadable { .. }) => {}
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
        }
        if news {
            self.set_members(&mut writer, members, Origin::Peer(rng), None)?;
        }
        drop(writer);
        self.inner.observers.deliver();
        fault.map_or(Ok(()), |fault| Err(Misbehaviour::Member(fault).into()))
    }

    /// Stores the log, and an epoch that was made with it, and takes back what does not count any more.
    pub(super) fn set_members(
        &self,
        writer: &mut Writer,
        members: MemberLog,
        origin: Origin<'_>,
        made: Option<&Rotation>,
    ) -> Result<(), StorageError> {
        let own = self.device();
        let readmitted = is_readmitted(writer.members.state(), members.state(), &own);
        let local = matches!(origin, Origin::Here);
        let entries = self
            .inner
            .transact(writer, Commit::Durable, |txn, writer| {
                header::set_members(txn, &members)?;
                writer.members = Arc::new(members);
                writer.follow_rotations(txn, made)?;
                if readmitted {
                    // The others may hold the end of the old log aside. What is written now vouches for it,
                    // which the same log could not do.
                    match origin {
                        Origin::Peer(rng) => renew(txn, writer, rng)?,
                        Origin::Here => {
                            let heads = writer.members.heads();
                            writer.next_life(txn, heads.first().unwrap_or(&Hash::ZERO))?;
                        }
                    }
                }
                writer.retract(txn, own)
            })?;
        self.inner.observers.push(Change {
            entries,
            local,
            members: true,
        });
        Ok(())
    }
}

/// Who extended the membership log.
pub(super) enum Origin<'r> {
    Here,
    Peer(&'r mut dyn Rng),
}

/// Whether a device was removed, or lost the right to write, and has it again.
fn is_readmitted(before: &State, after: &State, device: &DeviceId) -> bool {
    let removals = |state: &State| {
        let all = state.removals.iter();
        all.filter(|removal| removal.device == *device).count()
    };
    let writes = |state: &State| state.role_of(device).is_some_and(Role::can_write);
    writes(after) && (!writes(before) || removals(before) < removals(after))
}
