//! Processes that die, disks that fill, files that change under the hand: nothing saved is lost.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use wormhole_tests::{Lab, Peer};

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[test]
fn a_receiver_killed_again_and_again_ends_up_whole() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/large.bin", noise(11, 96 << 20))?;
    for n in 0..400_u32 {
        alice.write(&format!("work/small/{n}"), noise(u64::from(n), 3_000))?;
    }
    let code = alice.share("work")?;
    let mut bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    for _ in 0..4 {
        bob.kill()?;
        bob.start()?;
    }
    bob.settled(1)?;
    alice.tree("work")?.must_equal(&bob.tree("work")?)
}

#[test]
fn what_a_killed_sender_recorded_is_not_lost() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/first.txt", "first")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    for round in 0..3_u64 {
        alice.write(&format!("work/{round}.bin"), noise(round, 2 << 20))?;
        alice.kill()?;
        alice.write(
            &format!("work/while-down-{round}.txt"),
            "written while the node was down",
        )?;
        alice.start()?;
    }
    Lab::eventually("all of it reaches the other device", || {
        alice.tree("work")?.must_equal(&bob.tree("work")?)?;
        ensure!(bob.tree("work")?.files() == 7);
        Ok(())
    })
}

#[test]
fn a_frozen_peer_is_left_alone_and_catches_up() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/first.txt", "first")?;
    let bob = lab.started("bob")?;
    bob.join(&alice.share("work")?, "work", Some(&alice))?
        .good()?;
    let carol = lab.started("carol")?;
    carol
        .join(&alice.invite("work", &[])?, "work", Some(&alice))?
        .good()?;
    carol.settled(1)?;
    bob.freeze()?;
    alice.write("work/second.txt", "second")?;
    Lab::eventually("carol is not held up by bob", || {
        ensure!(carol.read("work/second.txt")? == b"second");
        Ok(())
    })?;
    bob.thaw()?;
    Lab::eventually("bob catches up", || {
        ensure!(bob.read("work/second.txt")? == b"second");
        Ok(())
    })
}

/// A small file system of its own, taken away when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, size: &str) -> Result<Self> {
        std::fs::create_dir_all(&at)?;
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&at)
            .status()?;
        ensure!(mounted.success(), "root is needed to mount a small disk");
        Ok(Self(at))
    }

    /// With other options, such as another size.
    fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status()?;
        ensure!(status.success(), "the disk is mounted anew");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may still hold files open; a disk that stays is in a temporary place.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn problems(peer: &Peer) -> Result<String> {
    Ok(peer.run(&["status"])?.good()?.json()?.to_string())
}

#[test]
fn a_full_disk_is_told_and_healed() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/fits.txt", "fits")?;
    alice.write("work/huge.bin", noise(5, 24 << 20))?;
    let code = alice.share("work")?;
    let bob = lab.peer("bob")?;
    let disk = SmallDisk::mount(bob.dir("small"), "8m")?;
    let mut bob = bob;
    bob.start()?;
    bob.join(&code, "small/work", Some(&alice))?.good()?;
    Lab::eventually("the small file is here and the reason is told", || {
        ensure!(bob.read("small/work/fits.txt")? == b"fits");
        ensure!(problems(&bob)?.contains("space"), "{}", problems(&bob)?);
        Ok(())
    })?;
    disk.remount("size=64m")?;
    Lab::eventually("the big file arrives once there is room", || {
        alice.tree("work")?.must_equal(&bob.tree("small/work")?)
    })
}

/// Takes every byte that is left on a disk.
fn fill(disk: &SmallDisk) -> Result<std::path::PathBuf> {
    use std::io::Write as _;
    let path = disk.0.join("filler");
    let mut file = std::fs::File::create(&path)?;
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
    Ok(path)
}

#[test]
fn a_full_disk_of_the_home_is_told_and_healed_without_a_restart() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.peer("alice")?;
    let disk = SmallDisk::mount(alice.home(), "24m")?;
    alice.start()?;
    alice.write("work/before.txt", "before")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    let filler = fill(&disk)?;
    for n in 0..200_u64 {
        alice.write(&format!("work/while-full/{n}"), noise(n, 500))?;
    }
    let reason = "no space left on the disk of the home";
    Lab::eventually("the reason is told", || {
        ensure!(problems(&alice)?.contains(reason), "{}", problems(&alice)?);
        Ok(())
    })?;
    let wait = alice.run(&["wait", "--timeout", "0"])?;
    ensure!(wait.code == 3 && wait.stdout.contains(reason), "{wait:?}");
    let refused = alice.run(&["ls", "work"])?;
    ensure!(refused.stderr.contains(reason), "{refused:?}");
    bob.write("work/from-bob.txt", "written while alice could not")?;
    std::fs::remove_file(filler)?;
    Lab::eventually("everything is known to both, with nobody's help", || {
        ensure!(alice.tree("work")?.files() == 202, "{}", problems(&alice)?);
        alice.tree("work")?.must_equal(&bob.tree("work")?)
    })
}

#[test]
fn a_disk_that_is_full_at_any_moment_takes_no_file_away() -> Result<()> {
    let lab = Lab::on_loopback()?;
    for pages in [0, 4, 8, 12, 16, 24] {
        let mut alice = lab.peer(&format!("alice-{pages}"))?;
        let disk = SmallDisk::mount(alice.home(), "24m")?;
        alice.start()?;
        alice.write("work/before.txt", "before")?;
        alice.share("work")?;
        let filler = fill(&disk)?;
        let room = std::fs::File::options().write(true).open(&filler)?;
        room.set_len(room.metadata()?.len() - pages * 4096)?;
        drop(room);
        for n in 0..50_u64 {
            alice.write(&format!("work/{n}"), noise(n, 50))?;
        }
        // Some of it is recorded, some is not; then nothing of it is in memory any more.
        alice.run(&["wait", "--timeout", "1"])?;
        alice.kill()?;
        alice.start()?;
        alice.run(&["wait", "--timeout", "1"])?;
        std::fs::remove_file(filler)?;
        Lab::eventually("everything is recorded", || {
            let status = problems(&alice)?;
            ensure!(status.contains("\"files\":51"), "{pages}: {status}");
            Ok(())
        })?;
        alice.settled(0)?;
        ensure!(alice.tree("work")?.files() == 51, "with {pages} pages left");
        alice.stop()?;
    }
    Ok(())
}

#[test]
fn a_seed_whose_disk_is_full_goes_on_serving() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/a.bin", noise(1, 3 << 20))?;
    let code = alice.share("work")?;
    let mut seed = lab.peer("seed")?;
    let disk = SmallDisk::mount(seed.home(), "16m")?;
    seed.start()?;
    let address = alice.address()?;
    let joined = seed.run_with(
        &["join", "--yes", "-", "--seed", "--peer", &address],
        &format!("{code}\n"),
    )?;
    joined.good()?;
    seed.settled(1)?;
    alice.write("work/too-large.bin", noise(2, 24 << 20))?;
    Lab::eventually("the reason is told", || {
        let told = problems(&seed)?;
        ensure!(told.contains("no space left on the disk"), "{told}");
        Ok(())
    })?;
    let carol = lab.started("carol")?;
    let code = alice.invite("work", &[])?;
    carol.join(&code, "work", Some(&alice))?.good()?;
    carol.settled(1)?;
    alice.stop()?;
    let copy = seed.run(&["cat", "work:a.bin"])?;
    ensure!(copy.code == 0, "what it has can be had: {}", copy.stderr);
    drop(disk);
    Ok(())
}

#[test]
fn a_read_only_disk_is_told_and_healed() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/first.txt", "first")?;
    let code = alice.share("work")?;
    let mut bob = lab.peer("bob")?;
    let disk = SmallDisk::mount(bob.dir("small"), "16m")?;
    bob.start()?;
    bob.join(&code, "small/work", Some(&alice))?.good()?;
    bob.settled(1)?;
    disk.remount("ro")?;
    alice.write("work/second.txt", "second")?;
    Lab::eventually("the reason is told", || {
        ensure!(problems(&bob)?.contains("read-only"), "{}", problems(&bob)?);
        Ok(())
    })?;
    ensure!(bob.read("small/work/first.txt")? == b"first");
    disk.remount("rw")?;
    Lab::eventually("the file arrives once the disk can be written", || {
        alice.tree("work")?.must_equal(&bob.tree("small/work")?)
    })
}

#[test]
fn a_file_that_is_still_growing_arrives_once_it_is_done() -> Result<()> {
    use std::io::Write as _;
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/first.txt", "first")?;
    let bob = lab.started("bob")?;
    bob.join(&alice.share("work")?, "work", Some(&alice))?
        .good()?;
    bob.settled(1)?;
    let mut file = std::fs::File::create(alice.dir("work/growing.log"))?;
    for n in 0..200_u64 {
        file.write_all(&noise(n, 50_000))?;
    }
    file.flush()?;
    drop(file);
    let whole = alice.read("work/growing.log")?;
    Lab::eventually("the whole file", || {
        ensure!(bob.read("work/growing.log").context("not here yet")? == whole);
        Ok(())
    })
}
