//! `bench`: what each step of the journey of a byte costs, and the whole journey.
//!
//! Without arguments both; with arguments only the whole journey, which gets them. Figures and how
//! to read them are in benches/README.md.

use anyhow::Result;

use crate::command::Step;
use crate::repository::Repository;
use crate::system;

/// Builds in release mode and measures; `arguments` go to the whole journey (`--only WORD`).
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    system::compiler()?;
    system::packages(&system::BENCHES)?;
    let root = repository.root();
    let program = ["--package", "wormhole-node", "--bin", "wormhole"];
    Step::cargo(root)
        .args(["build", "--release"])
        .args(program)
        .run()?;
    if arguments.is_empty() {
        Step::cargo(root)
            .args(["bench", "--package", "wormhole-benches"])
            .run()?;
    }
    Step::cargo(root)
        .args([
            "run",
            "--release",
            "--package",
            "wormhole-benches",
            "--bin",
            "journey",
            "--",
        ])
        .args(arguments)
        .run()
}
