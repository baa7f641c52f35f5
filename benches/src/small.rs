//! 20,000 files of 4–16 KiB in 400 directories, from scratch.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::figure::{Pair, Row, median, noise, until};

pub(crate) const FILES: usize = 20_000;

pub(crate) fn measure(runs: usize) -> Result<Vec<Row>> {
    let mut rates = Vec::new();
    let mut cpu = Vec::new();
    for run in 0..runs {
        let pair = Pair::on_loopback()?;
        make(&pair.lab.dir().join("many"), run as u64)?;
        let used = pair.cpu_seconds()?;
        let started = Instant::now();
        fs::rename(pair.lab.dir().join("many"), pair.alice.dir("work/many"))?;
        arrive(&pair)?;
        rates.push(FILES as f64 / started.elapsed().as_secs_f64());
        cpu.push(pair.cpu_seconds()? - used);
    }
    let rate = median(rates);
    Ok(vec![Row {
        case: "20,000 files of 4–16 KiB in 400 directories",
        measured: format!("{rate:.0} files/s, {:.1} CPU s of both nodes", median(cpu)),
        target: "2,500 files/s",
        reached: rate >= 2_500.0,
    }])
}

/// Makes the files below `dir`.
pub(crate) fn make(dir: &Path, seed: u64) -> Result<()> {
    let bytes = noise(seed, 32 << 10);
    for number in 0..FILES {
        let place = dir.join(format!("{:03}", number % 400));
        fs::create_dir_all(&place)?;
        let length = 4_096 + (number * 7_919) % 12_288;
        let mut content = number.to_le_bytes().to_vec();
        content.extend(bytes.get(..length).unwrap_or_default());
        fs::write(place.join(format!("{number}.bin")), content)?;
    }
    Ok(())
}

/// Waits until the other side has them all.
pub(crate) fn arrive(pair: &Pair) -> Result<()> {
    let many = pair.bob.dir("work/many");
    until(|| count(&many) >= FILES && pair.bob.settled(1).is_ok())?;
    Ok(())
}

pub(crate) fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    // Counting must not cost the nodes their processors: it is done seldom when far from the end.
    let found = entries
        .flatten()
        .map(|entry| fs::read_dir(entry.path()).map_or(0, Iterator::count))
        .sum();
    if found < FILES {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    found
}
