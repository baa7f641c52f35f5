//! The one door for people: `cargo xtask demo`, `test`, `check`, `soak`, `bench`, `size`, `ready`.
//!
//! Each subcommand does all its set-up on a machine that has only Rust and a C compiler, or says
//! exactly what is missing. CI calls the same subcommands, so there is no second truth. What a
//! subcommand does is in the file of its name; nothing here is linked into the product.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool for developers"
)]

mod bench;
mod check;
mod command;
mod demo;
mod repository;
mod size;
mod soak;
mod system;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::repository::Repository;

/// Everything a person does with this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build wormhole and run its demo: three real nodes, one shared folder, some mischief
    Demo {
        /// Handed to `wormhole demo`, for instance `--from DIR` or `--keep`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install or name the system packages that the tests need, then run all tests
    Test {
        /// Handed to the test runner, for instance a filter
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the tests that look for bugs by chance for as long as you like
    Soak {
        #[command(subcommand)]
        what: soak::Soak,
    },
    /// Format, lints, docs, crate borders, file sizes, promises: everything but the tests
    Check,
    /// Run the benches; see benches/README.md for what they measure
    Bench {
        /// Handed to the benches, for instance the name of one
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Show how long the files of each crate are; fails on a file over the limit
    Size,
    /// All that a change must pass: `check`, then `test`
    Ready,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<()> {
    let repository = Repository::find()?;
    match task {
        Task::Demo { arguments } => demo::run(&repository, arguments),
        Task::Test { arguments } => test::run(&repository, arguments),
        Task::Soak { what } => soak::run(&repository, what),
        Task::Check => check::run(&repository),
        Task::Bench { arguments } => bench::run(&repository, arguments),
        Task::Size => size::run(&repository),
        Task::Ready => {
            check::run(&repository)?;
            test::run(&repository, &[])
        }
    }
}
