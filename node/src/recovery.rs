//! The recovery phrase of a mesh: a secret that people write on paper, and the key that it stands for.
//!
//! It is made and typed at a terminal; the mesh knows its public key only. It looks like nothing that `join` takes:
//! letters and digits in groups, not words.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use rand::TryRng as _;
use rand::rngs::SysRng;
use wormhole_crdt::{DeviceId, DeviceKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of chance in a phrase.
const SECRET: usize = 18;

/// Bytes that tell a mistyped phrase.
const CHECK: usize = 2;

/// Letters between two dashes.
const GROUP: usize = 4;

/// A secret: wiped when dropped, and never printed but by [`Phrase::reveal`].
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Phrase([u8; SECRET]);

/// Text that is no recovery phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "that is not a recovery phrase: eight groups of four letters and digits are expected, and one is mistyped"
)]
pub struct PhraseError;

/// The system has no chance to give.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoChance;

impl Phrase {
    /// A new one.
    ///
    /// # Errors
    /// [`NoChance`].
    pub fn random() -> Result<Self, NoChance> {
        let mut secret = [0; SECRET];
        SysRng.try_fill_bytes(&mut secret).map_err(|_| NoChance)?;
        Ok(Self(secret))
    }

    /// The text for the paper. Not for logs.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&self.check());
        let letters = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        let mut text = Zeroizing::new(String::with_capacity(letters.len() * 2));
        for (at, letter) in letters.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(letter);
        }
        text
    }

    /// The key that it stands for.
    #[must_use]
    pub fn key(&self) -> DeviceKey {
        DeviceKey::from_seed(blake3::derive_key("wormhole 2026 recovery key", &self.0))
    }

    /// What the mesh knows of it.
    #[must_use]
    pub fn public(&self) -> DeviceId {
        self.key().device_id()
    }

    fn check(&self) -> [u8; CHECK] {
        let hash = blake3::derive_key("wormhole 2026 recovery phrase check", &self.0);
        *hash.first_chunk().expect("a hash has 32 bytes")
    }
}

impl FromStr for Phrase {
    type Err = PhraseError;

    /// Forgives case, spaces and dashes, and letters that look like digits.
    fn from_str(text: &str) -> Result<Self, PhraseError> {
        let letters = text
            .chars()
            .filter(|letter| !letter.is_whitespace() && *letter != '-');
        let plain = letters.map(|letter| match letter.to_ascii_uppercase() {
            '0' => 'O',
            '1' => 'I',
            '8' => 'B',
            other => other,
        });
        let plain: Zeroizing<String> = Zeroizing::new(plain.take(64).collect());
        let bytes = BASE32_NOPAD
            .decode(plain.as_bytes())
            .map_err(|_| PhraseError)?;
        let bytes = Zeroizing::new(bytes);
        let (secret, check) = bytes.split_first_chunk::<SECRET>().ok_or(PhraseError)?;
        let phrase = Self(*secret);
        match check == phrase.check() {
            true => Ok(phrase),
            false => Err(PhraseError),
        }
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_phrase_is_read_as_it_was_written_and_a_slip_is_noticed() {
        let phrase = Phrase([7; SECRET]);
        let text = phrase.reveal();
        assert_eq!(text.len(), 8 * GROUP + 7, "{}", *text);
        assert_eq!(text.parse(), Ok(phrase.clone()));
        let sloppy = text.to_lowercase().replace('-', " ").replace('o', "0");
        assert_eq!(sloppy.parse(), Ok(phrase.clone()));
        for at in 0..text.len() {
            let mut slip: Vec<u8> = text.as_bytes().to_vec();
            if slip[at] != b'-' {
                slip[at] = if slip[at] == b'Q' { b'R' } else { b'Q' };
                let slip = String::from_utf8(slip).unwrap();
                assert_eq!(slip.parse::<Phrase>(), Err(PhraseError), "{slip}");
            }
        }
        assert_eq!(
            "7-copper-violin-harvest-ladder".parse::<Phrase>(),
            Err(PhraseError)
        );
        assert_ne!(phrase.public(), Phrase([8; SECRET]).public());
        assert!(!format!("{phrase:?}").contains('7'));
    }
}
