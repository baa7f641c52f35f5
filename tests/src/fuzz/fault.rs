//! What happens to nodes and to whole folders: signals, restarts, limits, copies put back.

use std::fs;

use anyhow::{Context as _, Result};
use rand::RngExt as _;

use super::World;
use super::act::Act;
use super::device::{Device, State, copy};
use super::ledger::link_hash;
use crate::Tree;
use crate::tree::Node;

/// Does it, if the device is in a state for it; else nothing happens.
pub(super) fn perform(world: &mut World, index: usize, act: Act) -> Result<()> {
    let slow = world.rng.random::<bool>();
    let Some(device) = world.devices.get_mut(index) else {
        return Ok(());
    };
    let done = match (act, device.state) {
        (Act::Pause, State::Running) => command(device, &["pause"])?,
        (Act::Resume, State::Running) => command(device, &["resume"])?,
        (Act::Limit, State::Running) if slow => {
            command(device, &["limit", "--down", "64KiB", "--up", "128KiB"])?
        }
        (Act::Limit, State::Running) => command(device, &["limit", "--reset"])?,
        (Act::Rescan, State::Running) => {
            let root = device.root().to_string_lossy().into_owned();
            // Refused while the folder is away or paused, which is an answer.
            drop(device.peer.run(&["rescan", &root])?);
            true
        }
        (Act::Freeze, State::Running) => {
            device.peer.freeze()?;
            to(device, State::Frozen)
        }
        (Act::Thaw, State::Frozen) => {
            device.peer.thaw()?;
            to(device, State::Running)
        }
        (Act::Kill, State::Running | State::Frozen) => {
            device.peer.kill()?;
            to(device, State::Down)
        }
        (Act::Stop, State::Running) => {
            device.peer.stop()?;
            to(device, State::Down)
        }
        (Act::Start, State::Down) => {
            device.peer.start()?;
            to(device, State::Running)
        }
        _ => return folder(world, index, act),
    };
    if done {
        let name = device.peer.name().to_owned();
        let how = if act == Act::Limit && slow {
            "slow "
        } else {
            ""
        };
        world.ledger.tell(&format!("! {name}: {how}{act:?}"));
    }
    Ok(())
}

fn to(device: &mut Device, state: State) -> bool {
    device.state = state;
    true
}

fn command(device: &Device, arguments: &[&str]) -> Result<bool> {
    let answer = device.peer.run(arguments)?.good();
    answer.with_context(|| format!("{} at {}", arguments.join(" "), device.peer.name()))?;
    Ok(true)
}

/// What happens to a folder, or to a home with it.
fn folder(world: &mut World, index: usize, act: Act) -> Result<()> {
    let Some(device) = world.devices.get_mut(index) else {
        return Ok(());
    };
    let done = match act {
        Act::MoveFolderAway if !device.is_away() => {
            fs::rename(device.root(), device.elsewhere())?;
            true
        }
        Act::MoveFolderBack if device.is_away() => {
            fs::rename(device.elsewhere(), device.root())?;
            true
        }
        Act::BackUpFolder if !device.is_away() => back_up_folder(device)?,
        Act::BackUpMachine if !device.is_away() && device.state == State::Running => {
            back_up_machine(device)?
        }
        Act::RestoreFolder if device.has_folder_copy && is_settled(device, 0)? => {
            device.held = None;
            device.put_aside(&device.root())?;
            copy(&device.folder_copy(), &device.root())?;
            true
        }
        Act::RestoreMachine if device.has_machine_copy && is_settled(device, 2)? => {
            restore_machine(world, index)?;
            true
        }
        _ => false,
    };
    if done && let Some(device) = world.devices.get(index) {
        let name = device.peer.name();
        world.ledger.tell(&format!("! {name}: {act:?}"));
    }
    Ok(())
}

/// Whether all that the device wrote is recorded and, with `members`, known to the others. What is not
/// would be lost with the disk, which is nobody's fault.
fn is_settled(device: &Device, members: u32) -> Result<bool> {
    if device.state != State::Running || device.is_away() {
        return Ok(false);
    }
    let members = members.to_string();
    let wait = ["wait", "--timeout", "10", "--members", &members];
    Ok(device.peer.run(&wait)?.code == 0)
}

fn back_up_folder(device: &mut Device) -> Result<bool> {
    let copied = device.folder_copy();
    if copied.exists() {
        fs::remove_dir_all(&copied)?;
    }
    // Files that vanish while they are copied make `cp` complain: no copy then.
    device.has_folder_copy = copy(&device.root(), &copied).is_ok();
    Ok(device.has_folder_copy)
}

fn back_up_machine(device: &mut Device) -> Result<bool> {
    device.peer.stop()?;
    let copied = device.machine_copy();
    if copied.exists() {
        fs::remove_dir_all(&copied)?;
    }
    copy(&device.peer.home(), &copied.join("home"))?;
    copy(&device.root(), &copied.join("work"))?;
    device.has_machine_copy = true;
    device.peer.start()?;
    Ok(true)
}

/// The disk is replaced by an older copy of it. What only this device had may be missing from now on.
fn restore_machine(world: &mut World, index: usize) -> Result<()> {
    let mut elsewhere = Vec::new();
    for (other, device) in world.devices.iter().enumerate() {
        let root = if device.is_away() {
            device.elsewhere()
        } else {
            device.root()
        };
        // A file that vanishes while it is looked at is looked for again by the next one who asks.
        if other != index
            && let Ok(tree) = Tree::read(&root)
        {
            elsewhere.extend(hashes(&tree));
        }
    }
    let Some(device) = world.devices.get_mut(index) else {
        return Ok(());
    };
    device.held = None;
    device.peer.kill()?;
    for hash in hashes(&Tree::read(&device.root())?) {
        if !elsewhere.contains(&hash) {
            world.ledger.excuse(&hash, "the disk that had it is gone");
        }
    }
    device.put_aside(&device.peer.home())?;
    device.put_aside(&device.root())?;
    copy(&device.machine_copy().join("home"), &device.peer.home())?;
    copy(&device.machine_copy().join("work"), &device.root())?;
    device.peer.start()
}

/// What the ledger knows the contents of a tree by.
pub(super) fn hashes(tree: &Tree) -> Vec<blake3::Hash> {
    let hash = |node: &Node| match node {
        Node::Directory => None,
        Node::Link(target) => Some(link_hash(&target.to_string_lossy())),
        Node::File { hash, .. } => Some(*hash),
    };
    tree.0.values().filter_map(hash).collect()
}
