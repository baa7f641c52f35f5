//! The whole journey of a byte, measured: two real nodes on this machine, the program's own
//! command line, and other tools beside it in the same run.
//!
//! Each row prints the median of its runs, the processor time of both nodes where that is the
//! figure that matters, and what it must reach. `cargo xtask bench` builds the program and runs
//! this; `--only WORD` picks rows. The numbers of a run are kept by hand in `README.md` beside it.

mod big;
mod figure;
mod idle;
mod latency;
mod rename;
mod rsync;
mod small;

use anyhow::Result;
use clap::Parser;

use figure::Row;

/// Measures the journey of a byte between two nodes on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs only the rows whose name contains this word.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Runs of each row; the median is printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// A row of the table: its name and what measures it.
type Measure = (&'static str, fn(usize) -> Result<Vec<Row>>);

const ROWS: &[Measure] = &[
    ("big", big::measure),
    ("small", small::measure),
    ("rename", rename::measure),
    ("latency", latency::measure),
    ("idle", idle::measure),
];

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| {
        arguments
            .only
            .as_deref()
            .is_none_or(|word| name.contains(word))
    };
    println!("| case | measured | reach at least | |\n|---|---|---|---|");
    let mut missed = 0;
    for (_, measure) in ROWS.iter().filter(|(name, _)| wanted(name)) {
        for row in measure(arguments.runs.max(1))? {
            missed += usize::from(!row.reached);
            println!("{row}");
        }
    }
    println!("\n{missed} missed");
    Ok(())
}
