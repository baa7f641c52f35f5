//! Nobody gets in uninvited, and what cannot be done is refused with a sentence that says what to
//! do.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wormhole_tests::Lab;

#[test]
fn wrong_used_and_mistyped_codes_are_told_apart() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/secret.txt", "secret")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;

    let typo = bob.join("7-zzzzzz-abandon-ability-able", "work", Some(&alice))?;
    ensure!(
        typo.code != 0 && format!("{typo:?}").contains("zzzzzz"),
        "names the word: {typo:?}"
    );

    bob.join(&code, "work", Some(&alice))?.good()?;
    let carol = lab.started("carol")?;
    let used = carol.join(&code, "work", Some(&alice))?;
    ensure!(
        used.code != 0 && format!("{used:?}").contains("used"),
        "{used:?}"
    );
    ensure!(
        !carol.dir("work").exists(),
        "a failed join leaves nothing behind"
    );

    let again = bob.join(&alice.invite("work", &[])?, "other", Some(&alice))?;
    ensure!(
        again.code != 0 && format!("{again:?}").contains("already"),
        "{again:?}"
    );
    Ok(())
}

#[test]
fn who_tries_three_wrong_codes_is_heard_no_more_and_the_code_stays_good() -> Result<()> {
    let lab = Lab::on_lan()?;
    let alice = lab.started("alice")?;
    alice.write("work/secret.txt", "secret")?;
    let code = alice.share("work")?;
    let nameplate = code.split('-').next().unwrap_or_default().to_owned();
    let mallory = lab.started("mallory")?;
    for words in [
        "abandon-ability-able-about",
        "above-absent-absorb-abstract",
        "absurd-abuse-access-accident",
    ] {
        let guess = mallory.join(&format!("{nameplate}-{words}"), "loot", None)?;
        let why = guess.refusal()?;
        ensure!(
            matches!(why.as_str(), "ticket_refused" | "ticket_expired"),
            "{guess:?}"
        );
    }
    // Who guesses gets nothing, not even by the right code.
    mallory.join(&code, "loot", None)?.refusal()?;
    ensure!(!mallory.dir("loot").exists());
    let carol = lab.started("carol")?;
    carol.join(&code, "work", None)?.good()?;
    carol.settled(1)?;
    ensure!(carol.read("work/secret.txt")? == b"secret");
    Ok(())
}

#[test]
fn a_folder_of_another_node_is_neither_bound_nor_unbound() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/a.txt", "a")?;
    alice.share("work")?;
    let other = lab.started("other")?;
    other.write("own/b.txt", "b")?;
    other.share("own")?;
    let folder = alice.dir("work").to_string_lossy().into_owned();
    ensure!(other.run(&["unbind", &folder])?.refusal()? == "not_found");
    for command in [&["share", folder.as_str()][..], &["sync", "own", &folder]] {
        let refused = other.run(command)?;
        ensure!(refused.refusal()? == "directory_taken", "{refused:?}");
        ensure!(refused.stderr.contains(".wormhole/folder"), "{refused:?}");
    }
    alice.write("work/later.txt", "later")?;
    alice.settled(0)?;
    ensure!(alice.dir("work/.wormhole/folder").exists());
    Ok(())
}

#[test]
fn an_expired_code_is_refused() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/a.txt", "a")?;
    alice.share("work")?;
    let invite = alice
        .run(&["invite", "work", "--ttl", "10s"])?
        .good()?
        .json()?;
    let code = invite
        .pointer("/code")
        .and_then(Value::as_str)
        .context("a code")?;
    let end = invite
        .pointer("/expires_ms")
        .and_then(Value::as_u64)
        .context("an end")?;
    let bob = lab.started("bob")?;
    Lab::eventually("the code's time is over", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        ensure!(now.as_millis() > u128::from(end));
        Ok(())
    })?;
    let late = bob.join(code, "work", Some(&alice))?;
    ensure!(
        late.code != 0 && format!("{late:?}").contains("expired"),
        "{late:?}"
    );
    Ok(())
}

#[test]
fn a_readers_edits_stay_at_home() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/a.txt", "a")?;
    alice.share("work")?;
    let reader = lab.started("reader")?;
    reader
        .join(
            &alice.invite("work", &["--role", "reader"])?,
            "work",
            Some(&alice),
        )?
        .good()?;
    Lab::eventually("the reader reads", || {
        ensure!(reader.read("work/a.txt")? == b"a");
        Ok(())
    })?;
    reader.write("work/mine.txt", "the reader's own")?;
    alice.write("work/b.txt", "b")?;
    Lab::eventually("the reader goes on receiving", || {
        ensure!(reader.read("work/b.txt")? == b"b");
        Ok(())
    })?;
    ensure!(!alice.dir("work/mine.txt").exists());
    ensure!(
        reader.read("work/mine.txt")? == b"the reader's own",
        "and loses nothing"
    );
    Ok(())
}

#[test]
fn a_folder_in_a_wrong_place_is_refused() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/inner/a.txt", "a")?;
    alice.share("work")?;
    for place in [
        "work/inner",
        "work",
        "",
        "home",
        "home/meshes",
        "work/inner/a.txt",
        "no/such/place",
    ] {
        let answer = alice.run(&["share", &alice.dir(place).to_string_lossy()])?;
        ensure!(answer.code != 0, "sharing {place:?} is refused: {answer:?}");
        ensure!(
            !answer.stderr.is_empty() || answer.stdout.contains("message"),
            "{answer:?}"
        );
    }
    for place in ["/proc", "/sys", "/dev", "/proc/self/new"] {
        for command in [&["share", place][..], &["sync", "work", place]] {
            let answer = alice.run(command)?;
            ensure!(answer.refusal()? == "bad_directory", "{answer:?}");
            ensure!(answer.stderr.contains("the system"), "{answer:?}");
        }
        let answer = alice.run_with(
            &["join", "--yes", "-", place],
            "1-abandon-ability-able-about\n",
        )?;
        ensure!(answer.refusal()? == "bad_directory", "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_mesh_without_a_readable_name_is_refused() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/a.txt", "a")?;
    let dir = alice.dir("work").to_string_lossy().into_owned();
    for name in ["", " ", " \t "] {
        let answer = alice.run(&["share", &dir, "--name", name])?;
        ensure!(answer.refusal()? == "bad_request", "{name:?}: {answer:?}");
        ensure!(!alice.dir("work/.wormhole").exists(), "{name:?}");
    }
    Ok(())
}

#[test]
fn who_comes_by_an_asking_code_waits_until_a_person_admits_it() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/plan.txt", "plan")?;
    alice.share("work")?;
    let code = alice.invite("work", &["--ask"])?;
    let listed = alice.run(&["invite", "--list"])?.good()?.json()?;
    let codes = listed.pointer("/invites").and_then(Value::as_array);
    let mut codes = codes.into_iter().flatten().map(|invite| invite.get("code"));
    ensure!(
        codes.any(|listed| listed.and_then(Value::as_str) == Some(&code)),
        "{listed}"
    );
    let bob = lab.started("bob")?;
    let dir = bob.dir("work");
    let (dir, address) = (dir.to_string_lossy(), alice.address()?);
    let join = [
        "join",
        "--yes",
        &code,
        &dir,
        "--no-wait",
        "--peer",
        &address,
    ];
    let mut joining = bob.spawn(&join, &[])?;
    let waiting = || {
        let waiting = alice.run(&["admit"])?.good()?.json()?;
        let name = waiting.pointer("/devices/0/name").and_then(Value::as_str);
        ensure!(name == Some("bob"), "{waiting}");
        Ok(())
    };
    let asked = Lab::eventually("bob waits", waiting);
    let admitted = asked.and_then(|()| alice.run(&["admit", "bob"])?.good().map(drop));
    if admitted.is_err() {
        joining.kill()?;
    }
    let joined = joining.wait()?;
    admitted?;
    ensure!(joined.success(), "{joined}");
    bob.settled(1)?;
    ensure!(bob.read("work/plan.txt")? == b"plan");
    let nobody = alice.run(&["refuse", "bob"])?;
    ensure!(nobody.refusal()? == "not_found", "{nobody:?}");
    Ok(())
}

#[test]
fn without_a_terminal_nothing_is_joined_unless_it_is_agreed_to_beforehand() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/plan.txt", "plan")?;
    let code = alice.share("work")?;
    let bob = lab.started("bob")?;
    let answer = bob.run_with(&["join", "-"], &format!("{code}\n"))?;
    ensure!(
        answer.refusal()? == "usage" && answer.stderr.contains("--yes"),
        "{answer:?}"
    );
    bob.join(&code, "work", Some(&alice))?.good()?;
    Ok(())
}
