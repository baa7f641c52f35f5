//! What joiner and inviter say to one another, and how large it may be.
//!
//! The order, after both preambles: joiner [`Begin`] → inviter [`Challenge`] → joiner [`Confirm`] → inviter
//! [`Decision`] holding a sealed [`Offer`] → joiner sealed [`Answer`] → inviter [`Decision`] holding a sealed
//! [`Admission`] → joiner sealed [`Thanks`]. Sealed messages are postcard inside the AEAD of `pake`.

use serde::{Deserialize, Serialize};
use wormhole_crdt::{MeshId, Role, Timestamp, Welcome};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{code::Nameplate, link::LinkId};

/// Every message but the admission fits in this.
pub(super) const MAX_SMALL: usize = 4 * 1024;

/// An admission carries the membership log, or the beginning of it: each page goes at a stranger's rate, 512 KiB/s,
/// and must come through before the deadline of a message.
pub(super) const MAX_ADMISSION: usize = 4 * 1024 * 1024;

/// Bytes of records in one page.
const PAGE: usize = 3 * 1024 * 1024;

/// Pages that a joiner takes after the admission. All that may be kept of a dozen admins.
const MAX_PAGES: u16 = 16;

/// Longest name of a device or mesh that is taken, in bytes.
pub(super) const MAX_NAME: usize = 256;

/// Which invite is meant. Public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Handle {
    /// The number in front of a code.
    Nameplate(Nameplate),
    /// The hash of a link's token.
    Link(LinkId),
}

impl Handle {
    /// For transcripts: unlike for all unlike handles.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        postcard::to_stdvec(&WireHandle::from(self)).expect("plain data encodes into memory")
    }
}

/// A [`Handle`] before its nameplate is checked.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum WireHandle {
    Nameplate(u32),
    Link(LinkId),
}

impl From<Handle> for WireHandle {
    fn from(handle: Handle) -> Self {
        match handle {
            Handle::Nameplate(nameplate) => Self::Nameplate(nameplate.number()),
            Handle::Link(id) => Self::Link(id),
        }
    }
}

/// The joiner's first message.
#[derive(Serialize, Deserialize)]
pub(super) struct Begin {
    handle: WireHandle,
    /// Its SPAKE2 message.
    pub(super) pake: Vec<u8>,
}

impl Begin {
    pub(super) fn new(handle: Handle, pake: Vec<u8>) -> Self {
        Self {
            handle: handle.into(),
            pake,
        }
    }

    /// Which invite it means; `None` when that is no possible one.
    pub(super) fn handle(&self) -> Option<Handle> {
        match self.handle {
            WireHandle::Nameplate(number) => Nameplate::new(number).map(Handle::Nameplate),
            WireHandle::Link(id) => Some(Handle::Link(id)),
        }
    }
}

/// The inviter's answer to [`Begin`].
#[derive(Serialize, Deserialize)]
pub(super) enum Challenge {
    /// Go on, with the inviter's SPAKE2 message.
    Pake(Vec<u8>),
    /// No.
    Refused(Refusal),
}

/// The joiner's proof that it knows the secret. A wrong one counts as a try.
#[derive(Serialize, Deserialize)]
pub(super) struct Confirm(pub(super) [u8; 32]);

/// The inviter's answer to a proof or to the joiner's answer.
#[derive(Serialize, Deserialize)]
pub(super) enum Decision {
    /// Its own proof, and the sealed next message.
    Go {
        /// Over everything said so far.
        proof: [u8; 32],
        /// An [`Offer`] or an [`Admission`].
        sealed: Vec<u8>,
    },
    /// No.
    Refused(Refusal),
}

/// Why an inviter says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// It has no such invite.
    Unknown,
    /// Its time is over.
    Expired,
    /// A device has joined with it.
    Used,
    /// Too many wrong codes were tried.
    Burnt,
    /// The proof was wrong.
    Wrong {
        /// More wrong ones that it will take.
        tries_left: u8,
    },
    /// Another device is joining with it now, or there were too many tries lately.
    Busy,
    /// The inviter could not admit the device: its own disk failed, or it is no admin any more.
    CannotAdmit,
    /// Nobody there has admitted the device yet. Its place is kept: ask again.
    Waiting,
    /// A person there refused it.
    Declined,
    /// Another device came first, and a person there has not decided about it yet.
    Taken,
}

/// Who invites into what.
#[derive(Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) mesh: MeshId,
    pub(super) mesh_name: String,
    pub(super) inviter_name: String,
    pub(super) role: Role,
    /// Whether a person there has to admit the device.
    pub(super) ask: bool,
    pub(super) expires: Timestamp,
}

/// The joiner's decision.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    /// It wants to be a member under this name.
    Consent {
        /// The device's name.
        device_name: String,
    },
    /// It is a member of that mesh already; the invite stays good.
    AlreadyMember,
    /// Its person has to be asked first; the invite stays good.
    Undecided,
}

/// Everything that a member has.
#[derive(Serialize, Deserialize)]
pub(super) struct Admission {
    /// With as many records as fit.
    pub(super) welcome: Welcome,
    pub(super) secrets: Secrets,
    /// How many pages of records follow, sealed like this.
    pages: u16,
}

/// More records of the membership log.
pub(super) type Page = Vec<Vec<u8>>;

impl Admission {
    /// Of a log of any length: an admission, and the pages that follow it.
    pub(super) fn new(mut welcome: Welcome, secrets: Secrets) -> (Self, Vec<Page>) {
        let mut pages: Vec<Page> = vec![Page::new()];
        let mut size = 0;
        for record in std::mem::take(&mut welcome.records) {
            if size > 0 && size + record.len() > PAGE {
                pages.push(Page::new());
                size = 0;
            }
            size += record.len() + 4;
            pages.last_mut().expect("there is a page").push(record);
        }
        let rest = pages.split_off(1);
        welcome.records = pages.pop().unwrap_or_default();
        let admission = Self {
            welcome,
            secrets,
            pages: u16::try_from(rest.len()).unwrap_or(u16::MAX),
        };
        (admission, rest)
    }

    /// How many pages follow; `None` when nobody takes so many.
    pub(super) fn pages(&self) -> Option<u16> {
        (self.pages <= MAX_PAGES).then_some(self.pages)
    }
}

/// What keys the mesh's content, as it travels, sealed. The secrets of its epochs are in the welcome. Wiped when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(super) struct Secrets {
    pub(super) content_key: [u8; 32],
}

/// The joiner has everything.
#[derive(Serialize, Deserialize)]
pub(super) struct Thanks;

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::bend::{Budget, bend};

    fn right<T: Serialize>(message: &T) -> Vec<u8> {
        postcard::to_stdvec(message).unwrap()
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) {
        let _message = postcard::from_bytes::<T>(bytes);
    }

    #[test]
    fn bent_messages_of_a_join_do_no_harm() {
        let nameplate = Nameplate::new(7).unwrap();
        let welcome = Welcome {
            mesh: MeshId::from_bytes([1; 32]),
            name: "Designs".into(),
            records: vec![vec![2; 100], vec![3; 200]],
            epochs: vec![wormhole_crdt::EpochSecret::from_bytes([6; 32])],
        };
        let secrets = Secrets {
            content_key: [5; 32],
        };
        let messages = [
            right(&Begin::new(Handle::Nameplate(nameplate), vec![6; 33])),
            right(&Challenge::Pake(vec![7; 33])),
            right(&Challenge::Refused(Refusal::Wrong { tries_left: 2 })),
            right(&Confirm([8; 32])),
            right(&Decision::Go {
                proof: [9; 32],
                sealed: vec![1; 99],
            }),
            right(&Offer {
                mesh: welcome.mesh,
                mesh_name: "Designs".into(),
                inviter_name: "laptop".into(),
                role: Role::Writer,
                ask: true,
                expires: Timestamp(1),
            }),
            right(&Answer::Consent {
                device_name: "desktop".into(),
            }),
            right(&Admission::new(welcome, secrets).0),
        ];
        // A list reserves up to a megabyte for what it claims.
        let budget = Budget {
            fixed: 2 << 20,
            per_byte: 64,
        };
        bend("messages of a join", &messages, "", budget, |bytes| {
            if let Ok(begin) = postcard::from_bytes::<Begin>(bytes) {
                let _handle = begin.handle();
            }
            decode::<Challenge>(bytes);
            decode::<Confirm>(bytes);
            decode::<Decision>(bytes);
            decode::<Offer>(bytes);
            decode::<Answer>(bytes);
            decode::<Admission>(bytes);
        });
    }

    #[test]
    fn a_membership_log_of_any_length_is_handed_over_in_pages() {
        for count in [0_usize, 1, 520, 2000] {
            let records: Vec<Vec<u8>> = (0..count)
                .map(|at| vec![u8::try_from(at % 251).unwrap(); 16 << 10])
                .collect();
            let welcome = Welcome {
                mesh: MeshId::from_bytes([1; 32]),
                name: "designs".to_owned(),
                records: records.clone(),
                epochs: Vec::new(),
            };
            let secrets = Secrets {
                content_key: [0; 32],
            };
            let (admission, pages) = Admission::new(welcome, secrets);
            assert_eq!(admission.pages(), Some(u16::try_from(pages.len()).unwrap()));
            let encoded = postcard::to_stdvec(&admission).unwrap();
            assert!(encoded.len() < MAX_ADMISSION);
            let all: Vec<Vec<u8>> = std::iter::once(admission.welcome.records.clone())
                .chain(pages)
                .inspect(|page| assert!(postcard::to_stdvec(page).unwrap().len() < MAX_ADMISSION))
                .flatten()
                .collect();
            assert_eq!(all, records);
        }
    }
}
