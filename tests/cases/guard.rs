//! Absence is not deletion.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wormhole_tests::{Lab, Peer};

fn pair(lab: &Lab) -> Result<(Peer, Peer)> {
    let alice = lab.started("alice")?;
    for n in 0..200 {
        alice.write(&format!("work/{}/{n}.txt", n % 10), format!("file {n}"))?;
    }
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    Ok((alice, bob))
}

/// Waits until bob has recorded and sent what he has, and is told why alice does not show it.
fn goes_on_without(alice: &Peer, bob: &Peer) -> Result<()> {
    let name = alice.name();
    Lab::eventually(
        "bob goes on, and hears that the other folder is stopped",
        || {
            let waited = bob.run(&["wait", "--timeout", "1"])?;
            let waiting = waited.json()?;
            let reasons = waiting.pointer("/waiting_for").and_then(Value::as_array);
            let reasons = reasons.context("there are reasons")?;
            ensure!(waited.code == 3 && reasons.len() == 1, "{waited:?}");
            let told = reasons.iter().all(|reason| {
                let text = reason.to_string();
                text.contains(name) && text.contains("a folder is stopped there")
            });
            ensure!(told, "{waited:?}");
            Ok(())
        },
    )
}

#[test]
fn a_folder_whose_marker_is_gone_is_stopped_not_emptied() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (mut alice, bob) = pair(&lab)?;
    alice.stop()?;
    // The disk is not mounted: an empty directory stands where the folder was.
    fs::rename(alice.dir("work"), alice.dir("elsewhere"))?;
    fs::create_dir(alice.dir("work"))?;
    alice.start()?;
    Lab::eventually("the folder is stopped with a reason", || {
        let status = alice.run(&["status"])?.good()?.json()?.to_string();
        ensure!(status.contains("stopped"), "{status}");
        Ok(())
    })?;
    bob.write("work/after.txt", "bob goes on")?;
    goes_on_without(&alice, &bob)?;
    ensure!(bob.tree("work")?.files() == 201, "nothing was deleted");
    ensure!(
        fs::read_dir(alice.dir("work"))?.next().is_none(),
        "nothing was written either"
    );
    fs::remove_dir(alice.dir("work"))?;
    fs::rename(alice.dir("elsewhere"), alice.dir("work"))?;
    Lab::eventually("the disk is mounted, and the folder goes on", || {
        ensure!(alice.read("work/after.txt").is_ok());
        Ok(())
    })
}

#[test]
fn a_folder_that_is_moved_away_while_the_node_runs_is_told_at_once_and_goes_on_when_it_is_back()
-> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    fs::rename(alice.dir("work"), alice.dir("elsewhere"))?;
    // The very next question has the answer.
    let status = alice.run(&["status"])?.good()?.json()?.to_string();
    ensure!(status.contains("not in its place"), "{status}");
    bob.write("work/after.txt", "bob goes on")?;
    goes_on_without(&alice, &bob)?;
    ensure!(bob.tree("work")?.files() == 201, "nothing was deleted");
    ensure!(!alice.dir("elsewhere/after.txt").exists());
    // Two times, so that what was opened again is noticed and let go again, too.
    for round in ["once", "twice"] {
        alice.write(&format!("elsewhere/{round}.txt"), round)?;
        fs::rename(alice.dir("elsewhere"), alice.dir("work"))?;
        Lab::eventually("the folder goes on", || {
            ensure!(
                alice.read("work/after.txt").is_ok()
                    && bob.read(&format!("work/{round}.txt")).is_ok()
            );
            Ok(())
        })?;
        alice.settled(1)?;
        ensure!(alice.tree("work")? == bob.tree("work")?);
        fs::rename(alice.dir("work"), alice.dir("elsewhere"))?;
        let status = alice.run(&["status"])?.good()?.json()?.to_string();
        ensure!(status.contains("not in its place"), "{status}");
    }
    Ok(())
}

#[test]
fn a_sudden_mass_deletion_waits_for_a_person() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    for entry in fs::read_dir(alice.dir("work"))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != ".wormhole") {
            fs::remove_dir_all(path)?;
        }
    }
    Lab::eventually("the deletion is held back and told", || {
        let status = alice.run(&["status"])?.good()?.json()?.to_string();
        ensure!(status.contains("delet"), "{status}");
        Ok(())
    })?;
    ensure!(
        bob.tree("work")?.files() == 200,
        "nothing is gone elsewhere"
    );
    Ok(())
}

#[test]
fn ignored_files_stay_where_they_are() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    alice.write("work/.wormholeignore", "*.tmp\nbuild/\n")?;
    Lab::eventually("the rules are shared", || {
        ensure!(bob.read("work/.wormholeignore").is_ok());
        Ok(())
    })?;
    alice.write("work/x.tmp", "ignored")?;
    alice.write("work/build/out.o", "ignored")?;
    alice.write("work/seen.txt", "seen")?;
    Lab::eventually("what is not ignored arrives", || {
        ensure!(bob.read("work/seen.txt").is_ok());
        Ok(())
    })?;
    alice.settled(1)?;
    bob.settled(1)?;
    ensure!(!bob.dir("work/x.tmp").exists() && !bob.dir("work/build").exists());
    ensure!(alice.dir("work/x.tmp").exists());
    Ok(())
}
