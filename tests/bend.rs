//! Bends bytes: what a decoder of bytes from outside must stand, on stable Rust, with printed seeds.
//!
//! Each room that decodes such bytes takes this file into its tests by `#[path]` and gives, for each
//! target, bytes that are right (made by code, so that they follow the format), bytes that once did harm
//! (kept as lines of hexadecimal digits), and a function. The function must not panic and must not hold
//! more memory than a constant and a constant times what came. `WORMHOLE_BEND_RUNS` and
//! `WORMHOLE_BEND_SEED` widen a run by hand; `cargo xtask soak bytes` sets them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What the suite does every time, for each target.
const RUNS: u64 = 3_000;

/// Bytes that are never made longer than this by bending.
const MOST: usize = 1 << 20;

/// Numbers at which code turns.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x3fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// What memory a target may hold at once: `fixed` bytes and `per_byte` for each byte that came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) fixed: u64,
    pub(crate) per_byte: u64,
}

/// Runs `target` over all of `right` and `kept`, and over what bending makes of them.
pub(crate) fn bend(
    name: &str,
    right: &[Vec<u8>],
    kept: &str,
    budget: Budget,
    target: impl Fn(&[u8]),
) {
    let kept = kept.lines().map(from_hex);
    let corpus: Vec<Vec<u8>> = right.iter().cloned().chain(kept).collect();
    assert!(!right.is_empty(), "{name} needs bytes that are right");
    for bytes in &corpus {
        try_one(name, "as it is", bytes, budget, &target);
    }
    let seed = setting("WORMHOLE_BEND_SEED").unwrap_or(1);
    for run in 0..setting("WORMHOLE_BEND_RUNS").unwrap_or(RUNS) {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9).wrapping_add(run));
        let mut bytes = chance.one_of(&corpus).clone();
        for _ in 0..=chance.below(5) {
            chance.bend(&mut bytes, &corpus);
        }
        try_one(
            name,
            &format!("seed {seed}, run {run}"),
            &bytes,
            budget,
            &target,
        );
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn try_one(name: &str, which: &str, bytes: &[u8], budget: Budget, target: impl Fn(&[u8])) {
    let mut ended = Ok(());
    let used = allocation_counter::measure(|| {
        ended = catch_unwind(AssertUnwindSafe(|| target(bytes)));
    });
    let told = || format!("{name}, {which}: {}", to_hex(bytes));
    if let Err(panic) = ended {
        println!("a panic at {}", told());
        resume_unwind(panic);
    }
    let most = budget.fixed + budget.per_byte * bytes.len() as u64;
    assert!(
        used.bytes_max <= most,
        "{} bytes of memory for {} bytes at {}",
        used.bytes_max,
        bytes.len(),
        told()
    );
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(line: &str) -> Vec<u8> {
    let digits: Vec<u32> = line
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits");
    digits.chunks_exact(2).map(byte).collect()
}

/// A small generator, so that every room has the same one without another crate.
struct Chance(u64);

impl Chance {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("below a usize")
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A piece of `bytes`: where it begins and ends.
    fn piece(&mut self, bytes: &[u8]) -> (usize, usize) {
        let begin = self.below(bytes.len() + 1);
        let longest = (bytes.len() - begin).min(64);
        (begin, begin + self.below(longest + 1))
    }

    /// Bends once.
    fn bend(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        match self.below(10) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.one_of(&EDGES).to_le_bytes()[0],
            2 => bytes.truncate(at),
            3 => {
                let (begin, end) = self.piece(bytes);
                drop(bytes.drain(begin..end));
            }
            4 => {
                let (begin, end) = self.piece(bytes);
                let piece = bytes[begin..end].to_vec();
                for _ in 0..self.below(4) {
                    drop(bytes.splice(at..at, piece.iter().copied()));
                }
            }
            5 => self.put_number(bytes, at),
            6 => self.put_varint(bytes, at),
            7 => {
                let other = self.one_of(corpus);
                let (begin, end) = self.piece(other);
                drop(bytes.splice(at..at, other[begin..end].iter().copied()));
            }
            8 => {
                let other = self.one_of(corpus);
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.push(self.next().to_le_bytes()[0]),
        }
        bytes.truncate(MOST);
    }

    /// An edge over what is there, as a number of a fixed width.
    fn put_number(&mut self, bytes: &mut [u8], at: usize) {
        let width = *self.one_of(&[2, 4, 8]);
        let number = self.one_of(&EDGES).to_le_bytes();
        for (place, byte) in bytes.iter_mut().skip(at).zip(&number[..width]) {
            *place = *byte;
        }
    }

    /// An edge in place of one byte, as a number of a varying width.
    fn put_varint(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let mut number = *self.one_of(&EDGES);
        let mut encoded = Vec::new();
        while number >= 0x80 {
            encoded.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        encoded.push(number.to_le_bytes()[0]);
        let end = (at + 1).min(bytes.len());
        drop(bytes.splice(at.min(end)..end, encoded));
    }
}

#[test]
#[should_panic(expected = "bytes of memory")]
fn a_target_that_takes_what_is_claimed_is_found() {
    let budget = Budget {
        fixed: 1 << 16,
        per_byte: 4,
    };
    bend(
        "claims",
        &[vec![3, 0, 0, 0, 1, 2, 3]],
        "",
        budget,
        |bytes| {
            if let Some((length, _)) = bytes.split_first_chunk() {
                let claimed = u32::from_le_bytes(*length) as usize;
                drop(std::hint::black_box(Vec::<u8>::with_capacity(claimed)));
            }
        },
    );
}

#[test]
#[should_panic(expected = "out of bounds")]
fn a_target_that_panics_is_found() {
    let budget = Budget {
        fixed: 1 << 16,
        per_byte: 4,
    };
    bend("panics", &[vec![1, 7, 7]], "", budget, |bytes| {
        if let Some(at) = bytes.first() {
            let _byte = bytes[usize::from(*at)];
        }
    });
}
