//! `test`: all tests of the workspace, after the system has what they need.
//!
//! With cargo-nextest when it is installed, else with cargo's own runner; the same tests run
//! either way. Documentation examples run last.

use anyhow::Result;

use crate::command::{Step, answers};
use crate::repository::Repository;
use crate::system;

/// Installs or names system packages, builds, runs everything; `arguments` go to the runner.
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    system::compiler()?;
    system::packages(&system::TESTS)?;
    let root = repository.root();
    // Tests of whole nodes start the program itself, which a test build alone does not produce.
    Step::cargo(root)
        .args(["build", "--package", "wormhole-node", "--bin", "wormhole"])
        .run()?;
    if answers("cargo", &["nextest", "--version"]) {
        Step::cargo(root)
            .args(["nextest", "run", "--workspace"])
            .args(arguments)
            .run()?;
        if arguments.is_empty() {
            Step::cargo(root)
                .args(["test", "--workspace", "--doc"])
                .run()?;
        }
    } else {
        println!(
            "cargo-nextest is not installed: cargo's own runner does the same, a little slower"
        );
        Step::cargo(root)
            .args(["test", "--workspace"])
            .args(arguments)
            .run()?;
    }
    println!("\nAll tests passed.");
    Ok(())
}
