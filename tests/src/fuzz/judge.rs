//! The end of a run: everything goes on, everybody is in sync, and the ledger is held against the trees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use blake3::Hash;

use super::World;
use super::act::Act;
use super::device::{Device, State};
use super::fault::hashes;
use super::ledger::{Finding, Ledger};
use super::program;
use crate::tree::Node;
use crate::{Lab, Tree};

/// Findings of one kind that are told; the rest is counted.
const MOST: usize = 8;

/// Ends all faults, waits, and compares.
pub(super) fn findings(world: &mut World) -> Result<Vec<Finding>> {
    calm(world)?;
    let mut findings = Vec::new();
    let same = Lab::eventually("every device shows the same tree", || {
        for device in &world.devices {
            settled(device)?;
        }
        equal(&world.devices)
    });
    if let Err(error) = same {
        let about = differing(&world.devices).unwrap_or_default();
        findings.push(Finding {
            what: format!("not alike at the end: {error:#}"),
            about,
        });
    }
    let trees = trees(&world.devices)?;
    findings.extend(missing(&trees, &world.devices, &world.ledger));
    findings.extend(unknown(&trees, &world.devices, &world.ledger));
    Ok(findings)
}

/// Every node runs, every folder is in its place, nothing is paused or slow, every file is closed.
fn calm(world: &mut World) -> Result<()> {
    world.ledger.tell("! the end begins");
    for device in &mut world.devices {
        if device.is_away() {
            fs::rename(device.elsewhere(), device.root())?;
        }
        match device.state {
            State::Running => {}
            State::Frozen => device.peer.thaw()?,
            State::Down => device.peer.start()?,
        }
        device.state = State::Running;
        let closed = program::perform(device, Act::Release, &mut world.ledger, &mut world.rng);
        if let Err(error) = closed
            && !program::is_expected(&error)
        {
            return Err(error);
        }
        device.peer.run(&["resume"])?.good()?;
        device.peer.run(&["limit", "--reset"])?.good()?;
        fs::write(device.root().join(".wormhole/ignore"), "")?;
    }
    Ok(())
}

/// Whether the device says that it is in sync with both others. Deletions that wait for a person get one.
fn settled(device: &Device) -> Result<()> {
    let wait = ["wait", "--timeout", "20", "--members", "2"];
    let answer = device.peer.run(&wait)?;
    if answer.code == 0 {
        return Ok(());
    }
    if answer.stdout.contains("confirm-deletions") {
        let root = device.root().to_string_lossy().into_owned();
        device.peer.run(&["confirm-deletions", &root])?.good()?;
    }
    bail!(
        "{} waits: {}{}",
        device.peer.name(),
        answer.stdout,
        answer.stderr
    )
}

fn trees(devices: &[Device]) -> Result<Vec<Tree>> {
    let tree = |device: &Device| Tree::read(&device.root());
    devices.iter().map(tree).collect()
}

/// Ignored files may differ.
fn without_ignored(mut tree: Tree) -> Tree {
    tree.0
        .retain(|path, _| !path.to_string_lossy().to_lowercase().contains(".ign"));
    tree
}

fn equal(devices: &[Device]) -> Result<()> {
    let trees = trees(devices)?;
    let mut trees = trees.into_iter().map(without_ignored);
    let first = trees.next().context("there are devices")?;
    for tree in trees {
        first.must_equal(&tree)?;
    }
    Ok(())
}

/// Words of the story that are about what differs.
fn differing(devices: &[Device]) -> Result<Vec<String>> {
    let trees: Vec<Tree> = trees(devices)?.into_iter().map(without_ignored).collect();
    let all: BTreeSet<&PathBuf> = trees.iter().flat_map(|tree| tree.0.keys()).collect();
    let differs = |path: &&PathBuf| {
        let mut nodes = trees.iter().map(|tree| tree.0.get(*path));
        let first = nodes.next();
        nodes.any(|node| Some(node) != first)
    };
    let paths = all.into_iter().filter(differs).take(MOST);
    Ok(paths
        .map(|path| path.to_string_lossy().into_owned())
        .collect())
}

/// Contents that must be there and are on no device.
fn missing(trees: &[Tree], devices: &[Device], ledger: &Ledger) -> Vec<Finding> {
    let here: BTreeSet<[u8; 32]> = trees
        .iter()
        .flat_map(hashes)
        .map(|hash| *hash.as_bytes())
        .collect();
    let gone = ledger
        .required()
        .filter(|(hash, _)| !here.contains(hash.as_bytes()));
    let finding = |(hash, what): (&Hash, &str)| {
        let kept =
            kept_by(devices, hash).map_or(String::new(), |place| format!("; only in {place}"));
        let mut about = vec![ledger.name_of(hash)];
        about.extend(
            what.split([' ', ',', '(', ')'])
                .filter(|word| word.contains('.'))
                .map(str::to_owned),
        );
        Finding {
            what: format!("LOST {what}{kept}"),
            about,
        }
    };
    let mut found: Vec<Finding> = gone.map(finding).collect();
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        found.push(Finding {
            what: format!("and {more} more are lost"),
            about: Vec::new(),
        });
    }
    found
}

/// Where below a folder's `.wormhole` the content still is.
fn kept_by(devices: &[Device], hash: &Hash) -> Option<String> {
    devices.iter().find_map(|device| {
        let kept = Tree::read(&device.root().join(".wormhole")).ok()?;
        let (path, _) = kept
            .0
            .iter()
            .find(|(_, node)| matches!(node, Node::File { hash: it, .. } if it == hash))?;
        Some(format!(
            "{}'s .wormhole/{}",
            device.peer.name(),
            path.display()
        ))
    })
}

/// Files with bytes that no program ever wrote.
fn unknown(trees: &[Tree], devices: &[Device], ledger: &Ledger) -> Vec<Finding> {
    let mut found = Vec::new();
    for (tree, device) in trees.iter().zip(devices) {
        for (path, node) in &tree.0 {
            if let Node::File { hash, length, .. } = node
                && !ledger.is_known(hash)
            {
                found.push(Finding {
                    what: format!(
                        "NOBODY WROTE what {} shows as {}: {length} bytes, {}",
                        device.peer.name(),
                        path.display(),
                        beginning(&device.root().join(path))
                    ),
                    about: vec![path.to_string_lossy().into_owned()],
                });
            }
        }
    }
    found.truncate(MOST);
    found
}

fn beginning(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
        return "all zero".to_owned();
    }
    let text = String::from_utf8_lossy(bytes.get(..40).unwrap_or(&bytes)).into_owned();
    format!(
        "beginning with {:?}",
        text.lines().next().unwrap_or_default()
    )
}
