//! What two sessions say to one another, as bytes: postcard of [`Wire`], at most one megabyte.
//!
//! The first field of the first message is the protocol's version, so that any later version can
//! at least tell that it is not understood.

use serde::{Deserialize, Serialize};

use crate::error::{Misbehaviour, SessionError};
use crate::id::{Author, Hash, MeshId};
use crate::limit::{MAX_MEMBER_HEADS, MAX_MESSAGE_BYTES, MAX_VECTOR_AUTHORS};

/// The version of this protocol.
pub(super) const VERSION: u16 = 1;

/// The first byte of a hello: the variant's number, which no version changes.
const HELLO: u8 = 0;

/// An encoded message for the peer's session; at most [`MAX_MESSAGE_BYTES`].
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(wire: &Wire<'_>) -> Self {
        let bytes = postcard::to_stdvec(wire).expect("a message holds only plain data");
        debug_assert!(bytes.len() <= MAX_MESSAGE_BYTES);
        Self(bytes)
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes to send, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} bytes)", self.0.len())
    }
}

/// Where a log ends, with enough of the hash to see that two logs are not the same.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) author: Author,
    pub(super) seq: u64,
    pub(super) check: [u8; 8],
}

/// The beginning, and again whenever something was missing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) mesh: MeshId,
    pub(super) members: Vec<Hash>,
    /// A hash of all registers: with equal logs it is equal, or something is broken.
    ///
    /// `None` when a commit came between looking at the one and the other.
    pub(super) digest: Option<Hash>,
    /// `None` towards a device that is no member, as far as the sender knows.
    pub(super) ends: Option<Vec<End>>,
}

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wire<'a> {
    Hello(Hello),
    /// Membership records that the receiver may lack, parents first.
    #[serde(borrow)]
    Members(Vec<&'a [u8]>),
    /// The heads of the membership log after records were taken.
    MemberHeads(Vec<Hash>),
    /// Envelopes, causes first.
    #[serde(borrow)]
    Envelopes(Vec<&'a [u8]>),
    /// What the sender has now of some authors' logs.
    Have(Vec<(Author, u64)>),
}

impl<'a> Wire<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, SessionError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Misbehaviour::MessageTooLarge { bytes: bytes.len() }.into());
        }
        // Of another version's hello nothing but the version can be relied on.
        if let Some((&HELLO, rest)) = bytes.split_first()
            && let Ok((theirs, _)) = postcard::take_from_bytes::<u16>(rest)
            && theirs != VERSION
        {
            return Err(SessionError::Version {
                theirs,
                ours: VERSION,
            });
        }
        let (wire, rest) =
            postcard::take_from_bytes(bytes).map_err(|_| Misbehaviour::MalformedMessage)?;
        let fits = rest.is_empty()
            && match &wire {
                Self::Hello(hello) => {
                    hello.members.len() <= MAX_MEMBER_HEADS
                        && hello
                            .ends
                            .as_ref()
                            .is_none_or(|e| e.len() <= MAX_VECTOR_AUTHORS)
                }
                Self::MemberHeads(heads) => heads.len() <= MAX_MEMBER_HEADS,
                Self::Have(have) => have.len() <= MAX_VECTOR_AUTHORS,
                Self::Members(_) | Self::Envelopes(_) => true,
            };
        if fits {
            Ok(wire)
        } else {
            Err(Misbehaviour::MalformedMessage.into())
        }
    }
}
