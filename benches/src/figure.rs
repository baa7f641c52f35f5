//! Rows of the table, medians, and the pair of nodes that most rows measure.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use wormhole_tests::{Lab, Peer};

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) measured: String,
    pub(crate) target: &'static str,
    pub(crate) reached: bool,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.reached { "reached" } else { "MISSED" };
        write!(
            f,
            "| {} | {} | {} | {mark} |",
            self.case, self.measured, self.target
        )
    }
}

/// The middle one of `values`, the upper of two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

/// The value below which the share `rank` of `values` lies.
pub(crate) fn percentile(values: &mut [f64], rank: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let index = (values.len() as f64 * rank) as usize;
    values.get(index.min(last)).copied().unwrap_or(f64::NAN)
}

/// Two nodes that share the directory `work` and are in sync.
pub(crate) struct Pair {
    pub(crate) lab: Lab,
    pub(crate) alice: Peer,
    pub(crate) bob: Peer,
}

impl Pair {
    /// A pair on the loopback address.
    pub(crate) fn on_loopback() -> Result<Self> {
        Self::meet(Lab::on_loopback()?, |alice| Some(alice))
    }

    /// A pair on a LAN of namespaces, where what crosses the wire can be counted.
    pub(crate) fn on_lan() -> Result<Self> {
        Self::meet(Lab::on_lan()?, |_| None)
    }

    fn meet(lab: Lab, via: fn(&Peer) -> Option<&Peer>) -> Result<Self> {
        let (alice, bob) = (lab.started("alice")?, lab.started("bob")?);
        alice.write("work/first.txt", "first")?;
        let code = alice.share("work")?;
        bob.join(&code, "work", via(&alice))?.good()?;
        bob.settled(1)?;
        Ok(Self { lab, alice, bob })
    }

    /// Processor seconds of both nodes so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        Ok(self.alice.cpu_seconds()? + self.bob.cpu_seconds()?)
    }

    /// Bytes that both nodes have put on the wire so far.
    pub(crate) fn wire_bytes(&self) -> Result<u64> {
        Ok(self.alice.sent_bytes()? + self.bob.sent_bytes()?)
    }
}

/// Waits until `done`, looking often, and says how long it took.
pub(crate) fn until(mut done: impl FnMut() -> bool) -> Result<Duration> {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > Duration::from_secs(600) {
            bail!("gave up after ten minutes");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(started.elapsed())
}

/// Whether the file at `path` is `length` bytes long.
pub(crate) fn is_long(path: &Path, length: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() == length)
}

/// `length` bytes that nothing can compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A count of bytes, for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.2} MiB", bytes as f64 / 1_048_576.0),
    }
}
