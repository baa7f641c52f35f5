//! Members: who they are, letting one in, removing one.

use std::sync::Arc;

use rand::Rng;

use super::{Change, Commit, Replica, Writer, header, renew};
use crate::error::{MemberError, Misbehaviour, SessionError, StorageError};
use crate::id::{DeviceId, Timestamp};
use crate::member::{
    Action, Member, MemberFault, MemberLog, Record, Role, State, Welcome, label_fits,
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

    /// What a newly admitted device needs to start.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        let shared = self.shared();
        Welcome {
            mesh: self.inner.mesh,
            name: shared.members.state().mesh_name.clone(),
            records: shared
                .members
                .records()
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
        if let Some(role) = self.role_of(&device) {
            return Err(MemberError::AlreadyMember { device, role });
        }
        let name = name.to_owned();
        self.extend(now, Action::Admit { device, name, role })?;
        let shared = self.shared();
        let member = shared.members.state().members.get(&device);
        member.cloned().ok_or(MemberError::NotMember { device })
    }

    /// Removes a device. What it wrote and this device has seen stays; what others see of it
    /// later does not count. Any member may remove itself. Durable on return.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn revoke(&self, device: DeviceId, now: Timestamp) -> Result<(), MemberError> {
        let shared = self.shared();
        let members = &shared.members.state().members;
        let Some(member) = members.get(&device) else {
            return Err(MemberError::NotMember { device });
        };
        let admins = members.values().filter(|m| m.role == Role::Admin).count();
        if member.role == Role::Admin && admins == 1 {
            return Err(MemberError::LastAdmin);
        }
        let cut = shared
            .vector
            .iter()
            .filter(|(author, _)| author.device == device)
            .map(|(author, seq)| (author.incarnation, seq))
            .collect();
        self.extend(now, Action::Revoke { device, cut })
    }

    fn extend(&self, now: Timestamp, action: Action) -> Result<(), MemberError> {
        let own = self.device();
        let mut writer = self.inner.writer()?;
        let role = writer.members.state().role_of(&own);
        let leaves = matches!(action, Action::Revoke { device, .. } if device == own);
        if role != Some(Role::Admin) && !leaves {
            return Err(MemberError::NotAdmin { role });
        }
        let mut members = MemberLog::clone(&writer.members);
        let record = members.next(&self.inner.key, now, action);
        members.insert(record).map_err(MemberError::Refused)?;
        self.set_members(&mut writer, members, Origin::Here)?;
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
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
        }
        if news {
            self.set_members(&mut writer, members, Origin::Peer(rng))?;
        }
        drop(writer);
        self.inner.observers.deliver();
        fault.map_or(Ok(()), |fault| Err(Misbehaviour::Member(fault).into()))
    }

    /// Stores the log and takes back what does not count any more.
    fn set_members(
        &self,
        writer: &mut Writer,
        members: MemberLog,
        origin: Origin<'_>,
    ) -> Result<(), StorageError> {
        let own = self.device();
        let readmitted = is_readmitted(writer.members.state(), members.state(), &own);
        let local = matches!(origin, Origin::Here);
        let entries = self
            .inner
            .transact(writer, Commit::Durable, |txn, writer| {
                header::set_members(txn, &members)?;
                writer.members = Arc::new(members);
                if let Origin::Peer(rng) = origin
                    && readmitted
                {
                    // The others may hold the end of the old log aside. What is written now vouches for it,
                    // which the same log could not do.
                    renew(txn, writer, rng)?;
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
enum Origin<'r> {
    Here,
    Peer(&'r mut dyn Rng),
}

/// Whether a device was removed and is a member again.
fn is_readmitted(before: &State, after: &State, device: &DeviceId) -> bool {
    let removals = |state: &State| {
        let all = state.removals.iter();
        all.filter(|removal| removal.device == *device).count()
    };
    after.role_of(device).is_some()
        && (before.role_of(device).is_none() || removals(before) < removals(after))
}
