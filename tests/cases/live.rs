//! Random programs and faults on three real nodes; see `fuzz` in this crate.
//!
//! `WORMHOLE_FUZZ_SEEDS` (as in `5` or `1-20`), `WORMHOLE_FUZZ_ACTS` and `WORMHOLE_FUZZ_KINDS` (names with
//! commas between, or `all`) widen a run by hand, and `WORMHOLE_FUZZ_KEEP` names where a run with
//! findings is copied to: `cargo xtask soak live` sets them.

use anyhow::{Context as _, Result, bail};
use wormhole_tests::fuzz::{self, Act, Options};

/// What the suite does every time: a short run.
const SEED: u64 = 2;
const ACTS: u32 = 60;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn seeds() -> Result<std::ops::RangeInclusive<u64>> {
    let Some(text) = setting("WORMHOLE_FUZZ_SEEDS") else {
        return Ok(SEED..=SEED);
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    Ok(first.parse().context("the first seed")?..=last.parse().context("the last seed")?)
}

fn kinds() -> Result<Vec<Act>> {
    let Some(text) = setting("WORMHOLE_FUZZ_KINDS") else {
        return Ok(Act::SUITE.to_vec());
    };
    if text == "all" {
        return Ok(Act::ALL.to_vec());
    }
    let kind =
        |name: &str| Act::named(name).with_context(|| format!("no kind of act is called {name}"));
    text.split(',').map(kind).collect()
}

#[test]
fn random_programs_on_three_devices_lose_nothing_and_end_alike() -> Result<()> {
    let acts = setting("WORMHOLE_FUZZ_ACTS").map_or(Ok(ACTS), |text| text.parse())?;
    let mut findings = Vec::new();
    for seed in seeds()? {
        let options = Options {
            seed,
            acts,
            kinds: kinds()?,
            keep: setting("WORMHOLE_FUZZ_KEEP").map(Into::into),
        };
        println!("seed {seed}");
        if let Err(error) = fuzz::run(&options) {
            println!("{error:#}");
            findings.push(seed.to_string());
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("seeds with findings: {}", findings.join(", "))
}
