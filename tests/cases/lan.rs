//! Devices on one LAN find one another, and come together again after they were apart.

use anyhow::{Result, ensure};
use wormhole_tests::Lab;

#[test]
fn devices_find_one_another_on_the_lan() -> Result<()> {
    let lab = Lab::on_lan()?;
    let (alice, bob, carol) = (
        lab.started("alice")?,
        lab.started("bob")?,
        lab.started("carol")?,
    );
    alice.write("work/one.txt", "one")?;
    let code = alice.share("work")?;
    bob.join(&code, "work", None)?.good()?;
    carol
        .join(&alice.invite("work", &[])?, "work", None)?
        .good()?;
    carol.settled(2)?;
    bob.settled(2)?;

    bob.write("work/two.txt", "two")?;
    Lab::eventually("the edit crosses without the first device", || {
        ensure!(carol.read("work/two.txt")? == b"two");
        Ok(())
    })
}

#[test]
fn two_nodes_with_one_key_are_both_told() -> Result<()> {
    let lab = Lab::on_lan()?;
    let alice = lab.started("alice")?;
    let mut copy = lab.peer("copy")?;
    std::fs::create_dir(copy.home())?;
    std::fs::copy(
        alice.home().join("device.key"),
        copy.home().join("device.key"),
    )?;
    std::fs::copy(alice.home().join("format"), copy.home().join("format"))?;
    copy.start()?;
    for peer in [&alice, &copy] {
        Lab::eventually("the status tells of the other", || {
            let status = peer.run(&["status"])?.good()?.json()?;
            let problem = status
                .pointer("/node/problem")
                .and_then(|text| text.as_str());
            ensure!(
                problem.is_some_and(|text| text.contains("device.key")),
                "{status}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn weeks_apart_then_together() -> Result<()> {
    let lab = Lab::on_lan()?;
    let (alice, bob) = (lab.started("alice")?, lab.started("bob")?);
    alice.write("work/start.txt", "start")?;
    bob.join(&alice.share("work")?, "work", None)?.good()?;
    bob.settled(1)?;

    lab.cut(&bob)?;
    for n in 0..40 {
        alice.write(&format!("work/a/{n}.txt"), format!("alice {n}"))?;
        bob.write(&format!("work/b/{n}.txt"), format!("bob {n}"))?;
    }
    std::fs::rename(bob.dir("work/start.txt"), bob.dir("work/moved.txt"))?;
    alice.write("work/start.txt", "start, edited while the other moved it")?;
    alice.settled(0)?;
    bob.settled(0)?;
    lab.heal(&bob)?;

    Lab::eventually("both sides have everything", || {
        let (left, right) = (alice.tree("work")?, bob.tree("work")?);
        left.must_equal(&right)?;
        ensure!(left.files() == 81, "{} files", left.files());
        ensure!(
            alice.read("work/moved.txt")?.ends_with(b"moved it"),
            "rename and edit both hold"
        );
        Ok(())
    })
}

#[test]
fn two_members_meet_though_the_inviter_is_gone() -> Result<()> {
    let lab = Lab::on_lan()?;
    let (mut alice, bob, carol) = (
        lab.started("alice")?,
        lab.started("bob")?,
        lab.started("carol")?,
    );
    alice.write("work/one.txt", "one")?;
    bob.join(&alice.share("work")?, "work", None)?.good()?;
    bob.settled(1)?;
    carol
        .join(&alice.invite("work", &[])?, "work", None)?
        .good()?;
    carol.settled(1)?;
    alice.stop()?;

    carol.write("work/late.txt", "without alice")?;
    Lab::eventually("bob hears from carol", || {
        ensure!(bob.read("work/late.txt")? == b"without alice");
        Ok(())
    })
}
