//! The names of things that have no readable name: devices, meshes, entries, buckets, writers.
//!
//! All are newtypes over fixed bytes, cheap to copy and ordered. What they name lives elsewhere;
//! names that people see are in `name`. Keys are here because a device's id *is* its public key.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limit::BUCKET_COUNT;

/// Text that is not the hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: {expected_digits} hexadecimal digits are expected")]
pub struct ParseIdError {
    /// How many digits the id has.
    pub expected_digits: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let short = self.0.get(..4).unwrap_or(&self.0);
                write!(f, concat!(stringify!($name), "({}…)"), HEXLOWER.encode(short))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let wrong = ParseIdError { expected_digits: $len * 2 };
                let bytes = HEXLOWER
                    .decode(text.to_ascii_lowercase().as_bytes())
                    .map_err(|_| wrong.clone())?;
                bytes.try_into().map(Self).map_err(|_| wrong)
            }
        }
    };
}

byte_id!(
    /// A device: its Ed25519 public key.
    DeviceId,
    32
);
byte_id!(
    /// A mesh: the hash of the first record of its membership log.
    MeshId,
    32
);
byte_id!(
    /// An entry of the tree. Random, and for ever: names and places change, ids do not.
    EntryId,
    16
);
byte_id!(
    /// The first bytes of a [`DeviceId`]: enough to break ties and to label conflict copies.
    DeviceTag,
    8
);
byte_id!(
    /// Tells versions of one device apart that have the same number: a device that was set back may number
    /// its writes twice, and both count.
    Branch,
    8
);
byte_id!(
    /// An epoch of a mesh: named after the secret that its members share.
    EpochId,
    16
);
byte_id!(
    /// A BLAKE3 hash of a signed record or envelope.
    Hash,
    32
);

impl DeviceId {
    /// The short form that goes into version stamps.
    #[must_use]
    pub fn tag(&self) -> DeviceTag {
        let mut tag = [0; 8];
        tag.copy_from_slice(self.0.first_chunk::<8>().expect("an id has 32 bytes"));
        DeviceTag(tag)
    }

    /// Whether `signature` over `message` is by this device.
    ///
    /// Strict verification: weak keys and malleable signatures are refused, so that all members
    /// agree on what is valid.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else {
            return false;
        };
        key.verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }

    /// The X25519 key that secrets are sealed to for this device: the same point as its signing key, in the other
    /// form. `None` when the bytes are no key at all.
    pub(crate) fn sealing_key(&self) -> Option<[u8; 32]> {
        let key = VerifyingKey::from_bytes(&self.0).ok()?;
        (!key.is_weak()).then(|| key.to_montgomery().to_bytes())
    }
}

impl Hash {
    /// The name of nothing: what comes before the first envelope of a log.
    pub(crate) const ZERO: Self = Self([0; 32]);

    /// The beginning: enough to tell two envelopes apart that are known to exist.
    #[must_use]
    pub(crate) fn mark(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

impl EntryId {
    /// The top of every tree. It is never stored and cannot be moved or removed.
    pub const ROOT: Self = Self([0; 16]);

    /// A new id; the caller decides the bucket (see [`BucketId`]), the rest is random.
    #[must_use]
    pub fn random_in(bucket: BucketId, rng: &mut dyn Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        let [high, low] = (bucket.0 << 4).to_be_bytes();
        let [first, second, ..] = &mut bytes;
        *first = high;
        *second = low | (*second & 0x0f);
        Self(bytes)
    }

    /// A new id in a random bucket.
    #[must_use]
    pub fn random(rng: &mut dyn Rng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The bucket that holds this entry's registers: the first 12 bits.
    #[must_use]
    pub const fn bucket(&self) -> BucketId {
        let [first, second, ..] = self.0;
        BucketId(((first as u16) << 4) | (second as u16 >> 4))
    }
}

/// One of the [`BUCKET_COUNT`] documents that the entries are spread over.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct BucketId(u16);

/// A number that is no bucket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no bucket {number}")]
pub struct BucketRangeError {
    /// The number.
    pub number: u16,
}

impl TryFrom<u16> for BucketId {
    type Error = BucketRangeError;

    fn try_from(number: u16) -> Result<Self, BucketRangeError> {
        Self::new(number).ok_or(BucketRangeError { number })
    }
}

impl BucketId {
    /// Checks the range.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number < BUCKET_COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Below [`BUCKET_COUNT`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// A random bucket.
    #[must_use]
    pub fn random(rng: &mut dyn Rng) -> Self {
        let [high, low, ..] = rng.next_u32().to_be_bytes();
        Self(u16::from_be_bytes([high, low]) % BUCKET_COUNT)
    }
}

/// One life of a device's log. A device that may have lost the end of its log (a restored backup)
/// starts a new life, because numbers that others have seen must never be used twice.
#[derive(
    Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Random, so that two copies restored from one backup do not choose the same.
    #[must_use]
    pub fn random(rng: &mut dyn Rng) -> Self {
        Self(rng.next_u64())
    }
}

/// Who wrote an envelope: a device in one of its lives. Each author has one numbered log.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Author {
    /// The device whose key signs.
    pub device: DeviceId,
    /// The device's life.
    pub incarnation: Incarnation,
}

impl Author {
    /// The Automerge actor that this author must use, and nobody else may.
    #[must_use]
    pub fn actor(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.device.0);
        hasher.update(&self.incarnation.0.to_be_bytes());
        let mut actor = [0; 16];
        hasher.finalize_xof().fill(&mut actor);
        actor
    }

    /// Bytes that order like the author: the key in the log's tables.
    pub(crate) fn to_key(self) -> [u8; 40] {
        let mut key = [0; 40];
        let (device, incarnation) = key.split_at_mut(32);
        device.copy_from_slice(&self.device.0);
        incarnation.copy_from_slice(&self.incarnation.0.to_be_bytes());
        key
    }

    /// The inverse of [`Author::to_key`].
    pub(crate) fn from_key(key: [u8; 40]) -> Self {
        let device = key.first_chunk::<32>().expect("the key has 40 bytes");
        let incarnation = key.last_chunk::<8>().expect("the key has 40 bytes");
        Self {
            device: DeviceId(*device),
            incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
        }
    }
}

/// One unbroken log: an author's, or, of an author that wrote two envelopes under one number, one of its branches
/// from there on. Which branch is the first one is this replica's own view: it names that which came first.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Whose log it is.
    pub author: Author,
    /// 0 for the first.
    pub branch: u64,
}

impl From<Author> for Line {
    fn from(author: Author) -> Self {
        Self { author, branch: 0 }
    }
}

impl From<&Author> for Line {
    fn from(author: &Author) -> Self {
        Self::from(*author)
    }
}

impl From<&Self> for Line {
    fn from(line: &Self) -> Self {
        *line
    }
}

impl Line {
    /// What a log's past calls it: the author's actor, or for a further branch one of its own.
    pub(crate) fn actor(&self) -> [u8; 16] {
        if self.branch == 0 {
            return self.author.actor();
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.to_key());
        let mut actor = [0; 16];
        hasher.finalize_xof().fill(&mut actor);
        actor
    }

    /// Bytes that order like the line: the key in the log's tables.
    pub(crate) fn to_key(self) -> [u8; 48] {
        let mut key = [0; 48];
        let (author, branch) = key.split_at_mut(40);
        author.copy_from_slice(&self.author.to_key());
        branch.copy_from_slice(&self.branch.to_be_bytes());
        key
    }

    /// The inverse of [`Line::to_key`].
    pub(crate) fn from_key(key: [u8; 48]) -> Self {
        let author = key.first_chunk::<40>().expect("the key has 48 bytes");
        let branch = key.last_chunk::<8>().expect("the key has 48 bytes");
        Self {
            author: Author::from_key(*author),
            branch: u64::from_be_bytes(*branch),
        }
    }
}

/// Nanoseconds since 1970-01-01 UTC, as some device's clock said. Shown to people, never trusted
/// for order.
#[derive(
    Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Timestamp(pub i64);

/// A device's signing key. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The key that a 32-byte seed stands for.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// The device that this key makes one.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// What this device and the one who holds the secret of `point` share (X25519); `None` when the point makes it
    /// the same for everybody.
    pub(crate) fn agree(&self, point: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let secret = Zeroizing::new(self.0.to_scalar_bytes());
        let shared = Zeroizing::new(x25519_dalek::x25519(*secret, *point));
        (*shared != [0; 32]).then_some(shared)
    }

    /// A secret that only this device can make, another one for each context and input.
    pub(crate) fn derive(&self, context: &'static str, input: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.0.as_bytes());
        hasher.update(input);
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.device_id()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn an_id_made_in_a_bucket_is_in_it() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for number in [0, 1, 15, 16, 255, 256, 4095] {
            let bucket = BucketId::new(number).unwrap();
            assert_eq!(EntryId::random_in(bucket, &mut rng).bucket(), bucket);
        }
        assert_eq!(BucketId::new(4096), None);
    }

    #[test]
    fn ids_survive_text_and_keys() {
        let device = DeviceKey::from_seed([7; 32]).device_id();
        assert_eq!(device.to_string().parse::<DeviceId>(), Ok(device));
        assert!("xyz".parse::<DeviceId>().is_err());
        let author = Author {
            device,
            incarnation: Incarnation(9),
        };
        assert_eq!(Author::from_key(author.to_key()), author);
        let line = Line { author, branch: 3 };
        assert_eq!(Line::from_key(line.to_key()), line);
    }

    #[test]
    fn only_the_key_of_the_device_signs_for_it() {
        let key = DeviceKey::from_seed([1; 32]);
        let signature = key.sign(b"hello");
        assert!(key.device_id().verify(b"hello", &signature));
        assert!(!key.device_id().verify(b"hullo", &signature));
        assert!(
            !DeviceKey::from_seed([2; 32])
                .device_id()
                .verify(b"hello", &signature)
        );
    }
}
