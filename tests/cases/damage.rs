//! A damaged database or pack is detected, healed or told: never a panic, never a loss elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use wormhole_tests::{Lab, Peer};

/// Every file below `dir` whose name ends with `ending`.
fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn a_lost_store_index_is_rebuilt() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/big.bin", vec![3; 2 << 20])?;
    let code = alice.share("work")?;
    let mut bob = lab.started("bob")?;
    let address = alice.address()?;
    bob.run_with(
        &["join", "--yes", "-", "--seed", "--peer", &address],
        &format!("{code}\n"),
    )?
    .good()?;
    bob.settled(1)?;
    for node in [&mut alice, &mut bob] {
        node.stop()?;
        let index = files(&node.home(), "index.redb")?
            .pop()
            .context("a store has an index")?;
        fs::remove_file(index)?;
        node.start()?;
        node.settled(0)?;
    }
    let copy = bob.run(&["cat", "work:big.bin"])?;
    ensure!(
        copy.code == 0 && copy.stdout.len() == 2 << 20,
        "the content is still here"
    );
    bob.stop()?;
    let carol = lab.started("carol")?;
    carol
        .join(&alice.invite("work", &[])?, "work", Some(&alice))?
        .good()?;
    carol.settled(1)?;
    alice
        .tree("work")?
        .must_equal(&carol.tree("work")?)
        .context("alice serves her files again")
}

#[test]
fn a_damaged_replica_is_told_and_touches_nothing() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/a.txt", "a")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    alice.stop()?;
    let replica = files(&alice.home(), "replica.redb")?
        .pop()
        .context("a mesh has a replica")?;
    fs::write(&replica, vec![0x5a; 40_000])?;
    alice.start()?;
    let status = alice.run(&["status"])?.good()?.json()?;
    let problem = status.pointer("/meshes/0/problem");
    let problem = problem.and_then(serde_json::Value::as_str);
    ensure!(
        problem.is_some_and(|problem| problem.contains("replica.redb")),
        "{status}"
    );
    let wait = alice.run(&["wait", "--timeout", "0"])?;
    ensure!(
        wait.code == 3,
        "what cannot be opened is not in sync: {wait:?}"
    );
    ensure!(alice.read("work/a.txt")? == b"a" && bob.read("work/a.txt")? == b"a");
    Ok(())
}

#[test]
fn a_database_with_flipped_bytes_stops_its_mesh_and_no_other() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    for mesh in ["one", "two"] {
        alice.write(&format!("{mesh}/a.txt"), mesh)?;
        alice.share(mesh)?;
    }
    alice.stop()?;
    let record = files(&alice.home(), "mesh.json")?
        .into_iter()
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("\"one\"")))
        .context("the record of the mesh")?;
    let replica = record.with_file_name("replica.redb");
    let whole = fs::read(&replica)?;
    for seed in 0..6 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        for _ in 0..400 {
            let place = rng.random_range(0..bytes.len());
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 0xff;
            }
        }
        fs::write(&replica, bytes)?;
        alice
            .start()
            .with_context(|| format!("with the bytes of seed {seed} flipped"))?;
        ensure!(alice.run(&["cat", "two:a.txt"])?.good()?.stdout == "two");
        alice.stop()?;
    }
    Ok(())
}

/// Flips a byte in the middle of every pack of a node that does not run.
fn rot(home: &Path) -> Result<()> {
    let packs = files(home, ".pack")?;
    ensure!(!packs.is_empty(), "there is something to damage");
    for pack in packs {
        let mut bytes = fs::read(&pack)?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        fs::write(pack, bytes)?;
    }
    Ok(())
}

/// A seed that holds one file of alice's, of random digits, damaged while it did not run.
fn rotten_seed(lab: &Lab, alice: &Peer, check: Option<&str>) -> Result<Peer> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let digits = |_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('?');
    alice.write(
        "work/photos/trip.jpg",
        (0..3 << 20).map(digits).collect::<String>(),
    )?;
    let code = alice.share("work")?;
    let mut seed = lab.started("seed")?;
    let address = alice.address()?;
    let join = ["join", "--yes", "-", "--seed", "--peer", &address];
    seed.run_with(&join, &format!("{code}\n"))?.good()?;
    seed.settled(1)?;
    seed.stop()?;
    rot(&seed.home())?;
    if let Some(rate) = check {
        fs::write(
            seed.home().join("config.toml"),
            format!("[check]\nrate = \"{rate}\"\n"),
        )?;
    }
    Ok(seed)
}

#[test]
fn a_flipped_byte_on_a_seed_is_found_and_fetched_again() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    let mut seed = rotten_seed(&lab, &alice, Some("off"))?;
    seed.start()?;
    seed.settled(1)?;
    let check = seed.run(&["check"])?.good()?.json()?;
    let number = |name: &str| check.pointer(&format!("/meshes/0/{name}")).cloned();
    ensure!(number("damaged") == Some(1.into()), "{check}");
    let again = seed.run(&["check", "work"])?.good()?.json()?;
    ensure!(
        again.pointer("/meshes/0/damaged") == Some(&0.into()),
        "{again}"
    );
    alice.stop()?;
    let hash = |bytes: &[u8]| blake3::hash(bytes);
    let copy = seed.run(&["cat", "work:photos/trip.jpg"])?.good()?.stdout;
    ensure!(
        hash(copy.as_bytes()) == hash(&alice.read("work/photos/trip.jpg")?),
        "the seed has the right bytes by itself"
    );
    Ok(())
}

#[test]
fn damage_that_nobody_can_heal_is_told_by_name_until_somebody_can() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    let mut seed = rotten_seed(&lab, &alice, Some("1 GiB"))?;
    alice.stop()?;
    seed.start()?;
    Lab::eventually("the background finds it, and names the file", || {
        let status = seed.run(&["status"])?.good()?.json()?;
        let path = status.pointer("/meshes/0/damage/0/path");
        ensure!(path == Some(&"photos/trip.jpg".into()), "{status}");
        Ok(())
    })?;
    let check = seed.run(&["check"])?;
    ensure!(
        check.code == 1 && check.stdout.contains("trip.jpg"),
        "{check:?}"
    );
    seed.stop()?;
    seed.start()?;
    Lab::eventually("a restart does not forget it", || {
        let status = seed.run(&["status"])?.good()?.stdout;
        ensure!(status.contains("trip.jpg"), "{status}");
        Ok(())
    })?;
    alice.start()?;
    seed.run(&["dial", &alice.address()?])?.good()?;
    Lab::eventually("it is healed once somebody has it", || {
        let status = seed.run(&["status"])?.good()?.json()?;
        let damage = status.pointer("/meshes/0/damage");
        ensure!(damage == Some(&serde_json::json!([])), "{status}");
        Ok(())
    })?;
    seed.run(&["check"])?.good().map(drop)
}

/// A file of a node's home, which does not run.
fn kept(home: &Path, ending: &str) -> Result<PathBuf> {
    let found = files(home, ending)?.pop();
    found.with_context(|| format!("there is a file {ending}"))
}

#[test]
fn a_damaged_memory_of_a_folder_is_set_aside_and_no_file_is_lost() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    for name in ["same", "changed", "gone"] {
        alice.write(&format!("work/{name}"), name)?;
    }
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    for (round, damage) in ["emptied", "overwritten", "cut off", "flipped"]
        .iter()
        .enumerate()
    {
        alice.stop()?;
        let memory = files(&alice.home(), ".redb")?
            .into_iter()
            .find(|path| path.to_string_lossy().contains("folder-"))
            .context("a folder has a memory")?;
        let mut bytes = fs::read(&memory)?;
        match *damage {
            "emptied" => bytes.clear(),
            "overwritten" => bytes.fill(0x5a),
            "cut off" => bytes.truncate(bytes.len() / 2),
            _ => bytes.iter_mut().step_by(512).for_each(|byte| *byte ^= 1),
        }
        fs::write(&memory, bytes)?;
        alice.write("work/changed", format!("while {damage}"))?;
        bob.write("work/new", format!("while alice was down: {damage}"))?;
        alice.start()?;
        Lab::eventually("both have everything again", || {
            ensure!(alice.read("work/new")? == bob.read("work/new")?);
            // Without a memory nobody can tell an edit from an older copy: the mesh keeps the name.
            ensure!(bob.read("work/changed")? == b"changed");
            let edit = format!("while {damage}");
            ensure!(copies(&bob)?.contains(&edit), "the edit is beside it");
            alice.tree("work")?.must_equal(&bob.tree("work")?)
        })
        .with_context(|| (*damage).to_owned())?;
        let files = alice.tree("work")?.files();
        ensure!(
            files == 4 + round + 1,
            "{damage}: nothing else is there twice: {files}"
        );
        let status = alice.run(&["status"])?.good()?.stdout;
        let told = status.contains("looked through afresh");
        ensure!(told || *damage == "emptied", "{damage}: {status}");
    }
    Ok(())
}

/// What the conflict copies in a device's folder hold.
fn copies(peer: &Peer) -> Result<Vec<String>> {
    let mut copies = Vec::new();
    for item in fs::read_dir(peer.dir("work"))? {
        let path = item?.path();
        if path.to_string_lossy().contains("(conflict ") {
            copies.push(fs::read_to_string(path)?);
        }
    }
    Ok(copies)
}

#[test]
fn a_lost_record_of_a_mesh_comes_from_its_copy_or_is_told() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/a.txt", "a")?;
    alice.share("work")?;
    alice.stop()?;
    fs::remove_file(kept(&alice.home(), "mesh.json")?)?;
    alice.start()?;
    alice.settled(0)?;
    alice.stop()?;
    fs::remove_file(kept(&alice.home(), "mesh.json")?)?;
    fs::write(kept(&alice.home(), "mesh.json.copy")?, "{")?;
    alice.start()?;
    let status = alice.run(&["status"])?.good()?.stdout;
    ensure!(status.contains("mesh.json is missing"), "{status}");
    ensure!(
        status.contains("restore the file from a backup"),
        "{status}"
    );
    kept(&alice.home(), "replica.redb")?;
    ensure!(alice.read("work/a.txt")? == b"a", "nothing is cleared away");
    Ok(())
}
