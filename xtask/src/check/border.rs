//! Who may import whom: the table of ARCHITECTURE.md, asked of `cargo metadata` and of the text.
//!
//! A room may stand only on the rooms below it, and some foreign crates may stand in one room only,
//! so that their types cannot spread through the house.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command::Step;
use crate::repository::{Repository, Source};

/// A room and the rooms it may use. `tests` and `benches` may use any and are not listed.
const ROOMS: [(&str, &[&str]); 6] = [
    ("store", &[]),
    ("crdt", &["store"]),
    ("mesh", &["crdt", "store"]),
    ("vfs", &["crdt", "store"]),
    ("node", &["crdt", "mesh", "store", "vfs"]),
    ("xtask", &[]),
];

/// Foreign crates that stay in one room (names by their beginning).
const KEPT_IN: [(&str, &str); 8] = [
    ("automerge", "crdt"),
    ("axum", "node"),
    ("fastcdc", "store"),
    ("fuser", "vfs"),
    ("libp2p", "mesh"),
    ("mdns-sd", "mesh"),
    ("quinn", "mesh"),
    ("yamux", "mesh"),
];

/// Crates that the synchronous rooms do without: their callers own threads and time.
const ASYNC: [&str; 3] = ["tokio", "tokio-util", "futures"];

/// What the deterministic room must not say: files, sockets, clocks, chance.
const CRDT_FORBIDS: [&str; 7] = [
    "tokio::",
    "std::fs",
    "std::net",
    "SystemTime::now",
    "Instant::now",
    "rand::rng(",
    "std::thread",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    kind: Option<String>,
}

/// One line for each border that is crossed.
///
/// # Errors
///
/// When cargo cannot describe the workspace.
pub(super) fn faults(repository: &Repository, sources: &[Source]) -> Result<Vec<String>> {
    let text = Step::cargo(repository.root())
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .output()?;
    let metadata: Metadata = serde_json::from_str(&text).context("answer of cargo metadata")?;
    let mut faults: Vec<String> = metadata.packages.iter().flat_map(package_faults).collect();
    faults.extend(crdt_words(sources));
    Ok(faults)
}

fn package_faults(package: &Package) -> Vec<String> {
    let room = room(&package.name);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        if let Some(other) = name.strip_prefix("wormhole-")
            && !allowed.contains(&other)
        {
            faults.push(format!("{room}/Cargo.toml: {room} may not import {other}"));
        }
        if dependency.kind.as_deref() == Some("dev") {
            continue;
        }
        if let Some((prefix, home)) = KEPT_IN.iter().find(|(prefix, _)| name.starts_with(prefix))
            && *home != room
        {
            faults.push(format!("{room}/Cargo.toml: {prefix} stays in {home}"));
        }
        if matches!(room, "store" | "crdt") && ASYNC.contains(&name) {
            faults.push(format!(
                "{room}/Cargo.toml: {room} is synchronous and does without {name}"
            ));
        }
    }
    faults
}

fn room(package: &str) -> &str {
    package.strip_prefix("wormhole-").unwrap_or(package)
}

fn crdt_words(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.room() == "crdt") {
        for (number, line) in source.product_lines() {
            let code = line.split("//").next().unwrap_or_default();
            for word in CRDT_FORBIDS.iter().filter(|word| code.contains(**word)) {
                let path = &source.path;
                faults.push(format!(
                    "{path}:{number}: crdt is deterministic and may not use {word}"
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependency: &str) -> Package {
        let dependencies = vec![Dependency {
            name: dependency.to_owned(),
            kind: None,
        }];
        Package {
            name: name.to_owned(),
            dependencies,
        }
    }

    #[test]
    fn a_room_may_stand_only_on_the_rooms_below_it() {
        assert!(package_faults(&package("wormhole-mesh", "wormhole-crdt")).is_empty());
        assert_eq!(
            package_faults(&package("wormhole-mesh", "wormhole-vfs")).len(),
            1
        );
        assert_eq!(
            package_faults(&package("wormhole-crdt", "wormhole-mesh")).len(),
            1
        );
    }

    #[test]
    fn foreign_crates_stay_in_their_room() {
        assert!(package_faults(&package("wormhole-mesh", "libp2p-tls")).is_empty());
        assert_eq!(package_faults(&package("wormhole-node", "libp2p")).len(), 1);
        assert_eq!(package_faults(&package("wormhole-store", "tokio")).len(), 1);
    }

    #[test]
    fn a_clock_in_crdt_is_found_and_a_comment_about_it_is_not() {
        let text =
            "//! Header.\nlet now = SystemTime::now(); // no\n// SystemTime::now is absent\n";
        let source = Source::new("crdt/src/edit.rs".to_owned(), text.to_owned());
        assert_eq!(crdt_words(&[source]).len(), 1);
    }
}
