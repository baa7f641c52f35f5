//! `demo`: builds the program as users get it and lets it show itself.
//!
//! What the demo does is `wormhole demo`'s own affair (node/src/demo.rs); here it is only built.

use anyhow::Result;

use crate::command::Step;
use crate::repository::Repository;
use crate::system;

/// Builds in release mode, then runs `wormhole demo` with `arguments`.
pub(crate) fn run(repository: &Repository, arguments: &[String]) -> Result<()> {
    system::compiler()?;
    let root = repository.root();
    println!("Building wormhole (the first time this takes some minutes)");
    let package = ["--package", "wormhole-node", "--bin", "wormhole"];
    Step::cargo(root)
        .args(["build", "--release"])
        .args(package)
        .run()?;
    Step::cargo(root)
        .args(["run", "--quiet", "--release"])
        .args(package)
        .args(["--", "demo"])
        .args(arguments)
        .run()
}
