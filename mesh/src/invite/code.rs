//! The short code that a person reads out: `417203-copper-violin-harvest-ladder`.
//!
//! The number is the *nameplate*: public, it only finds the inviter. The four words, of a list of 2048,
//! are the secret (44 bits), which leaves this device only inside the PAKE of `pake`. Parsing forgives
//! case, spaces and punctuation, and says which word is wrong and which one was probably meant.

use std::{fmt, str::FromStr};

use bip39::Language;
use rand::{CryptoRng, RngExt};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Words in a code after the nameplate.
pub(super) const WORDS: usize = 4;

/// Words in the list; each stands for 11 bits.
const LIST: u16 = 2048;

/// Suggestions that are less like the word than this are no help.
const LIKENESS: f64 = 0.7;

/// What was typed as one word is cut here before it is shown.
const SHOWN_CHARS: usize = 32;

/// The public number in front of a code.
///
/// It leads a joiner to the inviter and says nothing about the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nameplate(u32);

impl Nameplate {
    /// The greatest that is accepted.
    pub const MAX: u32 = 999_999;

    /// The least that is made: with six digits even a big network hardly ever has one twice.
    const MIN_MADE: u32 = 100_000;

    /// Checks the range, 1 to [`Nameplate::MAX`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number >= 1 && number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// A random one.
    pub(super) fn random(rng: &mut impl CryptoRng) -> Self {
        Self(rng.random_range(Self::MIN_MADE..=Self::MAX))
    }

    /// As it is written in the code.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A join code. A secret: wiped when dropped, and never printed but by [`Code::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    nameplate: Nameplate,
    words: Words,
}

#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
struct Words([u16; WORDS]);

impl Code {
    pub(super) fn random(nameplate: Nameplate, rng: &mut impl CryptoRng) -> Self {
        let mut words = Words([0; WORDS]);
        words.0.fill_with(|| rng.random_range(0..LIST));
        Self { nameplate, words }
    }

    /// The public part.
    #[must_use]
    pub const fn nameplate(&self) -> Nameplate {
        self.nameplate
    }

    /// The text for the person who hands it on. Not for logs.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(&self.nameplate.to_string());
        for word in self.words.0 {
            text.push('-');
            text.push_str(
                Language::English
                    .word_list()
                    .get(usize::from(word))
                    .unwrap_or(&""),
            );
        }
        text
    }

    /// What the PAKE takes: the words' numbers, so that spelling never matters.
    pub(super) fn password(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(
            self.words
                .0
                .iter()
                .flat_map(|word| word.to_be_bytes())
                .collect(),
        )
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-…)", self.nameplate)
    }
}

/// What is wrong with a code as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Nothing was typed.
    #[error("no code was given; it looks like 417203-copper-violin-harvest-ladder")]
    Empty,
    /// It does not begin with a number in range.
    #[error(
        "a code begins with a number from 1 to {}, like 417203-copper-violin-harvest-ladder, but this one \
         begins with \"{found}\"",
        Nameplate::MAX
    )]
    NoNameplate {
        /// What stands in the number's place.
        found: String,
    },
    /// It has not four words after the number.
    #[error("a code has {WORDS} words after its number, but this one has {found}")]
    WordCount {
        /// How many words were typed.
        found: usize,
    },
    /// A word is not one of those that codes are made of.
    #[error("word {position} of the code, \"{word}\", is not one that codes use{}", did_you_mean(.suggestion))]
    WordNotInList {
        /// What was typed.
        word: String,
        /// Which word, counted from 1 after the number.
        position: usize,
        /// The word that was probably meant.
        suggestion: Option<&'static str>,
    },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |word| format!("; did you mean \"{word}\"?"))
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let lower = Zeroizing::new(text.to_lowercase());
        let mut parts = lower
            .split(|c: char| !c.is_alphanumeric())
            .filter(|part| !part.is_empty());
        let first = parts.next().ok_or(CodeError::Empty)?;
        let nameplate =
            first
                .parse()
                .ok()
                .and_then(Nameplate::new)
                .ok_or_else(|| CodeError::NoNameplate {
                    found: shown(first),
                })?;
        let typed: Vec<&str> = parts.collect();
        let mut words = Words([0; WORDS]);
        for (position, (typed, word)) in (1..).zip(typed.iter().zip(&mut words.0)) {
            *word = Language::English
                .find_word(typed)
                .ok_or_else(|| CodeError::WordNotInList {
                    word: shown(typed),
                    position,
                    suggestion: nearest(typed),
                })?;
        }
        if typed.len() == WORDS {
            Ok(Self { nameplate, words })
        } else {
            Err(CodeError::WordCount { found: typed.len() })
        }
    }
}

fn shown(typed: &str) -> String {
    typed.chars().take(SHOWN_CHARS).collect()
}

fn nearest(typed: &str) -> Option<&'static str> {
    let typed = shown(typed);
    Language::English
        .word_list()
        .iter()
        .map(|word| (strsim::jaro_winkler(&typed, word), *word))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn a_code_reads_back_however_it_is_typed() {
        let code: Code = "7-copper-violin-harvest-ladder".parse().unwrap();
        let text = code.reveal();
        for typed in [
            text.to_string(),
            text.to_uppercase(),
            text.replace('-', " "),
            format!("  {}\n", text.replace('-', "  - ")),
            text.replace('-', "."),
        ] {
            assert_eq!(typed.parse::<Code>(), Ok(code.clone()), "{typed:?}");
        }
    }

    #[test]
    fn the_wrong_word_is_named_and_the_right_one_suggested() {
        let wrong = "7-copper-violinn-harvest-ladder"
            .parse::<Code>()
            .unwrap_err();
        assert_eq!(
            wrong,
            CodeError::WordNotInList {
                word: "violinn".into(),
                position: 2,
                suggestion: Some("violin")
            }
        );
        assert_eq!(
            wrong.to_string(),
            "word 2 of the code, \"violinn\", is not one that codes use; did you mean \"violin\"?"
        );
    }

    #[test]
    fn each_other_mistake_has_its_own_answer() {
        let wrong = |text: &str| text.parse::<Code>().unwrap_err();
        assert_eq!(wrong(" - "), CodeError::Empty);
        assert_eq!(
            wrong("seven-copper"),
            CodeError::NoNameplate {
                found: "seven".into()
            }
        );
        assert_eq!(
            wrong("0-copper"),
            CodeError::NoNameplate { found: "0".into() }
        );
        assert_eq!(wrong("7-copper-violin"), CodeError::WordCount { found: 2 });
        assert_eq!(
            wrong("7-zoo-zoo-zoo-zoo-zoo"),
            CodeError::WordCount { found: 5 }
        );
    }

    #[test]
    fn debug_shows_no_word() {
        let code = Code::random(Nameplate(7), &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(format!("{code:?}"), "Code(7-…)");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _parsed = text.parse::<Code>();
        }

        #[test]
        fn every_code_survives_its_text(seed: u64) {
            let rng = &mut ChaCha20Rng::seed_from_u64(seed);
            let code = Code::random(Nameplate::random(rng), rng);
            prop_assert_eq!(code.reveal().parse::<Code>(), Ok(code));
        }
    }
}
