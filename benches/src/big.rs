//! One 1 GiB file: new, changed in the middle, grown at the front, and again under another name.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::figure::{Pair, Row, is_long, median, noise, size, until};
use crate::rsync;

const GIB: usize = 1 << 30;
const MIB: usize = 1 << 20;

pub(crate) fn measure(runs: usize) -> Result<Vec<Row>> {
    let (mut cpu, mut wall, mut rival) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        let pair = Pair::on_loopback()?;
        let source = pair.lab.dir().join("source.bin");
        fs::write(&source, noise(run as u64, GIB))?;
        let used = pair.cpu_seconds()?;
        let seconds = place(&pair, &source, "new.bin")?;
        cpu.push(pair.cpu_seconds()? - used);
        wall.push(seconds);
        if let Some(seconds) = rsync::seconds(pair.lab.dir(), &pair.alice.dir("work/new.bin"))? {
            rival.push(seconds);
        }
    }
    let (cpu, wall) = (median(cpu), median(wall));
    let mut rows = vec![Row {
        case: "one 1 GiB random file, new to both",
        measured: format!("{cpu:.2} CPU s/GiB of both nodes, {wall:.2} s"),
        target: "5 CPU s/GiB",
        reached: cpu <= 5.0,
    }];
    if rival.is_empty() {
        rows.push(Row {
            case: "the same beside rsync over ssh",
            measured: "rsync and sshd are not installed".to_owned(),
            target: "not slower",
            reached: false,
        });
    } else {
        let rival = median(rival);
        rows.push(Row {
            case: "the same beside rsync over ssh",
            measured: format!("{wall:.2} s; rsync {rival:.2} s"),
            target: "not slower",
            reached: wall <= rival,
        });
    }
    rows.extend(changes(runs)?);
    Ok(rows)
}

/// Moves `source` into the shared folder and waits for it on the other side.
fn place(pair: &Pair, source: &Path, name: &str) -> Result<f64> {
    let length = fs::metadata(source)?.len();
    let started = Instant::now();
    fs::rename(source, pair.alice.dir("work").join(name))?;
    until(|| is_long(&pair.bob.dir("work").join(name), length))?;
    Ok(started.elapsed().as_secs_f64())
}

fn changes(runs: usize) -> Result<Vec<Row>> {
    let pair = Pair::on_lan()?;
    let source = pair.lab.dir().join("source.bin");
    let mut bytes = noise(99, GIB);
    fs::write(&source, &bytes)?;
    place(&pair, &source, "file.bin")?;
    settle(&pair)?;

    bytes
        .get_mut(GIB / 2..GIB / 2 + MIB)
        .into_iter()
        .for_each(|middle| middle.copy_from_slice(&noise(7, MIB)));
    let overwritten = replace(&pair, &source, &bytes)?;
    let grown = [noise(8, MIB), bytes].concat();
    let inserted = replace(&pair, &source, &grown)?;

    let (mut wire, mut seconds) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let copy = pair.lab.dir().join("copy.bin");
        fs::copy(pair.alice.dir("work/file.bin"), &copy)?;
        let before = pair.wire_bytes()?;
        seconds.push(place(&pair, &copy, &format!("again-{run}.bin"))?);
        settle(&pair)?;
        wire.push((pair.wire_bytes()? - before) as f64);
    }
    let (again, seconds) = (median(wire) as u64, median(seconds));
    let row = |case, bytes, target, limit: u64| Row {
        case,
        measured: format!("{} on the wire", size(bytes)),
        target,
        reached: bytes < limit,
    };
    Ok(vec![
        row(
            "1 MiB overwritten in the middle",
            overwritten,
            "under 2 MiB",
            2 << 20,
        ),
        row(
            "1 MiB inserted at the front",
            inserted,
            "under 2 MiB",
            2 << 20,
        ),
        Row {
            case: "the same file again under another name",
            measured: format!("{} on the wire, {seconds:.2} s", size(again)),
            target: "under 64 KiB, under 2 s",
            reached: again < 64 << 10 && seconds < 2.0,
        },
    ])
}

/// Replaces the shared file, waits for the other side, and says what crossed the wire.
fn replace(pair: &Pair, scratch: &Path, bytes: &[u8]) -> Result<u64> {
    let before = pair.wire_bytes()?;
    fs::write(scratch, bytes)?;
    let marked = fs::metadata(scratch)?.modified()?;
    fs::rename(scratch, pair.alice.dir("work/file.bin"))?;
    let arrived = pair.bob.dir("work/file.bin");
    until(|| {
        fs::metadata(&arrived)
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| at == marked)
    })?;
    settle(pair)?;
    Ok(pair.wire_bytes()? - before)
}

fn settle(pair: &Pair) -> Result<()> {
    pair.alice.settled(1)?;
    pair.bob.settled(1)
}
