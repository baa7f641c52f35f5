//! A 4 KiB save: from the write until the new content is readable on the other device.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use crate::figure::{Pair, Row, noise, percentile, until};

pub(crate) fn measure(runs: usize) -> Result<Vec<Row>> {
    let pair = Pair::on_loopback()?;
    let mut times = Vec::new();
    for number in 0..(runs as u64 * 100) {
        let bytes = noise(number, 4_096);
        let name = format!("work/note-{}.txt", number % 10);
        let started = Instant::now();
        pair.alice.write(&name, &bytes)?;
        until(|| fs::read(pair.bob.dir(&name)).is_ok_and(|read| read == bytes))?;
        times.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    let (middle, high) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    Ok(vec![Row {
        case: "a 4 KiB save, until readable on the other side",
        measured: format!("median {middle:.0} ms, 99 % {high:.0} ms"),
        target: "median 300 ms, 99 % 1 s",
        reached: middle < 300.0 && high < 1_000.0,
    }])
}
