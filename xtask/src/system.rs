//! What the machine must have besides Rust, and how it gets there.
//!
//! As root with apt the missing packages are installed; otherwise the exact command is printed and
//! the task fails, because tests that skip themselves silently prove nothing.

use std::path::Path;

use anyhow::{Result, bail};

use crate::command::{Step, answers};

/// A program that some test runs, the Debian package that brings it, and what it is for.
struct Need {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const NEEDS: [Need; 4] = [
    Need {
        program: "ip",
        package: "iproute2",
        purpose: "network namespaces for several nodes",
    },
    Need {
        program: "nft",
        package: "nftables",
        purpose: "cutting and blocking links",
    },
    Need {
        program: "rsync",
        package: "rsync",
        purpose: "the yardstick of the benches",
    },
    Need {
        program: "sshd",
        package: "openssh-server",
        purpose: "the yardstick of the benches",
    },
];

/// Directories of administrators' programs that a user's `PATH` often lacks.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Fails unless a C compiler answers (zstd and ring are C and assembler).
pub(crate) fn compiler() -> Result<()> {
    let chosen = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let candidates = [chosen.as_str(), "cc", "gcc", "clang"];
    if cfg!(windows) || candidates.iter().any(|name| answers(name, &["--version"])) {
        return Ok(());
    }
    bail!("no C compiler found; install one, for instance: sudo apt-get install -y build-essential")
}

/// Brings the packages that the tests need, or fails with the command that would.
pub(crate) fn packages() -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("Tests of network namespaces run on Linux only; the others need no packages.");
        return Ok(());
    }
    let missing: Vec<&Need> = NEEDS
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
