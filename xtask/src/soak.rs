//! `soak`: the tests that look for bugs by chance, for longer than the suite can.
//!
//! What they do is in `tests/cases/live.rs`, `tests/cases/kill.rs` and `tests/bend.rs`; here they are only
//! built, widened by their environment and run one at a time.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::command::Step;
use crate::repository::Repository;
use crate::system;

/// Which of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Soak {
    /// Random programs and faults on three real nodes, and a ledger of every content ever closed
    Live {
        /// One seed, or the first and the last, as in `1-20`
        #[arg(long, default_value = "1-20")]
        seeds: String,
        /// Acts of each seed; a hundred take about a minute
        #[arg(long, default_value_t = 300)]
        acts: u32,
        /// Kinds of acts, with commas between, or `all`
        #[arg(long, default_value = "all")]
        kinds: String,
        /// Where homes and folders of a seed with findings are copied to
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// Kill -9 at one sync point after the other, over a working pair
    Kill {
        /// How often
        #[arg(long, default_value_t = 1000)]
        kills: u32,
    },
    /// Bytes from outside, bent: every decoder
    Bytes {
        /// Bendings for each decoder
        #[arg(long, default_value_t = 200_000)]
        runs: u64,
        /// Where chance begins
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Builds and runs.
pub(crate) fn run(repository: &Repository, what: &Soak) -> Result<()> {
    system::compiler()?;
    let root = repository.root();
    match what {
        Soak::Live {
            seeds,
            acts,
            kinds,
            keep,
        } => {
            let mut step = whole_nodes(repository, "live::")?
                .env("WORMHOLE_FUZZ_SEEDS", seeds)
                .env("WORMHOLE_FUZZ_ACTS", &acts.to_string())
                .env("WORMHOLE_FUZZ_KINDS", kinds);
            if let Some(keep) = keep {
                let keep = std::path::absolute(keep).context("where to keep")?;
                step = step.env("WORMHOLE_FUZZ_KEEP", &keep.to_string_lossy());
            }
            step.run()
        }
        Soak::Kill { kills } => whole_nodes(repository, "kill::")?
            .env("WORMHOLE_SOAK_KILLS", &kills.to_string())
            .run(),
        Soak::Bytes { runs, seed } => Step::cargo(root)
            .args(["test", "--workspace", "--lib", "bent_"])
            .env("WORMHOLE_BEND_RUNS", &runs.to_string())
            .env("WORMHOLE_BEND_SEED", &seed.to_string())
            .run(),
    }
}

/// The cases below a module, once the program is built that they start.
fn whole_nodes(repository: &Repository, module: &str) -> Result<Step> {
    system::packages(&system::TESTS)?;
    let root = repository.root();
    Step::cargo(root)
        .args(["build", "--package", "wormhole-node", "--bin", "wormhole"])
        .run()?;
    Ok(Step::cargo(root)
        .args(["test", "--package", "wormhole-tests", "--test", "cases"])
        .args([module, "--", "--nocapture", "--test-threads", "1"]))
}
