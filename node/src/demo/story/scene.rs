//! The scenes of the story, in order.
//!
//! Each prints what it does and how long it took, and waits until what it did has arrived
//! everywhere. Scenes know nothing of the nodes' insides: they write files and look at files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wormhole_node::api::{
    Agreement, DialRequest, InviteReply, InviteRequest, JoinReply, JoinRequest, Keep, LimitRequest,
    MeshRef, PauseRequest, Rate, ShareReply, ShareRequest, TransfersReply, WaitReply, WaitRequest,
};

use super::Who::{Desktop, Laptop, Tablet};
use super::{GLANCE, PATIENCE, Story, names, until};
use crate::cli::{bytes, count, duration};
use crate::demo::actor::Actor;
use crate::demo::tree::Tree;
use crate::demo::{DemoError, file_error, sample};

const MIB: u64 = 1 << 20;

impl Story {
    /// Three nodes start.
    pub(super) async fn meet(&mut self) -> Result<(), DemoError> {
        self.title("Three devices on this machine, loopback only")?;
        for actor in self.actors_mut() {
            actor.start().await?;
        }
        for actor in self.actors() {
            let folder = actor.folder.display();
            self.tell(&format!(
                "{:<8} {:<16} {folder}",
                actor.name,
                actor.address()
            ))?;
        }
        Ok(())
    }

    /// The laptop shares a folder.
    pub(super) async fn share(&mut self, from: Option<&Path>) -> Result<InviteReply, DemoError> {
        let folder = self.actor(Laptop).folder.clone();
        match from {
            Some(from) => sample::copy(from, &folder).map_err(|source| file_error(from, source))?,
            None => sample::make(&folder).map_err(|source| file_error(&folder, source))?,
        }
        let tree = Tree::read(&folder).map_err(|source| file_error(&folder, source))?;
        self.ledger.found(&tree);
        self.title("laptop$ wormhole share Shared")?;
        let request = ShareRequest {
            dir: folder,
            name: Some("Shared".to_owned()),
            role: None,
            ttl_seconds: None,
            ask: None,
        };
        let clock = Instant::now();
        let reply: ShareReply = self.actor(Laptop).steps("/v1/share", &request).await?;
        let span = duration(clock.elapsed());
        let (files, size) = (count(reply.files), bytes(reply.bytes));
        self.tell(&format!(
            "{files} files, {size}, in {span}; nothing was copied"
        ))?;
        self.tell(&format!("Join code: {}", reply.invite.code))?;
        Ok(reply.invite)
    }

    /// The others join by code and get everything.
    pub(super) async fn join(&mut self, first: &InviteReply) -> Result<(), DemoError> {
        let clock = Instant::now();
        self.title(&format!(
            "desktop$ wormhole join        Code: {}",
            first.code
        ))?;
        let reply = self.let_in(self.actor(Desktop), first).await?;
        self.tell(&format!(
            "Joined \"{}\" from {}",
            reply.mesh.name, reply.from
        ))?;
        let second = self.another_invite(&first.mesh).await?;
        self.title(&format!(
            "tablet$ wormhole join         Code: {}",
            second.code
        ))?;
        let reply = self.let_in(self.actor(Tablet), &second).await?;
        self.tell(&format!(
            "Joined \"{}\" from {}",
            reply.mesh.name, reply.from
        ))?;
        // There is no discovery on loopback: the two guests are introduced by hand.
        let peer = DialRequest {
            peer: self.actor(Desktop).address(),
        };
        self.actor(Tablet).tell("/v1/dial", &peer).await?;
        for who in [Desktop, Tablet] {
            let wait = WaitRequest {
                mesh: None,
                timeout_seconds: Some(PATIENCE.as_secs()),
                members: 1,
                until_stuck: false,
            };
            let actor = self.actor(who);
            let watched = crate::cli::watch(self.output, &actor.client, None, &wait).await;
            let reply = watched.map_err(|source| DemoError::Output {
                source: Box::new(source),
            })?;
            must_be_done(actor, &reply)?;
        }
        let tree = self.until_equal("the folder is on all three").await?;
        let span = clock.elapsed();
        // Each guest has received all of it.
        let moved = u128::from(2 * tree.bytes());
        let pace = u64::try_from(moved * 1_000 / span.as_millis().max(1)).unwrap_or(u64::MAX);
        let (files, size) = (count(tree.files()), bytes(tree.bytes()));
        let span = duration(span);
        self.title("Content arrives")?;
        self.tell(&format!(
            "Each has {files} files, {size}, after {span} ({}/s in all)",
            bytes(pace)
        ))
    }

    async fn another_invite(&self, mesh: &MeshRef) -> Result<InviteReply, DemoError> {
        let request = InviteRequest {
            mesh: mesh.id.clone(),
            role: None,
            ttl_seconds: None,
            ask: None,
        };
        self.actor(Laptop).post("/v1/invites", &request).await
    }

    async fn let_in(&self, guest: &Actor, invite: &InviteReply) -> Result<JoinReply, DemoError> {
        let request = JoinRequest {
            ticket: invite.code.clone(),
            dir: Some(guest.folder.clone()),
            keep: Keep::Folder,
            peers: vec![self.actor(Laptop).address()],
            agreed: Agreement::Anything,
        };
        guest.steps("/v1/join", &request).await
    }

    /// All three edit at once.
    pub(super) async fn work_at_once(&mut self) -> Result<(), DemoError> {
        self.title("All three work at once: create, edit, move, delete")?;
        let mut spans = Vec::new();
        for round in 0..10 {
            let path = format!("minutes-{round}.txt");
            let text = format!("Line {round} of the minutes.\n").repeat(160);
            self.write(Laptop, &path, &text)?;
            let clock = Instant::now();
            let there = self.actor(Desktop).folder.join(&path);
            let arrived = || fs::read(&there).is_ok_and(|bytes| bytes == text.as_bytes());
            until("a saved file is on desktop", arrived).await?;
            spans.push(clock.elapsed());
        }
        spans.sort();
        let median = spans.get(spans.len() / 2).map_or(0, Duration::as_millis);
        self.tell(&format!(
            "A 4 kB save on laptop is on desktop after {median} ms (median)"
        ))?;

        let clock = Instant::now();
        let moved = self.move_a_directory()?;
        self.write(Desktop, "plan.md", &"# The plan\n".repeat(20))?;
        self.write(Tablet, "notes/from-tablet.txt", "Written on the way.\n")?;
        let gone = self.actor(Tablet).folder.join("minutes-0.txt");
        let text = fs::read(&gone).map_err(|source| file_error(&gone, source))?;
        self.ledger.given_up(&text);
        fs::remove_file(&gone).map_err(|source| file_error(&gone, source))?;
        let plan = self.actor(Laptop).folder.join("plan.md");
        let removed = self.actor(Laptop).folder.join("minutes-0.txt");
        let there = self.actor(Desktop).folder.join(&moved);
        let arrived = || there.is_dir() && plan.is_file() && !removed.exists();
        until(
            "a moved directory, new files and a deletion have arrived",
            arrived,
        )
        .await?;
        let span = duration(clock.elapsed());
        self.until_equal("the work of all three is on all three")
            .await?;
        self.tell(&format!(
            "A moved directory, two new files, a deletion: everywhere after {span}"
        ))
    }

    /// Gives the first directory of the laptop's folder another name.
    fn move_a_directory(&self) -> Result<PathBuf, DemoError> {
        let folder = &self.actor(Laptop).folder;
        let directory = names(folder, "")
            .into_iter()
            .find(|name| !name.starts_with('.') && folder.join(name).is_dir())
            .ok_or(DemoError::NoDirectory)?;
        let moved = format!("{directory} (moved)");
        fs::rename(folder.join(&directory), folder.join(&moved))
            .map_err(|source| file_error(folder, source))?;
        Ok(moved.into())
    }

    /// The same file is changed on two devices that do not hear one another.
    pub(super) async fn disagree(&mut self) -> Result<(), DemoError> {
        self.title("laptop and desktop change the same file while they are apart")?;
        self.write(Laptop, "agreement.txt", "We agree.\n")?;
        self.until_equal("the file is on all three").await?;
        self.ledger.given_up(b"We agree.\n");
        for who in [Laptop, Desktop] {
            let all = PauseRequest { mesh: None };
            self.actor(who).tell("/v1/pause", &all).await?;
        }
        self.write(Laptop, "agreement.txt", "laptop says: one.\n")?;
        self.write(Desktop, "agreement.txt", "desktop says: two.\n")?;
        for who in [Laptop, Desktop] {
            let all = PauseRequest { mesh: None };
            self.actor(who).tell("/v1/resume", &all).await?;
        }
        let folder = self.actor(Tablet).folder.clone();
        until("both versions are on tablet", || {
            names(&folder, "agreement").len() == 2
        })
        .await?;
        self.until_equal("both versions are on all three").await?;
        self.tell("Both versions are kept, under the same names on all three:")?;
        for name in names(&folder, "agreement") {
            self.tell(&format!("  {name}"))?;
        }
        Ok(())
    }

    /// One device is away for a while, and works meanwhile.
    pub(super) async fn lose_one(&mut self) -> Result<(), DemoError> {
        self.title("tablet falls asleep (its process gets SIGSTOP); work goes on")?;
        self.actor(Tablet).freeze()?;
        self.write(
            Tablet,
            "notes/offline.txt",
            "Written while the node slept.\n",
        )?;
        self.write(Laptop, "while-you-were-away.txt", "The others went on.\n")?;
        self.write(Desktop, "notes/and-desktop-too.txt", "So did I.\n")?;
        let arrived = self.actor(Desktop).folder.join("while-you-were-away.txt");
        until("desktop has what laptop wrote", || arrived.is_file()).await?;
        let clock = Instant::now();
        self.actor(Tablet).thaw()?;
        let away = self.actor(Tablet).folder.join("while-you-were-away.txt");
        let offline = self.actor(Laptop).folder.join("notes/offline.txt");
        until("tablet has caught up", || {
            away.is_file() && offline.is_file()
        })
        .await?;
        let span = duration(clock.elapsed());
        self.until_equal("tablet has caught up, both ways").await?;
        self.tell(&format!(
            "It woke up (SIGCONT) and had caught up, both ways, after {span}"
        ))
    }

    /// One device dies in the middle of a download.
    pub(super) async fn kill_one(&mut self) -> Result<(), DemoError> {
        self.title("desktop is killed (SIGKILL) in the middle of a download")?;
        let slow = LimitRequest {
            down: Some(Rate::BytesPerSecond(16 * MIB)),
            ..LimitRequest::default()
        };
        self.actor(Desktop).tell("/v1/limit", &slow).await?;
        let path = self.actor(Laptop).folder.join("recording.bin");
        sample::noise(&path, RECORDING_BYTES, &mut self.rng)
            .map_err(|source| file_error(&path, source))?;
        let content = fs::read(&path).map_err(|source| file_error(&path, source))?;
        self.ledger
            .saved("recording.bin, written on laptop", &content);
        let done = self.a_quarter_of_the_recording().await?;
        self.actor_mut(Desktop).kill().await;
        let whole = bytes(content.len() as u64);
        self.tell(&format!(
            "Killed when {} of {whole} had arrived",
            bytes(done)
        ))?;
        let clock = Instant::now();
        self.actor_mut(Desktop).start().await?;
        let fast = LimitRequest {
            down: Some(Rate::Unlimited),
            ..LimitRequest::default()
        };
        self.actor(Desktop).tell("/v1/limit", &fast).await?;
        self.until_equal("desktop has the whole recording").await?;
        let span = duration(clock.elapsed());
        self.tell(&format!("Started again: everything there after {span}"))
    }

    /// Waits until desktop has a good part of the recording; gives how much.
    async fn a_quarter_of_the_recording(&self) -> Result<u64, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        let whole = self.actor(Desktop).folder.join("recording.bin");
        while Instant::now() < deadline {
            let reply: TransfersReply = self.actor(Desktop).get("/v1/transfers").await?;
            let done = reply
                .transfers
                .iter()
                .map(|transfer| transfer.done_bytes)
                .max();
            let done = done.unwrap_or_default();
            if done >= RECORDING_BYTES as u64 / 4 || whole.exists() {
                return Ok(done);
            }
            tokio::time::sleep(GLANCE).await;
        }
        Err(DemoError::NotInTime {
            what: "desktop receives a large file".to_owned(),
        })
    }

    /// All folders are hashed and compared, and held against the ledger.
    pub(super) async fn compare(&mut self) -> Result<(), DemoError> {
        self.title("The proof")?;
        for actor in self.actors() {
            let timeout_seconds = Some(PATIENCE.as_secs());
            let wait = WaitRequest {
                mesh: None,
                timeout_seconds,
                members: 2,
                until_stuck: false,
            };
            let reply: WaitReply = actor.post("/v1/wait", &wait).await?;
            must_be_done(actor, &reply)?;
        }
        let tree = self.until_equal("all three folders are the same").await?;
        let lost = self.ledger.lost(&tree);
        if !lost.is_empty() {
            return Err(DemoError::Lost {
                what: lost.join(", "),
            });
        }
        let (files, size) = (count(tree.files()), bytes(tree.bytes()));
        self.tell(&format!(
            "✔ {files} files, {size}: same names, hashes, links and modes on all three"
        ))?;
        let written = count(self.ledger.len() as u64);
        self.tell(&format!(
            "✔ all {written} contents that were ever shared and not deleted are there"
        ))?;
        for actor in self.actors_mut() {
            actor.stop().await?;
        }
        self.tell("✔ all three nodes stopped in order")?;
        let span = duration(self.begun.elapsed());
        self.say(&format!(
            "\nAll of it took {span}. Now with a folder of yours: wormhole share DIR"
        ))
    }
}

/// A wait that the node gave up is the end of the story, with the node's reason.
fn must_be_done(actor: &Actor, reply: &WaitReply) -> Result<(), DemoError> {
    if reply.done {
        return Ok(());
    }
    let reason = reply.waiting_for.first();
    let reason = reason.map_or("", |first| first.reason.as_str());
    let what = format!("{} is in sync ({reason})", actor.name);
    Err(DemoError::NotInTime { what })
}

/// Three seconds at the limited speed: enough to be killed in the middle.
const RECORDING_BYTES: usize = 48 << 20;
