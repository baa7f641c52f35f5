//! An epoch's secret, sealed for each of those who get it: a key list.
//!
//! ```text
//! keys   epoch 16   point 32   (device 32, sealed secret 48) × 1.., ascending
//! ```
//!
//! A member's encryption key is the X25519 form of its device key, so every member has one, and nobody can put another
//! in its place. The scalar of `point` is derived from the secret that is sealed; with the device it decides the
//! key, so a list is the same whoever makes it, no key seals two texts, and who has the secret can make the entry
//! of somebody whom the list left out.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use zeroize::Zeroizing;

use super::EpochSecret;
use crate::id::{DeviceId, DeviceKey, EpochId, Hash};
use crate::limit::MAX_KEYS_BYTES;

/// The context in which the scalar of a list's point is derived.
const POINT: &str = "wormhole 2026 point of a key list";

/// The context in which the key of an entry is derived.
const ENTRY: &str = "wormhole 2026 entry of a key list";

const HEAD: usize = 16 + 32;
const SEALED: usize = 32 + 16;
const ENTRY_BYTES: usize = 32 + SEALED;

/// How many devices one list has room for; the others are handed an entry of their own.
pub(crate) const MAX_ENTRIES: usize = (MAX_KEYS_BYTES - HEAD) / ENTRY_BYTES;

/// A key list that was read, not opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyList<'a> {
    pub(crate) epoch: EpochId,
    point: &'a [u8; 32],
    entries: &'a [[u8; ENTRY_BYTES]],
}

/// Seals a secret for each of `devices`, as many as there is room for.
pub(crate) fn seal(secret: &EpochSecret, devices: impl IntoIterator<Item = DeviceId>) -> Vec<u8> {
    let mut devices: Vec<DeviceId> = devices.into_iter().collect();
    devices.sort_unstable();
    devices.dedup();
    let scalar = Zeroizing::new(secret.derive(POINT));
    let point = x25519_dalek::x25519(*scalar, x25519_dalek::X25519_BASEPOINT_BYTES);
    let mut bytes = Vec::with_capacity(HEAD + ENTRY_BYTES * devices.len().min(MAX_ENTRIES));
    bytes.extend_from_slice(secret.id().as_bytes());
    bytes.extend_from_slice(&point);
    // A device whose id is no key cannot be there to read it.
    let keys = devices
        .iter()
        .filter_map(|device| Some((device, device.sealing_key()?)));
    for (device, key) in keys.take(MAX_ENTRIES) {
        let shared = Zeroizing::new(x25519_dalek::x25519(*scalar, key));
        let mut sealed = Zeroizing::new(*secret.as_bytes());
        let tag = cipher(&shared, &point, device)
            .encrypt_in_place_detached(&Nonce::default(), secret.id().as_bytes(), &mut *sealed)
            .expect("32 bytes can be sealed");
        bytes.extend_from_slice(device.as_bytes());
        bytes.extend_from_slice(&*sealed);
        bytes.extend_from_slice(&tag);
    }
    bytes
}

fn cipher(shared: &[u8; 32], point: &[u8; 32], device: &DeviceId) -> ChaCha20Poly1305 {
    let mut hasher = blake3::Hasher::new_derive_key(ENTRY);
    hasher.update(shared);
    hasher.update(point);
    hasher.update(device.as_bytes());
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    ChaCha20Poly1305::new(Key::from_slice(&*key))
}

/// What a record names a list by.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Hash::from_bytes(*blake3::hash(bytes).as_bytes())
}

impl<'a> KeyList<'a> {
    /// Reads a list; `None` when the bytes are none.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MAX_KEYS_BYTES {
            return None;
        }
        let (epoch, rest) = bytes.split_first_chunk::<16>()?;
        let (point, rest) = rest.split_first_chunk::<32>()?;
        let (entries, rest) = rest.as_chunks::<ENTRY_BYTES>();
        let ascend = entries.is_sorted_by(|a, b| a.first_chunk::<32>() < b.first_chunk::<32>());
        (rest.is_empty() && !entries.is_empty() && ascend).then(|| Self {
            epoch: EpochId::from_bytes(*epoch),
            point,
            entries,
        })
    }

    fn entry(&self, device: &DeviceId) -> Option<&[u8; ENTRY_BYTES]> {
        let by_device = |entry: &[u8; ENTRY_BYTES]| {
            let id = entry.first_chunk::<32>().copied().unwrap_or_default();
            DeviceId::from_bytes(id).cmp(device)
        };
        let at = self.entries.binary_search_by(by_device).ok()?;
        self.entries.get(at)
    }

    /// Whether there is an entry for a device.
    pub(crate) fn is_for(&self, device: &DeviceId) -> bool {
        self.entry(device).is_some()
    }

    /// The secret, if there is an entry for this device, and it is what it says.
    pub(crate) fn open(&self, key: &DeviceKey) -> Option<EpochSecret> {
        let device = key.device_id();
        let (_, sealed) = self.entry(&device)?.split_first_chunk::<32>()?;
        let (sealed, tag) = sealed.split_first_chunk::<32>()?;
        let shared = key.agree(self.point)?;
        let mut secret = Zeroizing::new(*sealed);
        cipher(&shared, self.point, &device)
            .decrypt_in_place_detached(
                &Nonce::default(),
                self.epoch.as_bytes(),
                &mut *secret,
                Tag::from_slice(tag),
            )
            .ok()?;
        let secret = EpochSecret::from_bytes(*secret);
        (secret.id() == self.epoch).then_some(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bend::{Budget, bend};
    use crate::lab::key;

    #[test]
    fn a_sealed_secret_is_opened_by_those_it_is_for_and_by_nobody_else() {
        let secret = EpochSecret::from_bytes([7; 32]);
        let devices = [1, 2, 3].map(|number| key(number).device_id());
        let bytes = seal(&secret, devices);
        let list = KeyList::read(&bytes).unwrap();
        for number in 1..=3 {
            assert_eq!(list.open(&key(number)), Some(secret.clone()));
        }
        assert_eq!(list.open(&key(4)), None);
        assert_eq!(
            bytes,
            seal(&secret, devices.into_iter().rev()),
            "the same whoever makes it"
        );
        let alone = seal(&secret, [devices[1]]);
        let entry = &alone[HEAD..];
        assert!(bytes.windows(entry.len()).any(|part| part == entry));
        assert_eq!(bytes.len(), HEAD + 3 * 80, "a thousand members are 80 KB");
    }

    #[test]
    fn an_entry_moved_to_another_device_epoch_or_point_opens_nothing() {
        let [one, two] = [7, 8].map(|byte| EpochSecret::from_bytes([byte; 32]));
        let [a, b] = [1, 2].map(|number| key(number).device_id());
        let (right, other) = (seal(&one, [a]), seal(&two, [a]));
        for (from, to) in [(0, 16), (16, HEAD), (HEAD + 32, HEAD + 80)] {
            let mut mixed = right.clone();
            mixed[from..to].copy_from_slice(&other[from..to]);
            assert_eq!(KeyList::read(&mixed).unwrap().open(&key(1)), None);
        }
        let mut given = right.clone();
        given[HEAD..HEAD + 32].copy_from_slice(b.as_bytes());
        assert_eq!(KeyList::read(&given).unwrap().open(&key(2)), None);
        let mut null = right;
        null[16..HEAD].fill(0);
        assert_eq!(KeyList::read(&null).unwrap().open(&key(1)), None);
    }

    #[test]
    fn what_is_no_key_is_left_out_of_a_list() {
        let secret = EpochSecret::from_bytes([7; 32]);
        let weak = DeviceId::from_bytes(
            *b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        );
        let bytes = seal(&secret, [weak, key(1).device_id()]);
        assert_eq!(bytes.len(), HEAD + ENTRY_BYTES);
        assert!(KeyList::read(&seal(&secret, [weak])).is_none());
    }

    #[test]
    fn bent_key_lists_do_no_harm() {
        let secret = EpochSecret::from_bytes([7; 32]);
        let devices = [1, 2, 3].map(|number| key(number).device_id());
        let right = [seal(&secret, devices)];
        let budget = Budget {
            fixed: 1 << 16,
            per_byte: 4,
        };
        bend("key lists", &right, "", budget, |bytes| {
            if let Some(list) = KeyList::read(bytes) {
                let opened = list.open(&key(2));
                assert!(opened.is_none_or(|opened| opened == secret));
            }
        });
    }
}
