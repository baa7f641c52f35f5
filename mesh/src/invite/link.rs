//! The invite as a link or QR code: `wormhole://join/…`.
//!
//! A link carries a token of 256 bits, so nobody guesses it; whom to ask and where, so no discovery is
//! needed; until when it is good; and the mesh's name, only to be shown before anything is joined. It runs
//! through the same PAKE as a code, with the token in the place of the words. All of it is untrusted text
//! until the inviter has answered.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use rand::{CryptoRng, RngExt};
use serde::{Deserialize, Serialize};
use wormhole_crdt::{DeviceId, Timestamp};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::address::PeerAddr;

/// What every link begins with.
const PREFIX: &str = "wormhole://join/";

/// The version byte inside. Another one means that the joiner must be updated.
const VERSION: u8 = 1;

/// Checksum bytes at the end: tells a cut or mistyped link from a foreign one.
const CHECK_BYTES: usize = 4;

/// Longest link that is looked at, in bytes.
const MAX_TEXT: usize = 2048;

/// Most addresses that a link carries, so that its QR code stays readable.
pub(super) const MAX_ADDRS: usize = 6;

/// Longest name that a link shows, in characters.
const MAX_NAME: usize = 64;

/// The secret of a link. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn random(rng: &mut impl CryptoRng) -> Self {
        let mut token = Self([0; 32]);
        rng.fill(&mut token.0);
        token
    }

    /// The public name of the token: what the joiner asks for. Of 256 random bits nothing is given away.
    pub(super) fn id(&self) -> LinkId {
        LinkId(blake3::derive_key(
            "wormhole 2026 invite link id v1",
            &self.0,
        ))
    }

    /// What the PAKE takes.
    pub(super) fn password(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_vec())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Finds the invite of a link at the inviter, as a nameplate finds that of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct LinkId([u8; 32]);

/// An invite link. A secret: wiped when dropped, and never printed but by [`Link::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    token: Token,
    inviter: DeviceId,
    expires: Timestamp,
    mesh_name: String,
    /// Where this program can ask.
    addrs: Vec<PeerAddr>,
    /// Addresses of a kind that this program does not know: kept when the link is handed on, else passed over.
    others: Vec<String>,
}

/// What the text of a link holds, before its checksum.
#[derive(Serialize, Deserialize)]
struct Body {
    token: Token,
    inviter: DeviceId,
    expires: Timestamp,
    mesh_name: String,
    addrs: Vec<String>,
}

impl Link {
    pub(super) fn new(
        token: Token,
        inviter: DeviceId,
        expires: Timestamp,
        mesh_name: &str,
        mut addrs: Vec<PeerAddr>,
    ) -> Self {
        addrs.truncate(MAX_ADDRS);
        let mesh_name = mesh_name.chars().take(MAX_NAME).collect();
        Self {
            token,
            inviter,
            expires,
            mesh_name,
            addrs,
            others: Vec::new(),
        }
    }

    /// The device that made it; no other is asked.
    #[must_use]
    pub const fn inviter(&self) -> DeviceId {
        self.inviter
    }

    /// When the inviter stops accepting it, by the inviter's clock.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// What the mesh is called, as the maker of the link says. Not verified, and it may hold any
    /// character: for showing, with the care that foreign text needs.
    #[must_use]
    pub fn mesh_name(&self) -> &str {
        &self.mesh_name
    }

    /// Where the inviter was when it made the link.
    #[must_use]
    pub fn addrs(&self) -> &[PeerAddr] {
        &self.addrs
    }

    pub(super) const fn token(&self) -> &Token {
        &self.token
    }

    /// The text for the person who hands it on, or for a QR code. Not for logs.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let body = Body {
            token: self.token.clone(),
            inviter: self.inviter,
            expires: self.expires,
            mesh_name: self.mesh_name.clone(),
            addrs: self
                .addrs
                .iter()
                .map(ToString::to_string)
                .chain(self.others.iter().cloned())
                .collect(),
        };
        let body = postcard::to_stdvec(&body).expect("plain data encodes into memory");
        let body = Zeroizing::new(body);
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + body.len() + CHECK_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(&body);
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        let mut text = Zeroizing::new(String::from(PREFIX));
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        text
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("inviter", &self.inviter)
            .field("expires", &self.expires)
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    let mut hasher = blake3::Hasher::new_derive_key("wormhole 2026 invite link check v1");
    hasher.update(bytes).finalize_xof().fill(&mut check);
    check
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is something else.
    #[error("not an invite link; one begins with {PREFIX}")]
    NotALink,
    /// Characters are missing or changed.
    #[error("the link is damaged or cut short; copy the whole of it again")]
    Damaged,
    /// It was made by a later version of the program.
    #[error("the link was made by a newer version of wormhole; update this device")]
    Newer,
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        let text = text
            .get(..text.len().min(MAX_TEXT))
            .ok_or(LinkError::Damaged)?;
        // Messengers like to change the case of the scheme, and to add a slash at the end.
        let scheme = text.get(..PREFIX.len()).ok_or(LinkError::NotALink)?;
        if !scheme.eq_ignore_ascii_case(PREFIX) {
            return Err(LinkError::NotALink);
        }
        let token = text
            .get(PREFIX.len()..)
            .unwrap_or_default()
            .trim_end_matches('/');
        let bytes = BASE64URL_NOPAD
            .decode(token.as_bytes())
            .map_err(|_| LinkError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (signed, sum) = bytes.split_last_chunk().ok_or(LinkError::Damaged)?;
        if check(signed) != *sum {
            return Err(LinkError::Damaged);
        }
        match signed.split_first() {
            Some((&VERSION, body)) => Self::from_body(body),
            Some(_) => Err(LinkError::Newer),
            None => Err(LinkError::Damaged),
        }
    }
}

impl Link {
    fn from_body(body: &[u8]) -> Result<Self, LinkError> {
        let mut body: Body = postcard::from_bytes(body).map_err(|_| LinkError::Damaged)?;
        if body.addrs.len() > MAX_ADDRS || body.mesh_name.chars().count() > MAX_NAME {
            return Err(LinkError::Damaged);
        }
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for addr in std::mem::take(&mut body.addrs) {
            match addr.parse() {
                Ok(addr) => known.push(addr),
                Err(_) => others.push(addr),
            }
        }
        let Body {
            token,
            inviter,
            expires,
            mesh_name,
            addrs: _,
        } = body;
        Ok(Self {
            token,
            inviter,
            expires,
            mesh_name,
            addrs: known,
            others,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::bend::{Budget, bend};

    fn link() -> Link {
        let token = Token::random(&mut ChaCha20Rng::seed_from_u64(1));
        let addrs = vec!["udp/192.168.1.4:4711".parse().unwrap()];
        Link::new(
            token,
            DeviceId::from_bytes([7; 32]),
            Timestamp(1),
            "Designs",
            addrs,
        )
    }

    #[test]
    fn a_link_reads_back() {
        let text = link().reveal();
        assert_eq!(text.parse::<Link>(), Ok(link()));
        let messenger = format!(" {}/\n", text.replacen("wormhole", "Wormhole", 1));
        assert_eq!(messenger.parse::<Link>(), Ok(link()));
    }

    #[test]
    fn an_address_of_an_unknown_kind_is_passed_over_and_handed_on() {
        let later = Link {
            others: vec!["relay/example.org/7".to_owned()],
            ..link()
        };
        let text = later.reveal();
        let read: Link = text.parse().unwrap();
        assert_eq!(read.addrs(), link().addrs());
        assert_eq!(read.reveal(), text);
    }

    #[test]
    fn a_cut_or_changed_link_says_so() {
        let text = link().reveal();
        for cut in PREFIX.len()..text.len() {
            assert_eq!(text[..cut].parse::<Link>(), Err(LinkError::Damaged));
        }
        let changed = text.replacen("join/A", "join/B", 1);
        assert_ne!(changed, *text);
        assert_eq!(changed.parse::<Link>(), Err(LinkError::Damaged));
        assert_eq!(
            "https://example.com".parse::<Link>(),
            Err(LinkError::NotALink)
        );
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!("{:?}", link());
        assert!(!shown.contains("token"), "{shown}");
    }

    #[test]
    fn bent_links_do_no_harm() {
        let text = link().reveal();
        let body = BASE64URL_NOPAD
            .decode(&text.as_bytes()[PREFIX.len()..])
            .unwrap();
        let unsummed = body[..body.len() - CHECK_BYTES].to_vec();
        // A list reserves up to a megabyte for what it claims.
        let budget = Budget {
            fixed: 2 << 20,
            per_byte: 32,
        };
        let right = [unsummed, text.as_bytes().to_vec()];
        bend("links", &right, "", budget, |bytes| {
            let _as_it_is = String::from_utf8_lossy(bytes).parse::<Link>();
            let summed = [bytes, &check(bytes)].concat();
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&summed));
            let _with_a_right_sum = text.parse::<Link>();
        });
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}", bytes: Vec<u8>) {
            let _parsed = text.parse::<Link>();
            let mut bytes = bytes;
            bytes.insert(0, VERSION);
            let sum = check(&bytes);
            bytes.extend_from_slice(&sum);
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
            let _parsed = text.parse::<Link>();
        }
    }
}
