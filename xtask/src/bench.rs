//! `bench`: the criterion benches, one for each step of the journey of a byte.
//!
//! Figures and how to read them are in benches/README.md.

use anyhow::Result;

use crate::command::Step;
use crate::repository::Repository;
use crate::system;

/// Runs all benches of the workspace; `arguments` go to criterion.
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    system::compiler()?;
    let root = repository.root();
    Step::cargo(root)
        .args([
            "build",
            "--release",
            "--package",
            "wormhole-node",
            "--bin",
            "wormhole",
        ])
        .run()?;
    Step::cargo(root)
        .args(["bench", "--package", "wormhole-benches"])
        .args(arguments)
        .run()
}
