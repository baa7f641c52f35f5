//! Every device shows the same tree: edits, renames, conflicts and copies between nodes that can
//! always reach one another.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use wormhole_tests::{Lab, Peer};

/// Two peers that share the directory `work` and are in sync.
fn pair(lab: &Lab) -> Result<(Peer, Peer)> {
    let alice = lab.started("alice")?;
    alice.write("work/hello.txt", "hello")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    Ok((alice, bob))
}

/// Waits until the directories `work` of all `peers` are the same.
fn same(peers: &[&Peer]) -> Result<()> {
    let Some((first, others)) = peers.split_first() else {
        return Ok(());
    };
    Lab::eventually("the trees are the same", || {
        let tree = first.tree("work")?;
        others
            .iter()
            .try_for_each(|peer| tree.must_equal(&peer.tree("work")?))
    })
}

#[test]
fn a_shared_folder_arrives_whole() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut big = vec![0; 5 << 20];
    rng.fill_bytes(&mut big);
    alice.write("work/big.bin", &big)?;
    alice.write("work/deep/er/and/deeper/text.txt", "text ".repeat(50_000))?;
    alice.write("work/empty", "")?;
    alice.write("work/ünï/コード.txt", "names")?;
    for n in 0..300 {
        alice.write(&format!("work/many/{n}.txt"), format!("number {n}"))?;
    }
    fs::create_dir(alice.dir("work/hollow"))?;
    std::os::unix::fs::symlink("../outside", alice.dir("work/link"))?;
    alice.write("work/run.sh", "#!/bin/sh\n")?;
    fs::set_permissions(alice.dir("work/run.sh"), fs::Permissions::from_mode(0o755))?;

    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;

    alice.tree("work")?.must_equal(&bob.tree("work")?)?;
    let time =
        |peer: &Peer| fs::metadata(peer.dir("work/big.bin")).and_then(|meta| meta.modified());
    ensure!(time(&alice)? == time(&bob)?, "the time of change is kept");
    Ok(())
}

#[test]
fn a_burst_of_files_between_small_and_large_arrives() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let mut noise = |length: usize| {
        let mut bytes = vec![0; length];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    for n in 0..150 {
        alice.write(&format!("work/same/{n}.bin"), noise(100_000))?;
    }
    same(&[&alice, &bob])?;
    for n in 0..300_usize {
        let length = match n % 4 {
            0 => 40,
            1 => 70_000,
            2 => 100_000 + 700 * n,
            _ => 1_500_000,
        };
        bob.write(&format!("work/mixed/{n}.bin"), noise(length))?;
    }
    same(&[&alice, &bob])?;
    ensure!(alice.tree("work")?.files() == 451);
    alice.settled(1)?;
    bob.settled(1)
}

#[test]
fn edits_on_every_side_reach_every_device() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    let carol = lab.started("carol")?;
    carol
        .join(&alice.invite("work", &[])?, "work", Some(&alice))?
        .good()?;
    carol.settled(1)?;

    alice.write("work/alice.txt", "from alice")?;
    bob.write("work/sub/bob.txt", "from bob")?;
    carol.write("work/hello.txt", "changed by carol")?;
    same(&[&alice, &bob, &carol])?;
    Lab::eventually("all three edits are everywhere", || {
        let tree = carol.tree("work")?;
        ensure!(tree.holds(b"from alice") && tree.holds(b"from bob"));
        ensure!(alice.read("work/hello.txt")? == b"changed by carol");
        Ok(())
    })?;

    fs::remove_file(bob.dir("work/alice.txt"))?;
    fs::rename(carol.dir("work/sub"), carol.dir("work/renamed"))?;
    Lab::eventually("the deletion and the rename are everywhere", || {
        for peer in [&alice, &bob, &carol] {
            ensure!(!peer.dir("work/alice.txt").exists() && !peer.dir("work/sub").exists());
            ensure!(peer.read("work/renamed/bob.txt")? == b"from bob");
        }
        Ok(())
    })
}

#[test]
fn both_versions_of_a_conflict_are_kept() -> Result<()> {
    let lab = Lab::on_lan()?;
    let alice = lab.started("alice")?;
    alice.write("work/plan.txt", "first")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", None)?.good()?;
    bob.settled(1)?;

    lab.cut(&bob)?;
    alice.write("work/plan.txt", "what alice wrote")?;
    bob.write("work/plan.txt", "what bob wrote")?;
    alice.settled(0)?;
    bob.settled(0)?;
    lab.heal(&bob)?;

    Lab::eventually("both versions are on both devices", || {
        let (left, right) = (alice.tree("work")?, bob.tree("work")?);
        left.must_equal(&right)?;
        ensure!(left.holds(b"what alice wrote") && left.holds(b"what bob wrote"));
        ensure!(left.files() == 2, "two versions, no more: {left:?}");
        Ok(())
    })?;
    let listed = alice.run(&["conflicts"])?.good()?;
    ensure!(listed.stdout.contains("conflict"), "{listed:?}");
    Ok(())
}

#[test]
fn a_conflict_ended_on_one_device_is_over_on_every_device() -> Result<()> {
    let lab = Lab::on_lan()?;
    let alice = lab.started("alice")?;
    alice.write("work/plan.txt", "first")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", None)?.good()?;
    bob.settled(1)?;
    lab.cut(&bob)?;
    alice.write("work/plan.txt", "what alice wrote")?;
    bob.write("work/plan.txt", "what bob wrote")?;
    alice.settled(0)?;
    bob.settled(0)?;
    lab.heal(&bob)?;
    Lab::eventually("both versions are on both devices", || {
        let (left, right) = (alice.tree("work")?, bob.tree("work")?);
        left.must_equal(&right)?;
        ensure!(left.files() == 2, "{left:?}");
        Ok(())
    })?;
    let listed = alice.run(&["conflicts"])?.json()?;
    let copy = listed["entries"][0]["path"].as_str().map(str::to_owned);
    let copy = alice.dir(&format!("work/{}", copy.context("a conflict copy")?));
    let kept = fs::read(&copy)?;

    // The plain file goes on; the copy stays listed.
    bob.write("work/plan.txt", "what bob wrote later")?;
    same(&[&alice, &bob])?;
    let listed = bob.run(&["conflicts"])?.good()?;
    ensure!(listed.stdout.contains("conflict "), "{listed:?}");

    let copy = copy.to_string_lossy();
    alice
        .run(&["resolve", copy.as_ref(), "--keep", "this"])?
        .good()?;
    Lab::eventually("one version is left on both devices", || {
        let (left, right) = (alice.tree("work")?, bob.tree("work")?);
        left.must_equal(&right)?;
        ensure!(left.files() == 1 && left.holds(&kept), "{left:?}");
        Ok(())
    })?;
    for peer in [&alice, &bob] {
        let listed = peer.run(&["conflicts"])?.good()?;
        let entries = listed.json()?["entries"].as_array().map(Vec::len);
        ensure!(entries == Some(0), "{listed:?}");
    }
    let again = peer_refusal(&alice)?;
    ensure!(again == "no_conflict", "{again}");
    Ok(())
}

/// What a device answers that is to end a conflict where there is none.
fn peer_refusal(peer: &Peer) -> Result<String> {
    let plan = peer.dir("work/plan.txt");
    let plan = plan.to_string_lossy();
    let arguments = ["resolve", plan.as_ref(), "--keep", "this"];
    peer.run(&arguments)?.refusal()
}

#[test]
fn a_renamed_directory_sends_no_content() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    for n in 0..500 {
        alice.write(
            &format!("work/photos/{n}.jpg"),
            vec![u8::try_from(n % 251)?; 4_000 + n],
        )?;
    }
    same(&[&alice, &bob])?;
    bob.settled(1)?;
    let inode = |peer: &Peer, path: &str| -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata(peer.dir(path))?.ino())
    };
    let before = inode(&bob, "work/photos/7.jpg")?;

    fs::rename(alice.dir("work/photos"), alice.dir("work/pictures"))?;
    same(&[&alice, &bob])?;

    ensure!(
        inode(&bob, "work/pictures/7.jpg")? == before,
        "the file was moved, not made anew"
    );
    Ok(())
}

#[test]
fn a_sub_directory_can_be_synced_alone() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let (alice, bob) = pair(&lab)?;
    alice.write("work/deep/inner/file.txt", "inside")?;
    same(&[&alice, &bob])?;
    bob.settled(1)?;
    bob.run(&["unbind", &bob.dir("work").to_string_lossy()])?
        .good()?;
    ensure!(bob.read("work/hello.txt")? == b"hello", "the files stay");

    bob.run(&[
        "sync",
        "work:deep/inner",
        &bob.dir("part").to_string_lossy(),
    ])?
    .good()?;
    Lab::eventually("the part is here", || {
        ensure!(bob.read("part/file.txt")? == b"inside");
        Ok(())
    })?;
    bob.write("part/back.txt", "from the part")?;
    Lab::eventually("an edit in the part reaches the whole", || {
        ensure!(alice.read("work/deep/inner/back.txt")? == b"from the part");
        Ok(())
    })
}

#[test]
fn a_seed_serves_what_its_owner_no_longer_can() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/precious.bin", vec![7; 3 << 20])?;
    let code = alice.share("work")?;
    let seed = lab.started("seed")?;
    let address = alice.address()?;
    let joined = seed.run_with(
        &["join", "--yes", "-", "--seed", "--peer", &address],
        &format!("{code}\n"),
    )?;
    joined.good()?;
    seed.settled(1)?;
    let code = alice.invite("work", &[])?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    alice.stop()?;

    let copy = seed.run(&["cat", "work:precious.bin"])?;
    ensure!(
        copy.code == 0 && copy.stdout.len() == 3 << 20,
        "the seed holds the content"
    );
    Ok(())
}
