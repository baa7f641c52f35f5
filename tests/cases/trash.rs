//! What others remove or replace can be brought back.

use std::fs;

use anyhow::{Result, ensure};
use wormhole_tests::Lab;

#[test]
fn what_another_device_removed_comes_back_from_the_trash() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/plan.txt", "the plan")?;
    alice.write("work/old/letter.txt", "dear")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    alice.write("work/plan.txt", "ruined")?;
    fs::remove_dir_all(alice.dir("work/old"))?;
    Lab::eventually("bob has the changes", || {
        ensure!(bob.read("work/plan.txt")? == b"ruined");
        ensure!(!bob.dir("work/old").exists());
        Ok(())
    })?;
    bob.settled(1)?;

    let listed = bob.run(&["trash"])?.good()?.json()?;
    let folder = &listed["folders"][0];
    ensure!(folder["files"] == 2, "{listed}");
    ensure!(folder["entries"][0]["path"] == "old/letter.txt", "{listed}");
    ensure!(folder["entries"][1]["path"] == "plan.txt", "{listed}");
    let status = bob.run(&["status"])?.good()?.json()?.to_string();
    ensure!(status.contains("\"trash_files\":2"), "{status}");

    let path = |name: &str| bob.dir(name).to_string_lossy().into_owned();
    bob.run(&["restore", &path("work/plan.txt")])?.good()?;
    bob.run(&["restore", &path("work/old")])?.good()?;
    Lab::eventually("alice has them again", || {
        ensure!(alice.read("work/plan.txt")? == b"the plan");
        ensure!(alice.read("work/old/letter.txt")? == b"dear");
        Ok(())
    })?;
    // What stood there when the plan came back is in the trash now.
    bob.run(&["restore", &path("work/plan.txt"), "--version", "1"])?
        .good()?;
    Lab::eventually("and the other way", || {
        ensure!(alice.read("work/plan.txt")? == b"ruined");
        Ok(())
    })?;
    let refusal = bob
        .run(&["restore", &path("work/nothing.txt")])?
        .refusal()?;
    ensure!(refusal == "not_found", "{refusal}");
    Ok(())
}
