//! The secrets that bodies are sealed with, one for each epoch of the mesh.
//!
//! The first is made by the founder; a joiner is handed all of them. Which one is current, and who gets a new
//! one, is the membership's business: a replica only keeps those that it was given, for what is sealed with an old
//! one stays. How a secret is sealed for a member stands in `epoch/keys`.

pub(crate) mod keys;

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::{DeviceId, EpochId, Hash};

/// The context in which an epoch's name is derived from its secret.
const NAME: &str = "wormhole 2026 name of an epoch";

/// The context of a proof.
const PROOF: &str = "wormhole 2026 proof of an epoch";

/// What the members of one epoch share. Wiped when dropped; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct EpochSecret([u8; 32]);

impl EpochSecret {
    /// A new one.
    #[must_use]
    pub fn random(rng: &mut dyn Rng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Wraps raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What `from` shows to `to` to prove that it knows the secret. It is told to nobody else, so it can be the same
    /// each time.
    pub(crate) fn proof(&self, from: &DeviceId, to: &DeviceId) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(PROOF);
        hasher.update(&self.0);
        hasher.update(from.as_bytes());
        hasher.update(to.as_bytes());
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// A key for another use than sealing, which does not tell the secret.
    #[must_use]
    pub fn derive(&self, context: &'static str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }

    /// Its epoch's name, which does not tell the secret.
    #[must_use]
    pub fn id(&self) -> EpochId {
        let mut id = [0; 16];
        let mut hasher = blake3::Hasher::new_derive_key(NAME);
        hasher.update(&self.0).finalize_xof().fill(&mut id);
        EpochId::from_bytes(id)
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EpochSecret").field(&self.id()).finish()
    }
}

/// All secrets that a replica was given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Epochs {
    order: Vec<EpochSecret>,
    by_id: BTreeMap<EpochId, usize>,
    current: usize,
}

impl Epochs {
    /// Adds a secret. `false` when it was known.
    pub(crate) fn add(&mut self, secret: EpochSecret) -> bool {
        let new = !self.by_id.contains_key(&secret.id());
        if new {
            self.by_id.insert(secret.id(), self.order.len());
            self.order.push(secret);
        }
        new
    }

    /// The secret of an epoch.
    pub(crate) fn get(&self, id: &EpochId) -> Option<&EpochSecret> {
        self.by_id.get(id).and_then(|at| self.order.get(*at))
    }

    /// The one to write under; none in a replica that was never given any.
    pub(crate) fn current(&self) -> Option<&EpochSecret> {
        self.order.get(self.current)
    }

    /// From now on the first of `ranked` that is here is written under, else the mesh's first.
    pub(crate) fn choose(&mut self, ranked: impl IntoIterator<Item = EpochId>) {
        let mut ranked = ranked.into_iter();
        let chosen = ranked.find_map(|id| self.by_id.get(&id));
        self.current = chosen.copied().unwrap_or_default();
    }

    /// All of them, in the order in which they came.
    pub(crate) fn all(&self) -> &[EpochSecret] {
        &self.order
    }
}

impl FromIterator<EpochSecret> for Epochs {
    fn from_iter<I: IntoIterator<Item = EpochSecret>>(secrets: I) -> Self {
        let mut epochs = Self::default();
        for secret in secrets {
            epochs.add(secret);
        }
        epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_name_and_never_printed() {
        let [one, two] = [1, 2].map(|byte| EpochSecret::from_bytes([byte; 32]));
        let mut epochs = Epochs::from_iter([one.clone(), two.clone()]);
        assert!(!epochs.add(one.clone()));
        assert_eq!(epochs.get(&one.id()), Some(&one));
        assert_eq!(
            epochs.current(),
            Some(&one),
            "the first, when nothing is said"
        );
        let unknown = EpochId::from_bytes([9; 16]);
        epochs.choose([unknown, two.id(), one.id()]);
        assert_eq!(epochs.current(), Some(&two));
        assert_eq!(epochs.all().len(), 2);
        assert_eq!(epochs.get(&EpochId::from_bytes([0; 16])), None);
        assert!(!format!("{one:?}").contains("0101"));
    }
}
