//! New epochs: made when somebody who knows the current secret is no member any more, taken from peers, handed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::WriteTransaction;

use super::admin::Origin;
use super::{Change, Commit, Entries, Replica, Writer, header};
use crate::epoch::keys::{self, KeyList};
use crate::epoch::{EpochSecret, Epochs};
use crate::error::{MemberError, Misbehaviour, SessionError, StorageError};
use crate::id::{DeviceId, Timestamp};
use crate::member::{MemberLog, Role, Rotation};

impl Replica {
    /// Whether somebody who is no member any more knows what envelopes are sealed with, so that an admin should
    /// [rotate](Self::rotate_if_needed).
    #[must_use]
    pub fn needs_rotation(&self) -> bool {
        self.shared().members.needs_rotation()
    }

    /// Makes a new epoch, if this device is an admin and somebody who is no member any more knows the secret of the
    /// current one. Durable on return. Gives whether it did.
    ///
    /// # Errors
    ///
    /// [`MemberError`]; nothing has then changed.
    pub fn rotate_if_needed(&self, now: Timestamp) -> Result<bool, MemberError> {
        let own = self.device();
        let mut writer = self.inner.writer()?;
        let is_admin = writer.members.state().role_of(&own) == Some(Role::Admin);
        if !is_admin || writer.members.is_full_for(&own) || !writer.members.needs_rotation() {
            return Ok(false);
        }
        let mut members = MemberLog::clone(&writer.members);
        let rotation = members.rotate(&self.inner.key, now);
        let record = rotation.record.clone();
        let is_new = members.insert(record).map_err(MemberError::Refused)?;
        if is_new {
            self.set_members(&mut writer, members, Origin::Here, Some(&rotation))?;
        }
        drop(writer);
        self.inner.observers.deliver();
        Ok(is_new)
    }

    /// All secrets that envelopes were and are sealed with, the one that is written under now first.
    #[must_use]
    pub fn epoch_secrets(&self) -> Vec<EpochSecret> {
        let shared = self.shared();
        let current = shared.epochs.current();
        let others = shared.epochs.all().iter();
        let others = others.filter(|secret| Some(*secret) != current);
        current.into_iter().chain(others).cloned().collect()
    }

    /// Takes key lists from a peer. Durable on return. Gives whether there was something new for this device.
    pub(crate) fn take_keys(&self, lists: &[&[u8]]) -> Result<bool, SessionError> {
        let mut writer = self.inner.writer()?;
        let mut epochs = Epochs::clone(&writer.epochs);
        let (mut news, mut kept) = (false, Vec::new());
        let read = self.read()?;
        for bytes in lists {
            let list = KeyList::read(bytes).ok_or(Misbehaviour::MalformedMessage)?;
            if !writer.members.names_epoch(&list.epoch) {
                // Not the sender's fault: a record may wait aside here.
                continue;
            }
            if epochs.get(&list.epoch).is_none()
                && let Some(secret) = list.open(&self.inner.key)
            {
                news |= epochs.add(secret);
            }
            if writer.members.keeps(bytes) && header::list(&read, &list.epoch)?.is_none() {
                kept.push((list.epoch, *bytes));
            }
        }
        drop(read);
        if !news && kept.is_empty() {
            return Ok(false);
        }
        self.inner
            .transact(&mut writer, Commit::Durable, |txn, writer| {
                for (epoch, list) in kept {
                    header::keep_list(txn, &epoch, list)?;
                }
                writer.set_epochs(txn, epochs)
            })?;
        if news {
            self.inner.observers.push(Change {
                entries: Entries::Listed(Vec::new()),
                local: false,
                members: false,
            });
        }
        drop(writer);
        self.inner.observers.deliver();
        Ok(news)
    }

    /// A list with an entry for this device: that of the record, if it is kept and has one.
    pub(crate) fn keys_for(
        &self,
        secret: &EpochSecret,
        device: &DeviceId,
    ) -> Result<Vec<u8>, StorageError> {
        let kept = header::list(&self.read()?, &secret.id())?;
        let kept =
            kept.filter(|bytes| KeyList::read(bytes).is_some_and(|list| list.is_for(device)));
        Ok(kept.unwrap_or_else(|| keys::seal(secret, [*device])))
    }
}

impl Writer {
    /// Writes under what the membership log says, with what was made here.
    pub(super) fn follow_rotations(
        &mut self,
        txn: &WriteTransaction,
        made: Option<&Rotation>,
    ) -> Result<(), StorageError> {
        let mut epochs = Epochs::clone(&self.epochs);
        if let Some(Rotation { secret, keys, .. }) = made {
            epochs.add(secret.clone());
            header::keep_list(txn, &secret.id(), keys)?;
        }
        let latest: BTreeSet<_> = self.members.latest_lists().map(|(id, _)| id).collect();
        header::keep_lists_of(txn, &latest)?;
        self.set_epochs(txn, epochs)
    }

    fn set_epochs(
        &mut self,
        txn: &WriteTransaction,
        mut epochs: Epochs,
    ) -> Result<(), StorageError> {
        epochs.choose(self.members.epochs());
        header::set_epochs(txn, &epochs)?;
        self.epochs = Arc::new(epochs);
        Ok(())
    }
}
