//! Sealing a body: for those who may keep an envelope and pass it on, but not read it.
//!
//! The sealed body follows from the plain one, the epoch's secret and the place in the log, so that a member
//! can make it at any time and gets the bytes whose hash is in the head. Its key depends on the plain body,
//! too: no key ever seals two bodies, not even of two envelopes under one number.

use chacha20poly1305::aead::Aead;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::Zeroizing;

use super::{Envelope, Frame, Place, hash, split};
use crate::epoch::{EpochSecret, Epochs};
use crate::error::EnvelopeFault;
use crate::id::{Author, Hash};

/// The context in which a body's key is derived.
const KEY: &str = "wormhole 2026 key of a sealed body";

/// A sealed body, and the keyed hash of the plain one.
pub(super) struct Sealed {
    pub(super) mark: Hash,
    pub(super) bytes: Vec<u8>,
}

/// Seals a plain body.
pub(super) fn seal(secret: &EpochSecret, place: Place, plain: &[u8]) -> Sealed {
    let mark = Hash::from_bytes(*blake3::keyed_hash(secret.as_bytes(), plain).as_bytes());
    let bytes = cipher(secret, place, &mark).encrypt(&Default::default(), plain);
    Sealed {
        mark,
        bytes: bytes.expect("a body is far shorter than the cipher's limit"),
    }
}

fn cipher(secret: &EpochSecret, place: Place, mark: &Hash) -> ChaCha20Poly1305 {
    let mut hasher = blake3::Hasher::new_derive_key(KEY);
    hasher.update(secret.as_bytes());
    hasher.update(place.author.device.as_bytes());
    hasher.update(&place.author.incarnation.0.to_be_bytes());
    hasher.update(&place.seq.to_be_bytes());
    hasher.update(place.prev.as_bytes());
    hasher.update(mark.as_bytes());
    let key = Zeroizing::new(*hasher.finalize().as_bytes());
    ChaCha20Poly1305::new(key.as_ref().into())
}

/// What somebody without the secret can tell of a sealed envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedEnvelope {
    /// Who signed it.
    pub author: Author,
    /// Its number in that author's log.
    pub seq: u64,
    /// The name of the author's envelope before it.
    pub prev: Hash,
    /// Its name.
    pub hash: Hash,
}

/// Checks an envelope with a sealed body without opening it: signature, order and every hash.
///
/// # Errors
///
/// The rule that the bytes break.
pub fn verify_sealed(bytes: &[u8]) -> Result<SealedEnvelope, EnvelopeFault> {
    let frame = Frame::verify(bytes)?;
    let (head, body) = split(bytes, &frame)?;
    if hash(body) != head.body {
        return Err(EnvelopeFault::Malformed);
    }
    Ok(SealedEnvelope {
        author: frame.author,
        seq: frame.seq,
        prev: frame.prev,
        hash: frame.hash,
    })
}

impl Envelope<'_> {
    /// The envelope with its body sealed, for those who may not read it.
    pub(crate) fn sealed(&self, secret: &EpochSecret) -> Option<Vec<u8>> {
        let (_, plain) = split(self.bytes, &self.frame).ok()?;
        let sealed = seal(secret, self.frame.place(), plain);
        if sealed.mark != self.head.mark {
            return None;
        }
        let before = self.bytes.len() - plain.len();
        let mut bytes = self.bytes.get(..before)?.to_vec();
        bytes.extend_from_slice(&sealed.bytes);
        Some(bytes)
    }
}

/// The inverse of [`Envelope::sealed`].
pub(crate) fn open(bytes: &[u8], epochs: &Epochs) -> Result<Vec<u8>, EnvelopeFault> {
    let frame = Frame::verify(bytes)?;
    let (head, sealed) = split(bytes, &frame)?;
    let secret = epochs.get(&head.epoch);
    let secret = secret.ok_or(EnvelopeFault::UnknownEpoch { epoch: head.epoch })?;
    let cipher = cipher(secret, frame.place(), &head.mark);
    let plain = cipher.decrypt(&Default::default(), sealed);
    let plain = plain.map_err(|_| EnvelopeFault::Malformed)?;
    let before = bytes.len() - sealed.len();
    let mut opened = bytes.get(..before).unwrap_or_default().to_vec();
    opened.extend_from_slice(&plain);
    Ok(opened)
}
