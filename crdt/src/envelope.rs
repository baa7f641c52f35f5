//! The envelope: one signed, numbered, atomic batch of changes by one author.
//!
//! Layout: 64 bytes Ed25519 signature, then the postcard form of [`Body`]. The signature covers a
//! domain prefix and the body; the hash of all bytes is what the author's next envelope names as
//! `prev`. Decoding checks the signature and the sizes, so that whoever holds an [`Envelope`] knows who
//! wrote it; whether it *counts* depends on the replica (`replica/apply`).

use serde::{Deserialize, Serialize};

use crate::error::{EnvelopeFault, Limit};
use crate::id::{Author, BucketId, DeviceKey, Hash, MeshId, Timestamp};
use crate::limit::{MAX_ENVELOPE_BYTES, MAX_ENVELOPE_CHANGES, MAX_ENVELOPE_DEPS, MAX_MEMBER_HEADS};

const DOMAIN: &[u8] = b"wormhole envelope\0";
const FORMAT: u8 = 1;

/// What an author says in one envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Body<'a> {
    /// 1. Another number means another layout from here on.
    format: u8,
    pub(crate) mesh: MeshId,
    pub(crate) author: Author,
    /// From 1, without gaps.
    pub(crate) seq: u64,
    /// The hash of the author's envelope before; zeros for the first.
    pub(crate) prev: Hash,
    /// Envelopes of others that the author applied since its last one.
    pub(crate) deps: Vec<(Author, u64)>,
    /// The heads of the membership log as the author knew it.
    pub(crate) members: Vec<Hash>,
    /// The greatest stamp in the changes: the author's logical clock.
    pub(crate) clock: u64,
    /// When it was made, by the author's own clock. For people; nothing is decided by it.
    pub(crate) at: Timestamp,
    /// One Automerge change per touched bucket, buckets ascending.
    #[serde(borrow)]
    pub(crate) changes: Vec<(BucketId, &'a [u8])>,
}

/// An envelope whose signature and sizes have been checked.
#[derive(Debug, Clone)]
pub(crate) struct Envelope<'a> {
    pub(crate) body: Body<'a>,
    pub(crate) hash: Hash,
    pub(crate) bytes: &'a [u8],
}

/// What goes into a new envelope.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) mesh: MeshId,
    pub(crate) author: Author,
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) deps: Vec<(Author, u64)>,
    pub(crate) members: Vec<Hash>,
    pub(crate) clock: u64,
    pub(crate) at: Timestamp,
    pub(crate) changes: Vec<(BucketId, &'a [u8])>,
}

/// Who wrote an envelope and which number it has: read without checking anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) author: Author,
    pub(crate) seq: u64,
}

impl Draft<'_> {
    /// Signs and encodes.
    ///
    /// # Errors
    ///
    /// [`Limit::EnvelopeBytes`] or [`Limit::Changes`] when it would be refused by others.
    pub(crate) fn sign(self, key: &DeviceKey) -> Result<Vec<u8>, Limit> {
        if self.changes.len() > MAX_ENVELOPE_CHANGES {
            return Err(Limit::Changes);
        }
        let body = Body {
            format: FORMAT,
            mesh: self.mesh,
            author: self.author,
            seq: self.seq,
            prev: self.prev,
            deps: self.deps,
            members: self.members,
            clock: self.clock,
            at: self.at,
            changes: self.changes,
        };
        let encoded = postcard::to_stdvec(&body).expect("an envelope holds only plain data");
        let mut bytes = key.sign(&[DOMAIN, &encoded].concat()).to_vec();
        bytes.extend_from_slice(&encoded);
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(Limit::EnvelopeBytes);
        }
        Ok(bytes)
    }
}

impl<'a> Envelope<'a> {
    /// Decodes, checks limits and the signature.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeFault> {
        let (signature, encoded, body) = split(bytes)?;
        if body.deps.len() > MAX_ENVELOPE_DEPS {
            return Err(EnvelopeFault::OverLimit(Limit::Deps));
        }
        if body.members.len() > MAX_MEMBER_HEADS {
            return Err(EnvelopeFault::OverLimit(Limit::MemberHeads));
        }
        if body.changes.len() > MAX_ENVELOPE_CHANGES {
            return Err(EnvelopeFault::OverLimit(Limit::Changes));
        }
        if body.seq == 0 || !body.changes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(EnvelopeFault::Malformed);
        }
        if !body
            .author
            .device
            .verify(&[DOMAIN, encoded].concat(), signature)
        {
            return Err(EnvelopeFault::BadSignature);
        }
        Ok(Self {
            body,
            hash: hash(bytes),
            bytes,
        })
    }

    /// Decodes what this replica stored itself, after it had been checked.
    pub(crate) fn decode_trusted(bytes: &'a [u8]) -> Result<Self, EnvelopeFault> {
        let (_, _, body) = split(bytes)?;
        Ok(Self {
            body,
            hash: hash(bytes),
            bytes,
        })
    }

    /// Reads author and number only: enough to skip what is known without the cost of a check.
    pub(crate) fn label(bytes: &[u8]) -> Result<Label, EnvelopeFault> {
        #[derive(Deserialize)]
        struct Head {
            format: u8,
            _mesh: MeshId,
            author: Author,
            seq: u64,
        }
        let (_, encoded) = bytes
            .split_first_chunk::<64>()
            .ok_or(EnvelopeFault::Malformed)?;
        let (head, _) =
            postcard::take_from_bytes::<Head>(encoded).map_err(|_| EnvelopeFault::Malformed)?;
        if head.format != FORMAT {
            return Err(EnvelopeFault::UnknownFormat {
                format: head.format,
            });
        }
        if head.seq == 0 {
            return Err(EnvelopeFault::Malformed);
        }
        Ok(Label {
            author: head.author,
            seq: head.seq,
        })
    }
}

/// The name of an envelope.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Hash::from_bytes(*blake3::hash(bytes).as_bytes())
}

type Parts<'a> = (&'a [u8; 64], &'a [u8], Body<'a>);

fn split(bytes: &[u8]) -> Result<Parts<'_>, EnvelopeFault> {
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(EnvelopeFault::OverLimit(Limit::EnvelopeBytes));
    }
    let (signature, encoded) = bytes
        .split_first_chunk::<64>()
        .ok_or(EnvelopeFault::Malformed)?;
    let (&format, _) = encoded.split_first().ok_or(EnvelopeFault::Malformed)?;
    if format != FORMAT {
        return Err(EnvelopeFault::UnknownFormat { format });
    }
    let (body, rest) =
        postcard::take_from_bytes::<Body<'_>>(encoded).map_err(|_| EnvelopeFault::Malformed)?;
    if !rest.is_empty() {
        return Err(EnvelopeFault::Malformed);
    }
    Ok((signature, encoded, body))
}
