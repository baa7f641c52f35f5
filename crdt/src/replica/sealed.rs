//! Envelopes in the form for those who may keep and pass them on, but not read them.

use super::Replica;
use crate::envelope::{self, Envelope};
use crate::error::{Damage, EnvelopeFault, StorageError};
use crate::id::Line;
use crate::log;

impl Replica {
    /// An envelope of this replica's logs with its body sealed; `None` when it is not here. See
    /// [`crate::verify_sealed`].
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn sealed_envelope(
        &self,
        line: impl Into<Line>,
        seq: u64,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let shared = self.shared();
        let line = shared.forks.holder(line.into(), seq);
        if log::hash_at(&self.read()?, &line, seq)?.is_none() {
            return Ok(None);
        }
        let bytes = log::sent(&self.read()?, line, seq)?;
        let damaged = || StorageError::Damaged(Damage::Log(line.author));
        let envelope = Envelope::decode_trusted(&bytes).map_err(|_| damaged())?;
        let secret = shared.epochs.get(&envelope.head.epoch);
        let sealed = secret.and_then(|secret| envelope.sealed(secret));
        sealed.map(Some).ok_or_else(damaged)
    }

    /// Opens what [`Replica::sealed_envelope`] gave, here or on another member's device.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break, or the epoch whose secret is missing.
    pub fn open_sealed(&self, bytes: &[u8]) -> Result<Vec<u8>, EnvelopeFault> {
        envelope::open(bytes, &self.shared().epochs)
    }
}

#[cfg(test)]
mod tests {
    use crate::lab::{create, mesh, sync, write};
    use crate::member::Role;
    use crate::{Hash, verify_sealed};

    #[test]
    fn a_member_gives_the_sealed_form_of_every_envelope_whoever_wrote_it() {
        let replicas = mesh(&[Role::Writer]);
        let id = create(&replicas[0], "plan", 1, 1);
        (2..6).for_each(|number| write(&replicas[0], id, number));
        sync(&replicas[0], &replicas[1]);
        let author = replicas[0].shared().author;
        let mut prev = Hash::from_bytes([0; 32]);
        for seq in 1..=5 {
            let both = [0, 1].map(|at| replicas[at].sealed_envelope(author, seq).unwrap());
            assert_eq!(both[0], both[1]);
            let sealed = both[0].as_ref().unwrap();
            let told = verify_sealed(sealed).unwrap();
            assert_eq!((told.author, told.seq, told.prev), (author, seq, prev));
            prev = told.hash;
            let plain = replicas[1].open_sealed(sealed).unwrap();
            let log = replicas[0].read().unwrap();
            let stored = crate::log::sent(&log, author.into(), seq).unwrap();
            assert_eq!(plain, stored);
        }
        assert_eq!(replicas[1].sealed_envelope(author, 6).unwrap(), None);
    }
}
