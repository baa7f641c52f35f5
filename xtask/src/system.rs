//! What the machine must have besides Rust, and how it gets there.
//!
//! As root with apt the missing packages are installed; otherwise the exact command is printed and
//! the task fails, because tests that skip themselves silently prove nothing.

use std::path::Path;

use anyhow::{Result, bail};

use crate::command::{Step, answers};

/// A program that tests or benches run, the Debian package that brings it, and what it is for.
#[derive(Debug)]
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

/// What the tests run.
pub(crate) const TESTS: [Need; 2] = [
    Need {
        program: "ip",
        package: "iproute2",
        purpose: "network namespaces for several nodes",
    },
    Need {
        program: "strace",
        package: "strace",
        purpose: "nodes that are killed at a sync point",
    },
];

/// What the benches run: the tools that Wormhole is measured beside.
pub(crate) const BENCHES: [Need; 3] = [
    Need {
        program: "rsync",
        package: "rsync",
        purpose: "the yardstick for copying",
    },
    Need {
        program: "sshd",
        package: "openssh-server",
        purpose: "what rsync runs over",
    },
    Need {
        program: "ssh",
        package: "openssh-client",
        purpose: "what rsync runs over",
    },
];

/// Directories of administrators' programs that a user's `PATH` often lacks.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Fails unless a C compiler answers (zstd and aws-lc-rs are C and assembler).
pub(crate) fn compiler() -> Result<()> {
    let chosen = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let candidates = [chosen.as_str(), "cc", "gcc", "clang"];
    if cfg!(windows) || candidates.iter().any(|name| answers(name, &["--version"])) {
        return Ok(());
    }
    bail!("no C compiler found; install one, for instance: sudo apt-get install -y build-essential")
}

/// Brings the packages that are needed, or fails with the command that would.
pub(crate) fn packages(needs: &[Need]) -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("System packages are brought on Linux only; what needs them is left out here.");
        return Ok(());
    }
    let missing: Vec<&Need> = needs
        .iter()
        .filter(|need| !installed(need.program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Missing on this machine:");
    for need in &missing {
        println!(
            "  {:<6} (package {}): {}",
            need.program, need.package, need.purpose
        );
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !installed("apt-get") {
        bail!("install the programs above with your system's package manager, then try again");
    }
    if !is_root() {
        bail!(
            "run this, then try again:\n  sudo apt-get install -y {}",
            names.join(" ")
        );
    }
    install(&names)
}

fn install(names: &[&str]) -> Result<()> {
    let here = Path::new("/");
    let apt = || Step::new("apt-get", here).env("DEBIAN_FRONTEND", "noninteractive");
    apt().args(["update", "--quiet"]).run()?;
    apt()
        .args(["install", "--yes", "--quiet", "--no-install-recommends"])
        .args(names)
        .run()
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    own || SYSTEM_DIRECTORIES
        .iter()
        .any(|dir| Path::new(dir).join(program).is_file())
}

fn is_root() -> bool {
    Step::new("id", Path::new("/"))
        .args(["-u"])
        .output()
        .is_ok_and(|id| id.trim() == "0")
}
