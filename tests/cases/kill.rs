//! Kill -9 at the sync points of store, replica, folder and home, over a working pair: what was closed or
//! acknowledged is there afterwards, on both.
//!
//! The suite takes a few sync points; `WORMHOLE_SOAK_KILLS` takes as many as it says, one after the other
//! and over again: `cargo xtask soak kill` sets it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use wormhole_tests::{Lab, Peer};

/// Sync points that the suite takes of each story; a story has some dozens.
const SUITE: [u64; 5] = [2, 5, 11, 19, 31];

/// The sync points to be killed at.
fn points() -> Result<Vec<u64>> {
    match std::env::var("WORMHOLE_SOAK_KILLS") {
        Ok(kills) => Ok((1..=kills.parse().context("WORMHOLE_SOAK_KILLS")?).collect()),
        Err(_) => Ok(SUITE.to_vec()),
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// What must be there: every file that was closed, and every setting that was acknowledged.
#[derive(Default)]
struct Oracle {
    files: BTreeMap<String, Vec<u8>>,
    limit: Option<u64>,
}

impl Oracle {
    fn write(&mut self, peer: &Peer, path: &str, bytes: Vec<u8>) -> Result<()> {
        peer.write(&format!("work/{path}"), &bytes)?;
        self.files.insert(path.to_owned(), bytes);
        Ok(())
    }

    fn check(&self, peer: &Peer) -> Result<()> {
        for (path, bytes) in &self.files {
            let there = peer.read(&format!("work/{path}"));
            let there = there.with_context(|| format!("{path} at {}", peer.name()))?;
            ensure!(there == *bytes, "{path} at {} has other bytes", peer.name());
        }
        ensure!(
            peer.tree("work")?.files() == self.files.len(),
            "{} has files that nobody wrote",
            peer.name()
        );
        Ok(())
    }
}

/// What both do in one round, as far as the victim lives.
fn work(round: u64, alice: &Peer, victim: &Peer, oracle: &mut Oracle) -> Result<()> {
    oracle.write(
        alice,
        &format!("from-alice/{round}.bin"),
        noise(round, 300_000),
    )?;
    oracle.write(alice, "from-alice/same.txt", noise(round + 1, 2_000))?;
    for n in 0..3 {
        let path = format!("from-victim/{round}/{n}.txt");
        oracle.write(victim, &path, noise(round * 8 + n, 900))?;
    }
    oracle.write(
        victim,
        &format!("from-victim/{round}.bin"),
        noise(round + 2, 90_000),
    )?;
    let old = format!("from-victim/{round}/0.txt");
    let new = format!("from-victim/renamed-{round}.txt");
    fs::rename(
        victim.dir(&format!("work/{old}")),
        victim.dir(&format!("work/{new}")),
    )?;
    if let Some(bytes) = oracle.files.remove(&old) {
        oracle.files.insert(new, bytes);
    }
    let limit = 1_000 + round;
    let set = victim.run(&["limit", "--up", &format!("{limit}MiB")])?;
    if set.code == 0 {
        oracle.limit = Some(limit);
    }
    // Ends at once when the node is gone.
    drop(victim.run(&["wait", "--timeout", "60", "--members", "1"])?);
    Ok(())
}

#[test]
fn a_device_killed_at_any_sync_point_keeps_what_was_closed_and_acknowledged() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    let mut oracle = Oracle::default();
    oracle.write(&alice, "from-alice/first.txt", noise(1, 5_000))?;
    let mut bob = lab.started("bob")?;
    bob.join(&alice.share("work")?, "work", Some(&alice))?
        .good()?;
    bob.settled(1)?;
    bob.stop()?;
    // When the story has fewer sync points than that, it begins again at its first.
    let mut taken = 0;
    for (round, number) in (0..).zip(points()?) {
        let point = number - taken;
        let points = bob.start_until(Some(point))?;
        work(round, &alice, &bob, &mut oracle)?;
        let was_killed = bob.has_ended()?;
        if !was_killed {
            taken = number;
        }
        bob.kill()
            .or_else(|error| if was_killed { Ok(()) } else { Err(error) })?;
        let seen = points.ended();
        println!("round {round}: point {point}, seen {seen}, killed there: {was_killed}");
        bob.start()?;
        bob.settled(1)
            .with_context(|| format!("after sync point {point}"))?;
        alice.settled(1)?;
        for peer in [&alice, &bob] {
            oracle
                .check(peer)
                .with_context(|| format!("after sync point {point}"))?;
        }
        if let Some(limit) = oracle.limit {
            let limits = bob.run(&["limit"])?.good()?.json()?;
            let kept = limits.pointer("/up/bytes_per_second");
            // One that was set and not acknowledged may be kept; each is higher than the one before.
            ensure!(
                kept.and_then(Value::as_u64)
                    .is_some_and(|kept| kept >= limit << 20),
                "the limit of {limit} MiB/s was acknowledged before sync point {point}: {limits}"
            );
        }
        bob.stop()?;
    }
    Ok(())
}

/// Joins, or finds that the node was killed in the middle. For a while after such an end the inviting device
/// still waits for the one that is gone, and says so.
fn join(alice: &Peer, carol: &mut Peer) -> Result<()> {
    let mut kept = None;
    Lab::eventually("the join goes through", || {
        let code = match kept.take() {
            Some(code) => code,
            None => alice.invite("work", &[])?,
        };
        let joined = carol.join(&code, "work", Some(alice))?;
        if carol.has_ended()? {
            return Ok(());
        }
        if joined.code != 0 && joined.refusal()? == "busy" {
            kept = Some(code);
        }
        joined.good().map(drop)
    })
}

#[test]
fn a_device_killed_at_any_sync_point_of_joining_has_joined_or_can() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/first.txt", noise(1, 5_000))?;
    alice.write("work/large.bin", noise(2, 400_000))?;
    alice.share("work")?;
    for point in points()? {
        let mut carol = lab.peer(&format!("carol-{point}"))?;
        let points = carol.start_until(Some(point))?;
        join(&alice, &mut carol)?;
        drop(carol.run(&["wait", "--timeout", "60", "--members", "1"])?);
        let was_killed = carol.has_ended()?;
        carol
            .kill()
            .or_else(|error| if was_killed { Ok(()) } else { Err(error) })?;
        println!(
            "point {point}, seen {}, killed there: {was_killed}",
            points.ended()
        );
        carol
            .start()
            .with_context(|| format!("after sync point {point}"))?;
        let meshes = carol.run(&["meshes"])?.good()?.stdout;
        if !meshes.contains("\"work\"") {
            join(&alice, &mut carol).with_context(|| format!("after sync point {point}"))?;
        }
        carol
            .settled(1)
            .with_context(|| format!("after sync point {point}"))?;
        alice.tree("work")?.must_equal(&carol.tree("work")?)?;
        carol.stop()?;
        if !was_killed {
            break;
        }
    }
    Ok(())
}
