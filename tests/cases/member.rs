//! Members come and go: a device that was removed while it was away, and what the others see.

use anyhow::{Result, ensure};
use serde_json::Value;
use wormhole_tests::{Lab, Peer};

/// Whether a peer has a file in its directory `work`.
fn has(peer: &Peer, name: &str) -> bool {
    peer.dir("work").join(name).exists()
}

#[test]
fn a_revoked_laptop_that_comes_back_gets_nothing_new_and_spreads_nothing() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/hello.txt", "hello")?;
    let code = alice.share("work")?;
    let mut laptop = lab.started("laptop")?;
    laptop.join(&code, "work", Some(&alice))?.good()?;
    let bob = lab.started("bob")?;
    let code = alice.invite("work", &[])?;
    bob.join(&code, "work", Some(&alice))?.good()?;
    bob.settled(1)?;
    laptop.settled(1)?;

    // It is away when it is removed, and goes on writing.
    laptop.stop()?;
    laptop.write("work/stolen.txt", "written while away")?;
    let asked = alice.run(&["revoke", "laptop"])?.refusal()?;
    ensure!(asked == "usage", "nobody is there to say yes: {asked}");
    alice.run(&["revoke", "laptop", "--yes"])?.good()?;
    alice.write("work/secret.txt", "not for the laptop")?;
    Lab::eventually("bob goes on", || {
        ensure!(has(&bob, "secret.txt"));
        Ok(())
    })?;

    // It comes back, knows everybody's address, and meets both.
    laptop.start()?;
    for peer in [&alice, &bob] {
        laptop.run(&["dial", &peer.address()?])?.good()?;
    }
    Lab::eventually("the laptop hears of it", || {
        let status = laptop.run(&["status"])?.good()?.json()?;
        let by = status.pointer("/meshes/0/removed/by_name");
        ensure!(by.and_then(Value::as_str) == Some("alice"), "{status}");
        Ok(())
    })?;
    alice.stop()?;
    alice.start()?;
    alice.run(&["dial", &bob.address()?])?.good()?;
    alice.write("work/later.txt", "after a restart")?;
    Lab::eventually("the others go on over a restart", || {
        ensure!(has(&bob, "later.txt"));
        Ok(())
    })?;
    for peer in [&alice, &bob] {
        ensure!(!has(peer, "stolen.txt"), "it spreads nothing");
    }
    for name in ["secret.txt", "later.txt"] {
        ensure!(!has(&laptop, name), "it gets nothing new");
    }
    ensure!(
        has(&laptop, "hello.txt") && has(&laptop, "stolen.txt"),
        "its files stay"
    );
    Ok(())
}
