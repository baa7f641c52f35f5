//! The envelope: one signed, numbered, atomic batch of changes by one author.
//!
//! ```text
//! frame   format u8   mesh 32   device 32   life u64 BE   number u64 BE   prev 32   head's hash 32   signature 64
//! head    length u32 BE, then postcard of [`Head`]
//! body    postcard of the changes
//! ```
//!
//! The frame is the same in every format, so that a program can tell who signed what it cannot read. The
//! envelope's name is the hash of the signed part of its frame; through the head's hash, and the hash of
//! the sealed body in the head, it stands for everything. Members keep the body plain; whoever holds the
//! epoch's secret makes the same sealed body from it (`envelope/seal`).
//!
//! Decoding checks the signature, the hashes and the sizes, so that whoever holds an [`Envelope`] knows who
//! wrote it; whether it *counts* depends on the replica (`replica/apply`).

mod seal;

use serde::{Deserialize, Serialize};

use crate::epoch::{EpochSecret, Epochs};
use crate::error::{EnvelopeFault, Limit};
use crate::id::{
    Author, BucketId, DeviceId, DeviceKey, EpochId, Hash, Incarnation, MeshId, Timestamp,
};
use crate::limit::{
    MAX_ENVELOPE_BYTES, MAX_ENVELOPE_CHANGES, MAX_ENVELOPE_DEPS, MAX_EXTENSIONS, MAX_MEMBER_HEADS,
};
pub(crate) use seal::open;
pub use seal::{SealedEnvelope, verify_sealed};

const DOMAIN: &[u8] = b"wormhole envelope\0";

/// The layout of head and body that this program knows.
pub(crate) const FORMAT: u8 = 2;

/// Bytes of a frame.
pub(crate) const FRAME_BYTES: usize = SIGNED_BYTES + 64;

/// Bytes of a frame that the signature covers.
const SIGNED_BYTES: usize = 145;

/// An envelope of somebody that the author had applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    pub(crate) author: Author,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

/// Something that later programs say in a head: kept and passed on by those who do not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension<'a> {
    pub(crate) tag: u32,
    pub(crate) value: &'a [u8],
}

/// What an author says about its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head<'a> {
    /// Envelopes of others that the author applied since its last one.
    pub(crate) causes: Vec<Cause>,
    /// The heads of the membership log as the author knew it.
    pub(crate) members: Vec<Hash>,
    /// The greatest stamp in the changes: the author's logical clock.
    pub(crate) clock: u64,
    /// When it was made, by the author's own clock. For people; nothing is decided by it.
    pub(crate) at: Timestamp,
    /// Whose secret the body is sealed with.
    pub(crate) epoch: EpochId,
    /// The hash of the plain body, keyed with the epoch's secret. The body's key depends on it.
    pub(crate) mark: Hash,
    /// The hash of the sealed body.
    pub(crate) body: Hash,
    /// Ascending by tag.
    #[serde(borrow)]
    pub(crate) extensions: Vec<Extension<'a>>,
}

/// Who signed an envelope, and where it stands in the author's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) format: u8,
    pub(crate) mesh: MeshId,
    pub(crate) author: Author,
    /// From 1, without gaps.
    pub(crate) seq: u64,
    /// The name of the author's envelope before; zeros for the first.
    pub(crate) prev: Hash,
    /// The hash of the head's bytes.
    head: Hash,
    /// The envelope's name.
    pub(crate) hash: Hash,
}

/// An envelope whose signature, hashes and sizes have been checked.
#[derive(Debug, Clone)]
pub(crate) struct Envelope<'a> {
    pub(crate) frame: Frame,
    pub(crate) head: Head<'a>,
    /// One Automerge change per touched bucket, buckets ascending.
    pub(crate) changes: Vec<(BucketId, &'a [u8])>,
    pub(crate) bytes: &'a [u8],
}

/// What goes into a new envelope.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) mesh: MeshId,
    pub(crate) author: Author,
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) causes: Vec<Cause>,
    pub(crate) members: Vec<Hash>,
    pub(crate) clock: u64,
    pub(crate) at: Timestamp,
    pub(crate) changes: Vec<(BucketId, &'a [u8])>,
}

impl Draft<'_> {
    /// Seals, signs and encodes.
    ///
    /// # Errors
    ///
    /// [`Limit::EnvelopeBytes`] or [`Limit::Changes`] when it would be refused by others.
    pub(crate) fn sign(self, key: &DeviceKey, epoch: &EpochSecret) -> Result<Vec<u8>, Limit> {
        if self.changes.len() > MAX_ENVELOPE_CHANGES {
            return Err(Limit::Changes);
        }
        let body = pack(&self.changes);
        let place = Place {
            author: self.author,
            seq: self.seq,
            prev: self.prev,
        };
        let sealed = seal::seal(epoch, place, &body);
        let head = Head {
            causes: self.causes,
            members: self.members,
            clock: self.clock,
            at: self.at,
            epoch: epoch.id(),
            mark: sealed.mark,
            body: hash(&sealed.bytes),
            extensions: Vec::new(),
        };
        let bytes = sign(key, FORMAT, self.mesh, place, &pack(&head), &body);
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(Limit::EnvelopeBytes);
        }
        Ok(bytes)
    }
}

/// Where an envelope stands in its author's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) author: Author,
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
}

/// Puts the parts together.
pub(crate) fn sign(
    key: &DeviceKey,
    format: u8,
    mesh: MeshId,
    place: Place,
    head: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + 4 + head.len() + body.len());
    bytes.push(format);
    bytes.extend_from_slice(mesh.as_bytes());
    bytes.extend_from_slice(place.author.device.as_bytes());
    bytes.extend_from_slice(&place.author.incarnation.0.to_be_bytes());
    bytes.extend_from_slice(&place.seq.to_be_bytes());
    bytes.extend_from_slice(place.prev.as_bytes());
    bytes.extend_from_slice(hash(head).as_bytes());
    let signature = key.sign(&[DOMAIN, &bytes].concat());
    bytes.extend_from_slice(&signature);
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(body);
    bytes
}

impl Frame {
    /// Reads a frame and checks nothing but its size: enough to skip what is known.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, EnvelopeFault> {
        let frame = Self::take(bytes).ok_or(EnvelopeFault::Malformed)?;
        if frame.seq == 0 || bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeFault::Malformed);
        }
        Ok(frame)
    }

    /// Reads a frame and checks that its author signed it.
    pub(crate) fn verify(bytes: &[u8]) -> Result<Self, EnvelopeFault> {
        let frame = Self::read(bytes)?;
        let parts = bytes.split_first_chunk::<SIGNED_BYTES>();
        let (signed, rest) = parts.ok_or(EnvelopeFault::Malformed)?;
        let signature = rest.first_chunk::<64>().ok_or(EnvelopeFault::Malformed)?;
        let message = [DOMAIN, signed.as_slice()].concat();
        if !frame.author.device.verify(&message, signature) {
            return Err(EnvelopeFault::BadSignature);
        }
        Ok(frame)
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let (signed, rest) = bytes.split_first_chunk::<SIGNED_BYTES>()?;
        rest.first_chunk::<64>()?;
        let ([format], rest) = signed.split_first_chunk::<1>()?;
        let (mesh, rest) = rest.split_first_chunk::<32>()?;
        let (device, rest) = rest.split_first_chunk::<32>()?;
        let (life, rest) = rest.split_first_chunk::<8>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (prev, rest) = rest.split_first_chunk::<32>()?;
        let head = rest.first_chunk::<32>()?;
        Some(Self {
            format: *format,
            mesh: MeshId::from_bytes(*mesh),
            author: Author {
                device: DeviceId::from_bytes(*device),
                incarnation: Incarnation(u64::from_be_bytes(*life)),
            },
            seq: u64::from_be_bytes(*seq),
            prev: Hash::from_bytes(*prev),
            head: Hash::from_bytes(*head),
            hash: hash(signed),
        })
    }
}

impl<'a> Envelope<'a> {
    /// Decodes, checks limits, hashes and the signature.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break, or what this program lacks to tell.
    pub(crate) fn decode(bytes: &'a [u8], epochs: &Epochs) -> Result<Self, EnvelopeFault> {
        let frame = Frame::verify(bytes)?;
        let (head, body) = split(bytes, &frame)?;
        let secret = epochs.get(&head.epoch);
        let secret = secret.ok_or(EnvelopeFault::UnknownEpoch { epoch: head.epoch })?;
        let sealed = seal::seal(secret, frame.place(), body);
        if sealed.mark != head.mark || hash(&sealed.bytes) != head.body {
            return Err(EnvelopeFault::Malformed);
        }
        let changes = unpack::<Vec<(BucketId, &[u8])>>(body)?;
        if changes.len() > MAX_ENVELOPE_CHANGES {
            return Err(EnvelopeFault::OverLimit(Limit::Changes));
        }
        if !changes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(EnvelopeFault::Malformed);
        }
        Ok(Self {
            frame,
            head,
            changes,
            bytes,
        })
    }

    /// Decodes what this replica stored itself, after it had been checked.
    pub(crate) fn decode_trusted(bytes: &'a [u8]) -> Result<Self, EnvelopeFault> {
        let frame = Frame::read(bytes)?;
        let (head, body) = split(bytes, &frame)?;
        let changes = unpack(body)?;
        Ok(Self {
            frame,
            head,
            changes,
            bytes,
        })
    }
}

impl Frame {
    fn place(&self) -> Place {
        Place {
            author: self.author,
            seq: self.seq,
            prev: self.prev,
        }
    }
}

/// A BLAKE3 hash as a name.
fn hash(bytes: &[u8]) -> Hash {
    Hash::from_bytes(*blake3::hash(bytes).as_bytes())
}

fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("an envelope holds only plain data")
}

fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EnvelopeFault> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(EnvelopeFault::Malformed),
    }
}

/// The head and the body, which may be sealed. The format is looked at before anything else.
fn split<'a>(bytes: &'a [u8], frame: &Frame) -> Result<(Head<'a>, &'a [u8]), EnvelopeFault> {
    if frame.format != FORMAT {
        let format = frame.format;
        return Err(EnvelopeFault::UnknownFormat { format });
    }
    let rest = bytes.get(FRAME_BYTES..).and_then(<[u8]>::split_first_chunk);
    let (length, rest) = rest.ok_or(EnvelopeFault::Malformed)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok();
    let parts = length.and_then(|length| rest.split_at_checked(length));
    let (packed, body) = parts.ok_or(EnvelopeFault::Malformed)?;
    if hash(packed) != frame.head {
        return Err(EnvelopeFault::Malformed);
    }
    let head: Head<'_> = unpack(packed)?;
    let limits = [
        (head.causes.len(), MAX_ENVELOPE_DEPS, Limit::Deps),
        (head.members.len(), MAX_MEMBER_HEADS, Limit::MemberHeads),
        (head.extensions.len(), MAX_EXTENSIONS, Limit::Extensions),
    ];
    for (count, most, limit) in limits {
        if count > most {
            return Err(EnvelopeFault::OverLimit(limit));
        }
    }
    if !head.extensions.is_sorted_by(|a, b| a.tag < b.tag) {
        return Err(EnvelopeFault::Malformed);
    }
    Ok((head, body))
}

/// Seals and signs bent bytes again, as a hostile member can; `None` when nothing like an envelope is left.
#[cfg(test)]
pub(crate) fn sign_again(bytes: &[u8], key: &DeviceKey, epoch: &EpochSecret) -> Option<Vec<u8>> {
    let frame = Frame::take(bytes)?;
    let (length, rest) = bytes.get(FRAME_BYTES..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (packed, body) = rest.split_at_checked(length)?;
    let mut place = frame.place();
    place.author.device = key.device_id();
    let sealed = seal::seal(epoch, place, body);
    let head = match unpack::<Head<'_>>(packed) {
        Ok(head) => pack(&Head {
            epoch: epoch.id(),
            mark: sealed.mark,
            body: hash(&sealed.bytes),
            ..head
        }),
        Err(_) => packed.to_vec(),
    };
    Some(sign(key, frame.format, frame.mesh, place, &head, body))
}

#[cfg(test)]
mod tests;
