//! Starting: many commands at once, kills half way, and programs that leave their nodes alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use wormhole_tests::Lab;

#[test]
fn many_first_commands_at_once_all_work() -> Result<()> {
    let lab = Lab::on_loopback()?;
    for round in 0..3 {
        let peer = lab.peer(&format!("round{round}"))?;
        let answers: Vec<_> = std::thread::scope(|scope| {
            let commands: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| peer.run_starting(&["meshes"])))
                .collect();
            let join = |command: std::thread::ScopedJoinHandle<'_, _>| command.join();
            commands.into_iter().map(join).collect()
        });
        let stopped = peer.run(&["down"])?.good();
        for answer in answers {
            answer
                .map_err(|_| anyhow::anyhow!("a command panicked"))??
                .good()?;
        }
        stopped?;
    }
    Ok(())
}

#[test]
fn a_node_in_the_background_keeps_nothing_of_its_starter_open() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let peer = lab.peer("alice")?;
    // Else this would wait for the node's end.
    let started = peer.run_handing_down(&["up", "--detach"])?.good();
    let runs = peer.run(&["status"])?.good();
    peer.run(&["down"])?.good()?;
    started?;
    runs?;
    Ok(())
}

#[test]
fn a_first_start_that_is_killed_leaves_a_home_that_starts() -> Result<()> {
    let lab = Lab::on_loopback()?;
    for moment in 0..8_u32 {
        let mut peer = lab.peer(&format!("moment{moment}"))?;
        let seen = |file: &str| peer.home().join(file).exists();
        let mut child = peer.spawn_up()?;
        // Each round waits for another sign of life, and then a little longer or not.
        let sign = ["", "lock", "format", "device.key"];
        let sign = sign.get(moment as usize / 2).copied().unwrap_or_default();
        Lab::eventually("the start has come so far", || {
            ensure!(sign.is_empty() || seen(sign));
            Ok(())
        })?;
        if moment % 2 == 1 {
            std::thread::yield_now();
        }
        child.kill()?;
        child.wait()?;
        peer.start()
            .with_context(|| format!("killed after {sign:?}"))?;
        peer.stop()?;
    }
    Ok(())
}

#[test]
fn what_a_first_start_left_half_written_is_no_obstacle() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut peer = lab.peer("alice")?;
    fs::create_dir(peer.home())?;
    fs::set_permissions(peer.home(), fs::Permissions::from_mode(0o700))?;
    fs::write(peer.home().join("lock"), "")?;
    fs::write(peer.home().join("format.new"), "")?;
    peer.start()
}

/// The process ids in the locks of the homes below `dir`.
fn nodes_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for stage in fs::read_dir(dir)? {
        for actor in fs::read_dir(stage?.path())? {
            let lock = actor?.path().join("home/lock");
            let pid = fs::read_to_string(lock)?.trim().to_owned();
            ensure!(!pid.is_empty());
            found.push(Path::new("/proc").join(pid));
        }
    }
    Ok(found)
}

/// Whether a process has ended; one that nobody has waited for yet has.
fn has_ended(process: &Path) -> bool {
    match fs::read_to_string(process.join("stat")) {
        Ok(stat) => stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

#[test]
fn the_nodes_of_a_demo_that_is_killed_end_with_it() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let peer = lab.peer("alice")?;
    let stage = lab.dir().join("stage");
    fs::create_dir(&stage)?;
    let mut demo = peer.spawn(&["demo"], &[("TMPDIR", stage.as_path())])?;
    let mut nodes = Vec::new();
    Lab::eventually("three nodes run", || {
        nodes = nodes_below(&stage)?;
        ensure!(nodes.len() == 3, "{nodes:?}");
        Ok(())
    })?;
    demo.kill()?;
    demo.wait()?;
    Lab::eventually("no node is left", || {
        ensure!(nodes.iter().all(|node| has_ended(node)), "{nodes:?}");
        Ok(())
    })
}
