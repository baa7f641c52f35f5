//! The oracle: every content that a program ever closed, and whether somebody may miss it.
//!
//! A content is a file's bytes or a link's target. Each is written once (every write has bytes of its
//! own), so it is known by its hash. It must be there at the end unless programs that saw it replaced or
//! deleted it as often as it was put somewhere.

use std::collections::HashMap;

use blake3::Hash;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Lines of the story that are told about one content.
const MOST_LINES: usize = 40;

/// A content by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Number(usize);

#[derive(Debug)]
struct Content {
    what: String,
    /// Whether a program is done with it; what is half written may be seen and may be lost.
    closed: bool,
    /// How often it was put somewhere.
    puts: u32,
    /// How often a program that saw it took it away.
    taken: u32,
    /// Why it may be missing all the same.
    excuse: Option<&'static str>,
}

/// A fault that was found: what to say, and which words of the story belong to it.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) about: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    seed: u64,
    act: u32,
    contents: Vec<Content>,
    known: HashMap<Hash, Number>,
    story: Vec<String>,
}

impl Ledger {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            act: 0,
            contents: Vec::new(),
            known: HashMap::new(),
            story: Vec::new(),
        }
    }

    /// The next act begins.
    pub(super) fn begin(&mut self, act: u32) {
        self.act = act;
    }

    /// A line of the story.
    pub(super) fn tell(&mut self, line: &str) {
        self.story.push(format!("{:>4} {line}", self.act));
    }

    /// Bytes that nobody wrote before, of about `length`.
    pub(super) fn bytes(&mut self, length: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let number = self.contents.len();
        let mut bytes = format!("content {number} of seed {}\n", self.seed).into_bytes();
        let head = bytes.len();
        bytes.resize(head.max(length), 0);
        ChaCha8Rng::seed_from_u64(rng.random()).fill_bytes(bytes.split_at_mut(head).1);
        bytes
    }

    /// A content was put somewhere; `closed` when the program is done with it.
    pub(super) fn put(&mut self, bytes: &[u8], at: &str, closed: bool) {
        self.put_hash(blake3::hash(bytes), at, closed);
    }

    /// A link was made or turned.
    pub(super) fn put_link(&mut self, target: &str, at: &str) {
        self.put_hash(link_hash(target), &format!("link {at}"), true);
    }

    fn put_hash(&mut self, hash: Hash, at: &str, closed: bool) {
        let next = Number(self.contents.len());
        let number = *self.known.entry(hash).or_insert(next);
        if number == next {
            self.contents.push(Content {
                what: format!("c{} ({at}, act {})", next.0, self.act),
                closed: false,
                puts: 0,
                taken: 0,
                excuse: None,
            });
        }
        if let Some(content) = self.contents.get_mut(number.0) {
            content.closed |= closed;
            content.puts += 1;
        }
    }

    /// A program that saw these bytes replaced or deleted them.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.take_hash(&blake3::hash(bytes));
    }

    /// The same of a link.
    pub(super) fn take_link(&mut self, target: &str) {
        self.take_hash(&link_hash(target));
    }

    fn take_hash(&mut self, hash: &Hash) {
        if let Some(number) = self.known.get(hash)
            && let Some(content) = self.contents.get_mut(number.0)
        {
            content.taken += 1;
        }
    }

    /// This content may be missing from now on.
    pub(super) fn excuse(&mut self, hash: &Hash, why: &'static str) {
        if let Some(number) = self.known.get(hash)
            && let Some(content) = self.contents.get_mut(number.0)
        {
            content.excuse = Some(why);
        }
    }

    /// How the story calls these bytes.
    pub(super) fn name(&self, bytes: &[u8]) -> String {
        self.name_of(&blake3::hash(bytes))
    }

    pub(super) fn name_of(&self, hash: &Hash) -> String {
        match self.known.get(hash) {
            Some(number) => format!("c{}", number.0),
            None if *hash == blake3::hash(b"") => "nothing".to_owned(),
            None => format!(
                "unknown {}",
                hash.to_hex().chars().take(8).collect::<String>()
            ),
        }
    }

    /// Whether some program wrote it, closed or not.
    pub(super) fn is_known(&self, hash: &Hash) -> bool {
        *hash == blake3::hash(b"") || self.known.contains_key(hash)
    }

    /// What must be there: hash and how it is called.
    pub(super) fn required(&self) -> impl Iterator<Item = (&Hash, &str)> {
        self.known.iter().filter_map(|(hash, number)| {
            let content = self.contents.get(number.0)?;
            let required =
                content.closed && content.puts > content.taken && content.excuse.is_none();
            required.then_some((hash, content.what.as_str()))
        })
    }

    /// The findings, each with the lines of the story that it is about, and then the faults.
    pub(super) fn told(&self, findings: &[Finding]) -> String {
        let mut text = String::new();
        for Finding { what, about } in findings {
            text.push_str(&format!("* {what}\n"));
            let concerns = |line: &&String| {
                // A directory's words are about what is in it, too.
                let is_of = |word: &str, other: &String| {
                    let rest = other.strip_prefix(word);
                    !word.is_empty()
                        && rest.is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/', ..]))
                };
                let mut words = line.split(' ');
                line.contains('!') || words.any(|word| about.iter().any(|other| is_of(word, other)))
            };
            let lines: Vec<_> = self.story.iter().filter(concerns).collect();
            let skipped = lines.len().saturating_sub(MOST_LINES);
            for line in lines.into_iter().skip(skipped) {
                text.push_str(&format!("    {line}\n"));
            }
        }
        text
    }

    /// The whole story.
    pub(super) fn story(&self) -> String {
        self.story.join("\n")
    }
}

/// A link's target is no file's bytes.
pub(super) fn link_hash(target: &str) -> Hash {
    blake3::hash(format!("link to {target}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(ledger: &Ledger) -> usize {
        ledger.required().count()
    }

    #[test]
    fn a_content_is_required_until_it_is_taken_as_often_as_it_was_put() {
        let mut ledger = Ledger::new(1);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let one = ledger.bytes(10, &mut rng);
        ledger.put(&one, "a", true);
        let other = ledger.bytes(10, &mut rng);
        assert_ne!(one, other, "every write has bytes of its own");
        ledger.put(&one, "b", true);
        ledger.take(&one);
        assert_eq!(missing(&ledger), 1, "the copy is still there");
        ledger.take(&one);
        assert_eq!(missing(&ledger), 0);
        ledger.put(&other, "a", false);
        assert_eq!(missing(&ledger), 0, "half written");
        ledger.put(&other, "a", true);
        assert_eq!(missing(&ledger), 1);
        ledger.excuse(&blake3::hash(&other), "its disk is gone");
        assert_eq!(missing(&ledger), 0);
    }
}
