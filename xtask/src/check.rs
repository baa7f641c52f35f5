//! `check`: everything that can be said about a change without running the tests.
//!
//! Cheap checks first, all of them before the first failure is reported; then the compiler's.
//! Each rule stands in a file of its own below `check/`.

mod border;
mod circle;
mod promise;
mod source;

use anyhow::{Result, bail};

use crate::command::{Step, answers};
use crate::repository::Repository;
use crate::size;

/// Runs every check and fails at the end if one of them found something.
pub(crate) fn run(repository: &Repository) -> Result<()> {
    house_rules(repository)?;
    let root = repository.root();
    component(&["fmt", "--version"], "rustfmt")?;
    component(&["clippy", "--version"], "clippy")?;
    Step::cargo(root).args(["fmt", "--all", "--check"]).run()?;
    Step::cargo(root)
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
        .run()?;
    Step::cargo(root)
        .args([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        )
        .run()?;
    if answers("cargo", &["deny", "--version"]) {
        Step::cargo(root).args(["deny", "check"]).run()?;
    } else {
        println!("\ncargo-deny is not installed: licences and advisories were not checked");
    }
    println!("\nAll checks passed.");
    Ok(())
}

fn house_rules(repository: &Repository) -> Result<()> {
    println!("▸ crate borders, circles, module names and headers, file sizes, promises");
    let sources = repository.sources()?;
    let mut faults = border::faults(repository, &sources)?;
    faults.extend(circle::faults(&sources));
    faults.extend(source::faults(&sources));
    faults.extend(size::faults(&sources));
    faults.extend(promise::faults(repository, &sources)?);
    if !faults.is_empty() {
        bail!(
            "{} rules of the house are broken:\n  {}",
            faults.len(),
            faults.join("\n  ")
        );
    }
    Ok(())
}

fn component(probe: &[&str], name: &str) -> Result<()> {
    if !answers("cargo", probe) {
        bail!("{name} is missing; run: rustup component add {name}");
    }
    Ok(())
}
