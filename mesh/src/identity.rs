//! Who this device is: one Ed25519 key, which is its [`DeviceId`], its libp2p `PeerId` and the signer of
//! everything it says.
//!
//! Only the translation lives here. The file that holds the seed belongs to the node's home.

use libp2p::{PeerId, identity};
use rand::Rng;
use wormhole_crdt::{DeviceId, DeviceKey};
use zeroize::Zeroizing;

/// The secret key of this device: a 32-byte Ed25519 seed, wiped from memory when dropped.
#[derive(Clone)]
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
}

/// Why bytes are not a device key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The key file is not exactly 32 bytes.
    #[error("the device key has {len} bytes instead of 32; restore the file from a backup")]
    Length {
        /// How many there are.
        len: usize,
    },
}

impl Identity {
    /// A new device.
    pub fn generate(rng: &mut dyn Rng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self { seed }
    }

    /// The device whose key file holds these bytes.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Length`] unless there are 32 of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let seed = bytes
            .try_into()
            .map_err(|_| IdentityError::Length { len: bytes.len() })?;
        Ok(Self {
            seed: Zeroizing::new(seed),
        })
    }

    /// The bytes for the key file. Whoever reads them can be this device.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The public key: what other devices know this one by.
    pub fn device_id(&self) -> DeviceId {
        self.device_key().device_id()
    }

    /// The key that signs metadata and membership.
    pub fn device_key(&self) -> DeviceKey {
        DeviceKey::from_seed(*self.seed)
    }

    /// The same key as the transports want it.
    pub(crate) fn keypair(&self) -> identity::Keypair {
        let mut seed = *self.seed;
        // The function wipes its argument, which is why it wants a mutable copy.
        identity::Keypair::ed25519_from_bytes(&mut seed).expect("any 32 bytes are an Ed25519 seed")
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("device", &self.device_id())
            .finish_non_exhaustive()
    }
}

/// The `PeerId` of a device; `None` if the id is no valid public key.
pub(crate) fn peer_id(device: &DeviceId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(device.as_bytes()).ok()?;
    Some(PeerId::from_public_key(&key.into()))
}

/// The device behind a `PeerId`; `None` unless its key is Ed25519, which is all that we talk to.
pub(crate) fn device_id(peer: &PeerId) -> Option<DeviceId> {
    /// Multihash code of "the digest is the data itself", used for keys of up to 42 bytes.
    const IDENTITY_HASH: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_HASH {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    let key = key.try_into_ed25519().ok()?;
    Some(DeviceId::from_bytes(key.to_bytes()))
}

/// Words of a device's fingerprint: 66 bits, more than anybody can make a key to match.
const WORDS: usize = 6;

/// The fingerprint of a device as words, for two people to compare: its key decides every one of them.
#[must_use]
pub fn words(device: &DeviceId) -> String {
    let context = "wormhole 2026 device fingerprint v1";
    let hash = blake3::derive_key(context, device.as_bytes());
    let list = bip39::Language::English.word_list();
    let (pairs, _) = hash.as_chunks::<2>();
    // 65,536 is a multiple of the 2,048 words of the list.
    let words = pairs.iter().take(WORDS).map(|pair| {
        let at = usize::from(u16::from_le_bytes(*pair)) % list.len();
        list.get(at).copied().unwrap_or_default()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_six_words_and_another_device_has_others() {
        let of = |n| words(&DeviceId::from_bytes([n; 32]));
        assert_eq!(of(1).split(' ').count(), 6);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_device_has_one_name_in_every_layer() {
        let identity = Identity::from_bytes(&[7; 32]).unwrap();
        let peer = identity.keypair().public().to_peer_id();
        assert_eq!(device_id(&peer), Some(identity.device_id()));
        assert_eq!(peer_id(&identity.device_id()), Some(peer));
    }

    #[test]
    fn a_key_file_of_another_length_is_refused() {
        let refused = Identity::from_bytes(&[7; 31]).unwrap_err();
        assert_eq!(refused, IdentityError::Length { len: 31 });
    }

    #[test]
    fn the_seed_is_not_printed() {
        let identity = Identity::from_bytes(&[7; 32]).unwrap();
        assert!(!format!("{identity:?}").contains("7, 7"));
    }

    #[test]
    fn a_peer_that_is_no_ed25519_key_has_no_device_id() {
        assert_eq!(device_id(&PeerId::random()), None);
    }
}
