//! Fetching over a network in memory: many holders, bad holders, none, and interruptions.

mod holder;

use std::{
    collections::HashSet,
    sync::{Mutex, atomic::Ordering},
};

use wormhole_crdt::{Replica, Role};
use wormhole_store::{ChunkSink, Content, Lack, Slot, WriteError};

use self::holder::{Counting, Habit, Late, Liar};
use super::*;
use crate::{
    lab::{Lab, Node, eventually},
    limit::RateLimits,
    serve::Upload,
    streams::Handler,
};

const MIB: usize = 1 << 20;

/// A founder (1) and members (2, 3, ...), all of whom see the first member.
async fn mesh(members: u8) -> (Lab, Replica, Vec<Node>) {
    let mut lab = Lab::new();
    let founder = lab.node(1);
    let replica = lab.found(&founder);
    let mut nodes = vec![founder];
    for seed in 2..members + 2 {
        let node = lab.node(seed);
        lab.admit(&replica, &node, Role::Writer);
        nodes.push(node);
    }
    let fetcher = &nodes[1];
    for other in nodes.iter().filter(|other| other.id != fetcher.id) {
        fetcher.sees(other, replica.mesh_id()).await;
        other.sees(fetcher, replica.mesh_id()).await;
    }
    let all = nodes.len();
    eventually("all know all", || replica.members().len() == all).await;
    (lab, replica, nodes)
}

async fn fetch(node: &Node, mesh: &Replica, jobs: Vec<FetchJob>) -> Vec<Result<(), FetchError>> {
    node.protocols
        .fetch(mesh.mesh_id(), jobs, CancellationToken::new())
        .await
}

/// Waits until `node` has heard of every member: it asks only those.
async fn knows_members(node: &Node, mesh: &Replica) {
    let in_sync = || node.protocols.sync_state(mesh.mesh_id());
    eventually("members are known", || {
        in_sync().iter().any(|exchange| exchange.in_sync)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_of_every_size_arrive_from_several_holders() {
    let (_lab, mesh, nodes) = mesh(2).await;
    let (a, b, c) = (&nodes[0], &nodes[1], &nodes[2]);
    let sizes = [0, 1, 4096, 64 << 10, (64 << 10) + 1, MIB, 20 * MIB];
    let contents: Vec<_> = (1..)
        .zip(sizes)
        .map(|(n, size)| a.import(n, size))
        .collect();
    for (n, size) in (1..).zip(sizes) {
        c.import(n, size);
    }
    knows_members(b, &mesh).await;
    let jobs = contents.iter().map(|content| b.job(*content)).collect();
    for (result, content) in fetch(b, &mesh, jobs).await.iter().zip(&contents) {
        assert!(result.is_ok() && b.has(content), "{result:?} {content:?}");
    }
    assert!(b.protocols.transfers().is_empty());
    let sent: Vec<_> = [a, c]
        .iter()
        .flat_map(|node| node.protocols.uploads())
        .collect();
    let to = |upload: &Upload| (upload.mesh, upload.device);
    assert!(
        sent.iter()
            .all(|upload| to(upload) == (mesh.mesh_id(), b.id))
    );
    assert!(sent.iter().any(|upload| upload.sent_bytes > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_files_come_in_few_requests() {
    let (lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let contents: Vec<_> = (0..4000).map(|n| a.import(n, 100)).collect();
    let counted = Arc::new(Counting::of(a));
    lab.memory
        .serve(a.id, Arc::clone(&counted) as Arc<dyn Handler>);
    let jobs = contents.iter().map(|content| b.job(*content)).collect();
    assert!(fetch(b, &mesh, jobs).await.iter().all(Result::is_ok));
    assert!(contents.iter().all(|content| b.has(content)));
    let requests = counted.requests.load(Ordering::Relaxed);
    assert!(requests <= 64, "{requests} requests for 4,000 files");
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_files_with_manifests_arrive_from_one_holder_and_from_several() {
    for holders in [1, 2] {
        let (_lab, mesh, nodes) = mesh(holders).await;
        let (a, b) = (&nodes[0], &nodes[1]);
        let sizes = (0..300).map(|n| if n % 7 == 0 { 1000 } else { 100 << 10 });
        let contents: Vec<_> = (0..)
            .zip(sizes)
            .map(|(n, size)| a.import(n, size))
            .collect();
        for other in &nodes[2..] {
            for (n, content) in (0..).zip(&contents).step_by(2) {
                other.import(n, usize::try_from(content.size).unwrap());
            }
        }
        knows_members(b, &mesh).await;
        let jobs = contents.iter().map(|content| b.job(*content)).collect();
        let results = fetch(b, &mesh, jobs).await;
        let failed = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(failed, 0, "of 300 files, with {holders} holders");
        assert!(contents.iter().all(|content| b.has(content)));
    }
}

#[tokio::test(start_paused = true)]
async fn under_the_lowest_limits_of_either_side_a_file_takes_long_and_arrives() {
    const SLOW: Option<u64> = Some(1024);
    for (up, down) in [(SLOW, None), (None, SLOW)] {
        let (lab, mesh, nodes) = mesh(1).await;
        let (a, b) = (&nodes[0], &nodes[1]);
        let content = a.import(1, MIB + MIB / 2);
        lab.memory.limit(a.id, RateLimits { up, down: None });
        lab.memory.limit(b.id, RateLimits { up: None, down });
        let begun = tokio::time::Instant::now();
        let results = fetch(b, &mesh, vec![b.job(content)]).await;
        assert!(results[0].is_ok() && b.has(&content), "{results:?}");
        // Virtual time, in which the limit held: 1.5 MiB at 1 KiB/s.
        let took = begun.elapsed().as_secs();
        assert!((1400..2000).contains(&took), "{took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mesh_keeps_to_its_own_limits_on_either_side_and_follows_their_changes() {
    let rates = |up, down| RateLimits { up, down };
    let slow = Some(64 * 1024);
    for (of_a, of_b) in [
        (rates(slow, None), rates(None, None)),
        (rates(None, None), rates(None, slow)),
    ] {
        let (_lab, mesh, nodes) = mesh(1).await;
        let (a, b) = (&nodes[0], &nodes[1]);
        for (node, rates) in [(a, of_a), (b, of_b)] {
            node.protocols.limit(mesh.mesh_id(), rates);
        }
        for (seed, expected) in [(1, 20..30), (2, 0..2)] {
            let begun = tokio::time::Instant::now();
            let content = a.import(seed, MIB + MIB / 2);
            let results = fetch(b, &mesh, vec![b.job(content)]).await;
            assert!(results[0].is_ok() && b.has(&content), "{results:?}");
            let took = begun.elapsed().as_secs();
            assert!(expected.contains(&took), "{took} s of virtual time");
            for node in [a, b] {
                node.protocols.limit(mesh.mesh_id(), RateLimits::default());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_named_twice_is_fetched_once_and_lands_twice() {
    let (lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = a.import(1, 3 * MIB);
    let counted = Arc::new(Counting::of(a));
    lab.memory
        .serve(a.id, Arc::clone(&counted) as Arc<dyn Handler>);
    let sinks: Vec<_> = (0..2).map(|_| Arc::new(Kept::new(b))).collect();
    let job = |sink: &Arc<Kept>| FetchJob {
        content,
        label: "twice".into(),
        sink: Arc::clone(sink) as Arc<dyn ChunkSink>,
    };
    let results = fetch(b, &mesh, sinks.iter().map(job).collect()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let sum = |sink: &Arc<Kept>| {
        sink.put
            .lock()
            .unwrap()
            .iter()
            .map(|slot| slot.1)
            .sum::<u64>()
    };
    assert_eq!(sinks.iter().map(sum).collect::<Vec<_>>(), [content.size; 2]);
    let sent = counted.bytes.load(Ordering::Relaxed);
    assert!(
        sent < content.size + content.size / 10,
        "{sent} bytes were sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_ends_at_once_and_the_rest_arrives() {
    let (_lab, mesh, nodes) = mesh(2).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let held = a.import(1, 2 * MIB);
    let unheld = Content {
        id: wormhole_store::ContentId::from_bytes([9; 32]),
        size: 10,
    };
    let unheld_large = Content {
        size: 1 << 40,
        ..unheld
    };
    knows_members(b, &mesh).await;
    let jobs = vec![b.job(unheld), b.job(held), b.job(unheld_large)];
    let results = fetch(b, &mesh, jobs).await;
    assert!(
        matches!(results[0], Err(FetchError::NoHolder)),
        "{results:?}"
    );
    assert!(results[1].is_ok(), "{results:?}");
    assert!(
        matches!(results[2], Err(FetchError::NoHolder)),
        "{results:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_ends_with_the_reason_why_it_cannot_go_on() {
    let (_lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = a.import(1, MIB);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let id = mesh.mesh_id();
    let results = b.protocols.fetch(id, vec![b.job(content)], cancel).await;
    assert!(matches!(results[0], Err(FetchError::Cancelled)));
    b.protocols.pause(id);
    let results = fetch(b, &mesh, vec![b.job(content)]).await;
    assert!(matches!(results[0], Err(FetchError::Paused)));
    b.protocols.detach(id);
    let results = fetch(b, &mesh, vec![b.job(content)]).await;
    assert!(matches!(results[0], Err(FetchError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_ends_its_own_job_only() {
    let (_lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let (one, other) = (a.import(1, 3 * MIB), a.import(2, 3 * MIB));
    let full = FetchJob {
        content: one,
        label: "full".into(),
        sink: Arc::new(Full(b.store.clone())),
    };
    let results = fetch(b, &mesh, vec![full, b.job(other)]).await;
    assert!(
        matches!(results[0], Err(FetchError::Sink(WriteError::Poisoned))),
        "{results:?}"
    );
    assert!(results[1].is_ok() && b.has(&other), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outlasts_many_breaks_and_asks_for_nothing_that_arrived() {
    let (lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = a.import(1, 40 * MIB);
    let breaking = Arc::new(Counting::of(a).that_breaks_after(2 << 20));
    lab.memory
        .serve(a.id, Arc::clone(&breaking) as Arc<dyn Handler>);
    let results = fetch(b, &mesh, vec![b.job(content)]).await;
    assert!(results[0].is_ok() && b.has(&content), "{results:?}");
    let sent = breaking.bytes.load(Ordering::Relaxed);
    // Each broken stream loses at most what was on its way.
    assert!(
        sent < content.size * 2,
        "{sent} bytes were sent for {}",
        content.size
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_comes_during_a_fetch_is_used() {
    let (mut lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = a.import(1, 8 * MIB);
    // The only holder there is never answers; one that comes later does.
    let silent = Arc::new(Liar::new(Habit::Silent, a));
    lab.memory
        .serve(a.id, Arc::clone(&silent) as Arc<dyn Handler>);
    let late = lab.node(9);
    late.import(1, 8 * MIB);
    let results = tokio::join!(fetch(b, &mesh, vec![b.job(content)]), async {
        eventually("the fetch runs", || {
            silent.was_asked.load(Ordering::Relaxed)
        })
        .await;
        lab.admit(&mesh, &late, Role::Seed);
    });
    assert!(results.0[0].is_ok(), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_holder_is_dropped_and_the_content_comes_from_others() {
    for habit in [
        Habit::WrongBytes,
        Habit::WrongLength,
        Habit::Garbage,
        Habit::TooLarge,
        Habit::Bomb,
    ] {
        let (lab, mesh, nodes) = mesh(2).await;
        let (a, b, mallory) = (&nodes[0], &nodes[1], &nodes[2]);
        let content = a.import(1, 8 * MIB);
        let small = a.import(2, 1000);
        mallory.import(1, 8 * MIB);
        mallory.import(2, 1000);
        knows_members(b, &mesh).await;
        let liar = Arc::new(Liar::new(habit, mallory));
        lab.memory
            .serve(mallory.id, Arc::clone(&liar) as Arc<dyn Handler>);
        let late = Late::until_blamed(&lab.memory, mallory.id, a);
        lab.memory.serve(a.id, Arc::new(late));
        let results = fetch(b, &mesh, vec![b.job(content), b.job(small)]).await;
        assert!(results.iter().all(Result::is_ok), "{habit:?}: {results:?}");
        assert!(b.has(&content) && b.has(&small), "{habit:?}");
        assert!(liar.was_asked.load(Ordering::Relaxed), "{habit:?}");
        let blamed: Vec<_> = lab.memory.blamed();
        let reason = habit.blame();
        assert!(
            blamed
                .iter()
                .all(|(by, who, _)| *by == b.id && *who == mallory.id),
            "{blamed:?}"
        );
        assert!(
            blamed.contains(&(b.id, mallory.id, reason)),
            "{habit:?}: {blamed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_does_not_hold_up_the_others() {
    let (lab, mesh, nodes) = mesh(2).await;
    let (a, b, mallory) = (&nodes[0], &nodes[1], &nodes[2]);
    let content = a.import(1, 8 * MIB);
    knows_members(b, &mesh).await;
    lab.memory
        .serve(mallory.id, Arc::new(Liar::new(Habit::Silent, mallory)));
    let results = fetch(b, &mesh, vec![b.job(content)]).await;
    assert!(results[0].is_ok(), "{results:?}");
    assert!(lab.memory.blamed().is_empty(), "slowness is no crime");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_has_no_room_for_a_while_is_waited_for() {
    let (lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = a.import(1, MIB);
    lab.memory.busy(a.id, crate::serve::PROTOCOL, 20);
    let results = fetch(b, &mesh, vec![b.job(content)]).await;
    assert!(results[0].is_ok() && b.has(&content), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn with_a_silent_holder_alone_a_fetch_ends() {
    let (lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = a.import(1, MIB);
    lab.memory
        .serve(a.id, Arc::new(Liar::new(Habit::Silent, a)));
    let results = fetch(b, &mesh, vec![b.job(content)]).await;
    assert!(
        matches!(results[0], Err(FetchError::NoHolder)),
        "{results:?}"
    );
}

/// Puts chunks nowhere, but notes which.
struct Kept {
    store: wormhole_store::Store,
    put: Mutex<HashSet<(u64, u64)>>,
}

impl Kept {
    fn new(node: &Node) -> Self {
        Self {
            store: node.store.clone(),
            put: Mutex::default(),
        }
    }
}

impl ChunkSink for Kept {
    fn prepare(&self, content: &Content, part: u64) -> Result<Lack, WriteError> {
        let mut slots = self.store.parts(content, part).unwrap();
        Ok(Lack {
            slots: slots.by_ref().map(Result::unwrap).collect(),
            here: 0,
            next: slots.next_part(),
        })
    }

    fn put(&self, slot: Slot, bytes: &[u8]) -> Result<(), WriteError> {
        assert!(
            self.put
                .lock()
                .unwrap()
                .insert((slot.offset, bytes.len() as u64)),
            "only once"
        );
        Ok(())
    }
}

/// A content whose root lists one page of 512 small chunks as often as it is told, at its holder.
fn one_page_often(node: &Node, times: usize) -> Content {
    const LEN: usize = 200;
    let key = node.store.key();
    let mut page = b"WHP1".to_vec();
    for n in 0..512_u32 {
        let chunk: Vec<u8> = n.to_le_bytes().repeat(LEN / 4);
        node.store.put(&chunk).unwrap();
        page.extend(key.chunk_id(&chunk).as_bytes());
        page.extend((LEN as u32).to_le_bytes());
    }
    let covered = (512 * LEN) as u64;
    let size = times as u64 * covered;
    let mut root = b"WHM1".to_vec();
    root.extend([1, 0, 0, 0]);
    root.extend(size.to_le_bytes());
    for _ in 0..times {
        root.extend(key.chunk_id(&page).as_bytes());
        root.extend(covered.to_le_bytes());
    }
    node.store.put(&page).unwrap();
    node.store.put(&root).unwrap();
    Content {
        id: key.chunk_id(&root).into(),
        size,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_of_several_parts_arrives_whole_one_part_after_the_other() {
    let (_lab, mesh, nodes) = mesh(1).await;
    let (a, b) = (&nodes[0], &nodes[1]);
    let content = one_page_often(a, 5 * Lack::PAGES / 2);
    let sink = Arc::new(Kept::new(b));
    let job = FetchJob {
        sink: Arc::clone(&sink) as Arc<dyn ChunkSink>,
        ..b.job(content)
    };
    let results = fetch(b, &mesh, vec![job]).await;
    assert!(results[0].is_ok(), "{results:?}");
    let put = sink.put.lock().unwrap();
    assert_eq!(put.len(), 5 * Lack::MAX_SLOTS / 2);
    assert_eq!(put.iter().map(|(_, len)| len).sum::<u64>(), content.size);
}

/// A sink on a full disk.
struct Full(wormhole_store::Store);

impl ChunkSink for Full {
    fn prepare(&self, content: &Content, part: u64) -> Result<Lack, WriteError> {
        let slots = self.0.parts(content, part).unwrap();
        Ok(Lack {
            slots: slots.map(Result::unwrap).collect(),
            ..Lack::default()
        })
    }

    fn put(&self, _slot: Slot, _bytes: &[u8]) -> Result<(), WriteError> {
        Err(WriteError::Poisoned)
    }
}
