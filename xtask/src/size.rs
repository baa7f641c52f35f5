//! `size`: how long the files of each room are, and which are too long.
//!
//! The aim is a median of 200 lines or fewer; the limit is hard. Also called by `check`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::repository::{Repository, Source};

/// A file longer than this is two files: nobody holds more of it in mind.
const LINES_MAX: usize = 600;

/// Prints one row per room and fails when a file is over the limit.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    let sources = repository.sources()?;
    let mut rooms: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for source in &sources {
        rooms
            .entry(source.room())
            .or_default()
            .push(source.text.lines().count());
    }
    println!(
        "{:<10} {:>6} {:>7} {:>7} {:>5} {:>5}",
        "room", "files", "lines", "median", "90 %", "max"
    );
    for (room, mut lengths) in rooms {
        lengths.sort_unstable();
        println!(
            "{room:<10} {:>6} {:>7} {:>7} {:>5} {:>5}",
            lengths.len(),
            lengths.iter().sum::<usize>(),
            percentile(&lengths, 50),
            percentile(&lengths, 90),
            percentile(&lengths, 100),
        );
    }
    let faults = faults(&sources);
    if !faults.is_empty() {
        bail!("files over {LINES_MAX} lines:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// One line for each file over the limit.
pub(crate) fn faults(sources: &[Source]) -> Vec<String> {
    let long = |source: &Source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| {
            format!(
                "{}: {lines} lines, the limit is {LINES_MAX}: split it by subject",
                source.path
            )
        })
    };
    sources.iter().filter_map(long).collect()
}

fn percentile(sorted: &[usize], percent: usize) -> usize {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(last * percent / 100)
        .copied()
        .unwrap_or_default()
}
