//! 200,000 files, settled and idle: memory, processor, and the time to be ready again.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use wormhole_tests::Lab;

use crate::figure::{Row, size};

const FILES: usize = 200_000;
const WATCHED: Duration = Duration::from_secs(30);

pub(crate) fn measure(_runs: usize) -> Result<Vec<Row>> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.peer("alice")?;
    for number in 0..FILES {
        let place = alice.dir("work").join(format!("{:03}", number % 1_000));
        fs::create_dir_all(&place)?;
        fs::write(place.join(format!("{number}.txt")), number.to_string())?;
    }
    alice.start()?;
    alice.share("work")?;
    alice.settled(0)?;
    alice.stop()?;
    let started = Instant::now();
    alice.start()?;
    let ready = started.elapsed().as_secs_f64();
    alice.settled(0)?;

    let used = alice.cpu_seconds()?;
    std::thread::sleep(WATCHED);
    let share = (alice.cpu_seconds()? - used) / WATCHED.as_secs_f64() * 100.0;
    let memory = alice.resident_bytes()?;
    Ok(vec![
        Row {
            case: "200,000 files, settled and idle",
            measured: format!("{} resident, {share:.2} % of a core", size(memory)),
            target: "300 MiB, 1 %",
            reached: memory < 300 << 20 && share < 1.0,
        },
        Row {
            case: "restart with 200,000 files until ready",
            measured: format!("{ready:.2} s"),
            target: "5 s",
            reached: ready < 5.0,
        },
    ])
}
