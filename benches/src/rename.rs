//! Renaming the directory that holds the 20,000 files.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use crate::figure::{Pair, Row, median, size, until};
use crate::small;

pub(crate) fn measure(runs: usize) -> Result<Vec<Row>> {
    let pair = Pair::on_lan()?;
    small::make(&pair.lab.dir().join("many"), 0)?;
    fs::rename(pair.lab.dir().join("many"), pair.alice.dir("work/many"))?;
    small::arrive(&pair)?;
    pair.alice.settled(1)?;
    let (mut wire, mut seconds) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let (from, to) = (name(run), name(run + 1));
        let before = pair.wire_bytes()?;
        let started = Instant::now();
        fs::rename(pair.alice.dir(&from), pair.alice.dir(&to))?;
        until(|| pair.bob.dir(&to).exists())?;
        seconds.push(started.elapsed().as_secs_f64());
        pair.bob.settled(1)?;
        wire.push((pair.wire_bytes()? - before) as f64);
    }
    let (wire, seconds) = (median(wire) as u64, median(seconds));
    Ok(vec![Row {
        case: "rename of a directory that holds the 20,000 files",
        measured: format!("{} on the wire, visible after {seconds:.2} s", size(wire)),
        target: "under 64 KiB, under 2 s",
        reached: wire < 64 << 10 && seconds < 2.0,
    }])
}

fn name(run: usize) -> String {
    if run == 0 {
        "work/many".to_owned()
    } else {
        format!("work/many-{run}")
    }
}
