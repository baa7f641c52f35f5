//! The password-authenticated key exchange of an invite: SPAKE2 over Ed25519, with key confirmation.
//!
//! Each run gives the other side exactly one guess at the password, and nothing to try offline. The
//! *binding* — both device ids, which invite, and the protocol version — goes into SPAKE2's identities and into
//! the transcript that every later key is derived from, so a run cannot be relayed to, or replayed for,
//! another device, invite or version. Pure: no I/O, no clock. The order of messages is in `exchange`.
//!
//! SPAKE2: RFC 9382; the group elements and their encoding are those of the `spake2` crate.

use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use wormhole_crdt::DeviceId;
use zeroize::Zeroizing;

use super::message::Handle;

/// Who one is in the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Joiner,
    Inviter,
}

/// What both sides must agree on for the exchange to succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) joiner: DeviceId,
    pub(super) inviter: DeviceId,
    pub(super) handle: Handle,
}

/// Why an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PakeError {
    /// The other side's group element is none.
    #[error("the peer sent a malformed key exchange")]
    Malformed,
    /// The passwords differ, or somebody stands in between.
    #[error("the secret does not match")]
    Mismatch,
}

/// A begun exchange, with our first message.
pub(super) struct Started {
    spake: Spake2<Ed25519Group>,
    side: Side,
    binding: Binding,
    message: Vec<u8>,
}

impl Started {
    pub(super) fn new(side: Side, password: &[u8], binding: Binding) -> Self {
        let password = Password::new(password);
        let joiner = Identity::new(binding.joiner.as_bytes());
        let inviter = Identity::new(binding.inviter.as_bytes());
        let (spake, message) = match side {
            Side::Joiner => Spake2::start_a(&password, &joiner, &inviter),
            Side::Inviter => Spake2::start_b(&password, &joiner, &inviter),
        };
        Self {
            spake,
            side,
            binding,
            message,
        }
    }

    /// What to send.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Takes the other side's message, and the version that was agreed on.
    ///
    /// The keys are equal on both sides if passwords, bindings and versions were.
    pub(super) fn finish(self, version: u16, theirs: &[u8]) -> Result<Keys, PakeError> {
        let Self {
            spake,
            side,
            binding,
            message,
        } = self;
        let secret = Zeroizing::new(spake.finish(theirs).map_err(|_| PakeError::Malformed)?);
        let (joiner, inviter) = match side {
            Side::Joiner => (&*message, theirs),
            Side::Inviter => (theirs, &*message),
        };
        let mut transcript = Transcript::default();
        transcript.add(&version.to_be_bytes());
        transcript.add(binding.joiner.as_bytes());
        transcript.add(binding.inviter.as_bytes());
        transcript.add(&binding.handle.to_bytes());
        transcript.add(joiner);
        transcript.add(inviter);
        Ok(Keys { secret, transcript })
    }
}

/// Everything that both sides said, hashed with lengths, so that no two histories look alike.
#[derive(Clone)]
struct Transcript(blake3::Hasher);

impl Default for Transcript {
    fn default() -> Self {
        Self(blake3::Hasher::new_derive_key(
            "wormhole 2026 invite transcript v1",
        ))
    }
}

impl Transcript {
    fn add(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
    }
}

/// What the exchange yielded: keys for confirmation and for every later message, each used once.
pub(super) struct Keys {
    secret: Zeroizing<Vec<u8>>,
    transcript: Transcript,
}

impl Keys {
    /// The proof that `side` has the same keys, after the same conversation.
    pub(super) fn confirmation(&self, side: Side) -> blake3::Hash {
        let key = self.key(match side {
            Side::Joiner => b"confirm joiner",
            Side::Inviter => b"confirm inviter",
        });
        blake3::keyed_hash(&key, b"confirmed")
    }

    /// Checks the other side's proof, in constant time.
    pub(super) fn check(&self, side: Side, proof: [u8; 32]) -> Result<(), PakeError> {
        let equal = self.confirmation(side) == blake3::Hash::from_bytes(proof);
        if equal {
            Ok(())
        } else {
            Err(PakeError::Mismatch)
        }
    }

    /// Encrypts a message of `side` and makes it part of the transcript.
    ///
    /// The key depends on everything said before, so it is used for this message only and the nonce
    /// can be zero.
    pub(super) fn seal(&mut self, side: Side, plain: &[u8]) -> Vec<u8> {
        let sealed = self
            .cipher(side)
            .encrypt(
                &Default::default(),
                Payload {
                    msg: plain,
                    aad: &[],
                },
            )
            .expect("a message of this size encrypts");
        self.transcript.add(&sealed);
        sealed
    }

    /// Decrypts what [`Keys::seal`] made on the other side, after the same conversation.
    pub(super) fn open(
        &mut self,
        side: Side,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, PakeError> {
        let plain = self
            .cipher(side)
            .decrypt(
                &Default::default(),
                Payload {
                    msg: sealed,
                    aad: &[],
                },
            )
            .map_err(|_| PakeError::Mismatch)?;
        self.transcript.add(sealed);
        Ok(Zeroizing::new(plain))
    }

    fn cipher(&self, side: Side) -> ChaCha20Poly1305 {
        let key = self.key(match side {
            Side::Joiner => b"sealed by joiner",
            Side::Inviter => b"sealed by inviter",
        });
        ChaCha20Poly1305::new((&*key).into())
    }

    fn key(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key("wormhole 2026 invite keys v1");
        hasher.update(&(self.secret.len() as u64).to_be_bytes());
        hasher.update(&self.secret);
        hasher.update(self.transcript.0.finalize().as_bytes());
        hasher.update(purpose);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::code::Nameplate, *};

    fn binding() -> Binding {
        Binding {
            joiner: DeviceId::from_bytes([1; 32]),
            inviter: DeviceId::from_bytes([2; 32]),
            handle: Handle::Nameplate(Nameplate::new(7).unwrap()),
        }
    }

    /// Runs an exchange in which each side believes in its own password, binding and version.
    fn run(joiner: (&[u8], Binding, u16), inviter: (&[u8], Binding, u16)) -> (Keys, Keys) {
        let versions = (joiner.2, inviter.2);
        let joiner = Started::new(Side::Joiner, joiner.0, joiner.1);
        let inviter = Started::new(Side::Inviter, inviter.0, inviter.1);
        let (to_inviter, to_joiner) = (joiner.message().to_vec(), inviter.message().to_vec());
        let joiner = joiner.finish(versions.0, &to_joiner).unwrap();
        (joiner, inviter.finish(versions.1, &to_inviter).unwrap())
    }

    fn agree(joiner: &Keys, inviter: &Keys) -> bool {
        inviter
            .check(Side::Joiner, *joiner.confirmation(Side::Joiner).as_bytes())
            .is_ok()
    }

    #[test]
    fn the_same_secret_gives_the_same_keys_and_another_does_not() {
        let (joiner, inviter) = run((b"words", binding(), 1), (b"words", binding(), 1));
        assert!(agree(&joiner, &inviter));
        let (joiner, inviter) = run((b"word", binding(), 1), (b"words", binding(), 1));
        assert!(!agree(&joiner, &inviter));
    }

    #[test]
    fn a_man_in_the_middle_with_an_id_of_his_own_fails() {
        let mallory = DeviceId::from_bytes([3; 32]);
        let seen_by_joiner = Binding {
            inviter: mallory,
            ..binding()
        };
        let seen_by_inviter = Binding {
            joiner: mallory,
            ..binding()
        };
        let (joiner, inviter) = run(
            (b"words", seen_by_joiner, 1),
            (b"words", seen_by_inviter, 1),
        );
        assert!(!agree(&joiner, &inviter));
    }

    #[test]
    fn version_and_invite_are_part_of_the_keys() {
        let (joiner, inviter) = run((b"words", binding(), 1), (b"words", binding(), 2));
        assert!(!agree(&joiner, &inviter));
        let other = Handle::Nameplate(Nameplate::new(8).unwrap());
        let other = Binding {
            handle: other,
            ..binding()
        };
        let (joiner, inviter) = run((b"words", binding(), 1), (b"words", other, 1));
        assert!(!agree(&joiner, &inviter));
    }

    #[test]
    fn a_message_opens_only_once_in_its_place_and_direction() {
        let (mut joiner, mut inviter) = run((b"words", binding(), 1), (b"words", binding(), 1));
        let first = inviter.seal(Side::Inviter, b"offer");
        assert!(
            joiner.open(Side::Joiner, &first).is_err(),
            "not by the joiner"
        );
        assert_eq!(**joiner.open(Side::Inviter, &first).unwrap(), *b"offer");
        assert!(joiner.open(Side::Inviter, &first).is_err(), "a replay");
        let answer = joiner.seal(Side::Joiner, b"consent");
        assert_eq!(**inviter.open(Side::Joiner, &answer).unwrap(), *b"consent");
    }

    #[test]
    fn garbage_is_malformed() {
        for garbage in [&[][..], &[0; 5], &[0xff; 33]] {
            let started = Started::new(Side::Joiner, b"words", binding());
            assert!(started.finish(1, garbage).is_err());
        }
    }
}
