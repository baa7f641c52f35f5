//! What two sessions say to one another, as bytes: postcard of [`Wire`], at most one megabyte.
//!
//! The first field of the first message is the protocol's version, so that any later version can
//! at least tell that it is not understood.
//!
//! A program that understands the messages from [`Wire::Offer`] on sends its membership heads before its
//! hello. One from before takes them for what they say, and sends them only later itself.

use serde::{Deserialize, Serialize};

use crate::bucket::alive::Seen;
use crate::error::{Misbehaviour, SessionError};
use crate::id::{Author, EpochId, Hash, MeshId};
use crate::limit::{
    MAX_MESSAGE_BYTES, MAX_PROOFS, MAX_TOLD_EPOCHS, MAX_TOLD_HEADS, MAX_TRAIL, MAX_TRAILS,
    MAX_VECTOR_AUTHORS,
};
use crate::member::Told;

/// The version of this protocol.
pub(super) const VERSION: u16 = 2;

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
pub(super) struct Hello<'a> {
    pub(super) version: u16,
    pub(super) mesh: MeshId,
    pub(super) members: Told,
    /// A hash of all registers: with equal logs it is equal, or something is broken.
    ///
    /// `None` when a commit came between looking at the one and the other.
    pub(super) digest: Option<Hash>,
    /// `None` towards a device that is no member, as far as the sender knows.
    pub(super) ends: Option<Vec<End>>,
    /// The frames of the receiver's own last envelopes, as the sender knows them: nothing else makes a device
    /// believe that it wrote more than it knows of.
    #[serde(borrow)]
    pub(super) proofs: Vec<&'a [u8]>,
}

/// Some envelopes of one line, the last one first.
pub(super) type Trail = Vec<(u64, [u8; 8])>;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wire<'a> {
    #[serde(borrow)]
    Hello(Hello<'a>),
    /// Membership records that the receiver may lack, parents first.
    #[serde(borrow)]
    Members(Vec<&'a [u8]>),
    /// What the sender has of the membership log: first of all, and after records were taken.
    MemberHeads(Told),
    /// Envelopes, causes first.
    #[serde(borrow)]
    Envelopes(Vec<&'a [u8]>),
    /// What the sender has now of some authors' logs.
    Have(Vec<End>),
    /// To a device that has nothing: a snapshot is to be had, and nothing else comes before the answer.
    Offer,
    /// The answer to an offer.
    WantSnapshot,
    /// No snapshot, or no more of it: the logs are to be sent.
    NoSnapshot,
    /// The next envelopes of a snapshot, each with marks: a bit for each write, the lowest first, that says
    /// whether the value is still shown. An author's envelopes ascend; the last is where its log ends.
    #[serde(borrow)]
    Pieces(Vec<(&'a [u8], &'a [u8])>),
    /// What the authors had seen of others: it cannot be read from their living envelopes.
    Seen(Vec<(Author, Seen)>),
    /// The snapshot is complete.
    SnapshotEnd,
    /// Envelopes are asked for that lead to these, after the number beside each.
    WantBelow(Vec<(End, u64)>),
    /// The answer: some of them, each author's next one first and causes first. None: there are no more here.
    #[serde(borrow)]
    Below(Vec<&'a [u8]>),
    /// The epochs that the sender knows, each with the proof of it: to members only.
    Epochs(Vec<(EpochId, Hash)>),
    /// Secrets of epochs, sealed: those that the receiver did not say to know.
    #[serde(borrow)]
    Keys(Vec<&'a [u8]>),
    /// Each line that the sender has of an author's log. Said when the receiver's are not the same, and answered
    /// with the same, so that both find the last envelope that they share.
    Trail(Author, Vec<Trail>),
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
                    hello.members.heads.len() <= MAX_TOLD_HEADS
                        && hello
                            .ends
                            .as_ref()
                            .is_none_or(|e| e.len() <= MAX_VECTOR_AUTHORS)
                        && hello.proofs.len() <= MAX_PROOFS
                }
                Self::MemberHeads(told) => told.heads.len() <= MAX_TOLD_HEADS,
                Self::Have(have) => have.len() <= MAX_VECTOR_AUTHORS,
                Self::Seen(all) => all.len() <= MAX_VECTOR_AUTHORS,
                Self::Epochs(epochs) => epochs.len() <= MAX_TOLD_EPOCHS,
                Self::WantBelow(ranges) => ranges.len() <= MAX_VECTOR_AUTHORS,
                Self::Trail(_, lines) => {
                    lines.len() <= MAX_TRAILS && lines.iter().all(|line| line.len() <= MAX_TRAIL)
                }
                Self::Members(_)
                | Self::Envelopes(_)
                | Self::Offer
                | Self::WantSnapshot
                | Self::NoSnapshot
                | Self::Pieces(_)
                | Self::SnapshotEnd
                | Self::Below(_)
                | Self::Keys(_) => true,
            };
        if fits {
            Ok(wire)
        } else {
            Err(Misbehaviour::MalformedMessage.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{DeviceId, Incarnation};

    fn author() -> Author {
        Author {
            device: DeviceId::from_bytes([7; 32]),
            incarnation: Incarnation(u64::MAX),
        }
    }

    fn seen() -> Seen {
        [([9; 16], 8)].into()
    }

    fn end() -> End {
        End {
            author: author(),
            seq: u64::MAX,
            check: [1; 8],
        }
    }

    #[test]
    fn what_is_said_reads_back() {
        for wire in [
            Wire::Offer,
            Wire::WantSnapshot,
            Wire::NoSnapshot,
            Wire::Pieces(vec![(&[5], b"envelope"), (&[], b"")]),
            Wire::Seen(vec![(author(), seen())]),
            Wire::SnapshotEnd,
            Wire::WantBelow(vec![(end(), 1)]),
            Wire::Have(vec![end()]),
            Wire::Trail(author(), vec![vec![(7, [1; 8]), (6, [2; 8])], Vec::new()]),
            Wire::Below(vec![b"one", b"two"]),
            Wire::Epochs(vec![(
                EpochId::from_bytes([1; 16]),
                Hash::from_bytes([2; 32]),
            )]),
            Wire::Keys(vec![b"one", b"two"]),
        ] {
            let message = Message::new(&wire);
            let again = Wire::decode(message.as_bytes()).unwrap();
            assert_eq!(Message::new(&again), message);
            let cut = &message.as_bytes()[..message.as_bytes().len() - 1];
            assert!(Wire::decode(cut).is_err(), "{wire:?}");
            let longer = [message.as_bytes(), &[0]].concat();
            assert!(Wire::decode(&longer).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn counts_that_the_bytes_do_not_bear_out_are_refused() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        for kind in 1..=15 {
            let message = [&[kind][..], &huge, &[0; 100]].concat();
            assert!(Wire::decode(&message).is_err(), "{kind}");
        }
        let many = Wire::WantBelow(vec![(end(), 0); MAX_VECTOR_AUTHORS + 1]);
        let bytes = postcard::to_stdvec(&many).unwrap();
        assert!(Wire::decode(&bytes).is_err());
        let long = Wire::Trail(author(), vec![vec![(1, [0; 8]); MAX_TRAIL + 1]]);
        let bytes = postcard::to_stdvec(&long).unwrap();
        assert!(Wire::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            kind in 0_u8..17,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = [&[kind][..], &bytes].concat();
            if let Ok(wire) = Wire::decode(&message) {
                prop_assert!(Message::new(&wire).as_bytes().len() <= message.len());
            }
        }
    }
}
