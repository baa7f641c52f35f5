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

/// Whether a device says that it was removed by the one with this name.
fn removed_by(peer: &Peer, name: &str) -> Result<()> {
    let status = peer.run(&["status"])?.good()?.json()?;
    let by = status.pointer("/meshes/0/removed/by_name");
    ensure!(by.and_then(Value::as_str) == Some(name), "{status}");
    Ok(())
}

/// Everybody in a network namespace of its own: nothing but the wire brings anything anywhere.
#[test]
fn on_a_lan_the_removed_get_nothing_new_and_a_lost_founder_is_replaced() -> Result<()> {
    let lab = Lab::on_lan()?;
    let mut alice = lab.started("alice")?;
    alice.write("work/hello.txt", "hello")?;
    let code = alice.share("work")?;
    let laptop = lab.started("laptop")?;
    laptop.join(&code, "work", None)?.good()?;
    let mut bob = lab.started("bob")?;
    bob.join(&alice.invite("work", &[])?, "work", None)?
        .good()?;
    bob.settled(2)?;
    laptop.settled(2)?;

    // Away when it is removed, and writing on.
    lab.cut(&laptop)?;
    laptop.write("work/stolen.txt", "written while away")?;
    alice.run(&["role", "bob", "admin"])?.good()?;
    alice.run(&["revoke", "laptop", "--yes"])?.good()?;
    alice.write("work/secret.txt", "not for the laptop")?;
    Lab::eventually("bob reads what is sealed with the new secret", || {
        ensure!(has(&bob, "secret.txt"));
        Ok(())
    })?;
    lab.heal(&laptop)?;
    Lab::eventually("the laptop hears of it", || removed_by(&laptop, "alice"))?;

    // The founder is lost. Another admin removes it, takes somebody in, and goes on over a restart.
    alice.stop()?;
    bob.run(&["revoke", "alice", "--yes"])?.good()?;
    bob.stop()?;
    bob.start()?;
    bob.write("work/later.txt", "after the founder")?;
    let carol = lab.started("carol")?;
    carol
        .join(&bob.invite("work", &[])?, "work", None)?
        .good()?;
    Lab::eventually("the newcomer reads what is sealed with any secret", || {
        for name in ["hello.txt", "secret.txt", "later.txt"] {
            ensure!(has(&carol, name), "{name}");
        }
        Ok(())
    })?;
    alice.start()?;
    Lab::eventually("the lost founder hears of it", || removed_by(&alice, "bob"))?;
    carol.write("work/answer.txt", "carol's")?;
    Lab::eventually("those who stay go on", || {
        ensure!(has(&bob, "answer.txt"));
        Ok(())
    })?;
    for peer in [&alice, &bob, &carol] {
        ensure!(!has(peer, "stolen.txt"), "the laptop spreads nothing");
    }
    for (peer, names) in [
        (&laptop, &["secret.txt", "later.txt", "answer.txt"][..]),
        (&alice, &["later.txt", "answer.txt"]),
    ] {
        for name in names {
            ensure!(!has(peer, name), "{} got {name}", peer.name());
        }
    }
    ensure!(
        has(&laptop, "stolen.txt") && has(&alice, "secret.txt"),
        "files stay"
    );
    Ok(())
}
