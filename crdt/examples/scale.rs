//! Measures a replica at scale: `cargo run --release --example scale -p wormhole-crdt -- 200000 100000`.
//!
//! Imports that many files into one replica on disk, brings them to a second one by a session, and
//! times single operations on both. Then writes as many files as the second number says ten times each, one
//! by one, and has a new device join by the logs and one by a snapshot. The figures go to standard output, one a
//! line.

#![allow(
    clippy::disallowed_methods,
    reason = "it measures with the clock that the crate must not use"
)]
#![allow(clippy::print_stdout, reason = "its output is the figures")]
#![allow(clippy::indexing_slicing, reason = "it is a tool for its own authors")]

use std::path::Path;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{Builder, Database};
use wormhole_crdt::{
    DeviceKey, Edit, EntryId, EntryKey, EntryName, FileInput, NewMesh, NewNode, Replica, Role,
    Session, Timestamp,
};
use wormhole_store::{Content, ContentId};

const FILES_PER_DIRECTORY: usize = 100;
const BATCH: usize = 500;

fn main() {
    let number = |at| std::env::args().nth(at);
    let parsed = |text: String| text.parse().expect("a number");
    let entries = number(1).map_or(20_000, parsed);
    let rewritten = number(2).map_or(entries / 10, parsed);
    if entries > 0 {
        measure(entries);
    }
    if rewritten > 0 {
        measure_joins(rewritten);
    }
}

fn measure(entries: usize) {
    let dir = tempfile::tempdir().expect("a directory for the databases");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let key = |number| DeviceKey::from_seed([number; 32]);
    let mesh = NewMesh {
        name: "m".into(),
        device_name: "a".into(),
        key: key(1),
    };
    let one = Replica::create(database(dir.path(), "one"), &mesh, now(), &mut rng).expect("create");
    one.admit(key(2).device_id(), "b", Role::Writer, now())
        .expect("admit");
    let two = Replica::join(
        database(dir.path(), "two"),
        &one.welcome(),
        key(2),
        &mut rng,
    )
    .expect("join");

    let files = import(&one, entries, &mut rng);
    show_resident("after import");
    catch_up(&one, &two, &mut rng);
    show_resident("after sync");
    single_edits(&one, &two, &files, &mut rng);
    reads(&two, &files, &mut rng);
    drop((one, two));
    let start = Instant::now();
    let one = Replica::open(database(dir.path(), "one"), key(1)).expect("open");
    println!("reopen: {:?}", start.elapsed());
    let start = Instant::now();
    let counts = one.counts().expect("counts");
    println!(
        "counts after reopen: {:?} in {:?}",
        counts.files,
        start.elapsed()
    );
    for name in ["one", "two"] {
        let bytes = std::fs::metadata(dir.path().join(name))
            .expect("the database")
            .len();
        println!("database {name}: {} MiB", bytes >> 20);
    }
}

/// How often each file is written after it was created.
const WRITES: usize = 10;

fn measure_joins(entries: usize) {
    let dir = tempfile::tempdir().expect("a directory for the databases");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let key = |number| DeviceKey::from_seed([number; 32]);
    let mesh = NewMesh {
        name: "m".into(),
        device_name: "a".into(),
        key: key(1),
    };
    let old = Replica::create(database(dir.path(), "old"), &mesh, now(), &mut rng).expect("create");
    let files = import(&old, entries, &mut rng);
    let start = Instant::now();
    for (number, file) in (1..).zip(files.iter().cycle().take(files.len() * WRITES)) {
        let edit = Edit::Write {
            key: EntryKey::from(*file),
            content: content(&mut rng),
            base: None,
        };
        old.edit_deferred(&[edit], now()).expect("edit");
        if number % BATCH == 0 {
            old.flush().expect("flush");
        }
    }
    old.flush().expect("flush");
    println!("{WRITES} writes of each, one by one: {:?}", start.elapsed());
    for (number, way) in [(2, Way::Snapshot), (3, Way::Logs)] {
        old.admit(key(number).device_id(), "new", Role::Writer, now())
            .expect("admit");
        let database = database(dir.path(), &format!("{way:?}"));
        let new = Replica::join(database, &old.welcome(), key(number), &mut rng).expect("join");
        join(&old, &new, way, &mut rng);
        assert_eq!(
            new.digest().expect("digest"),
            old.digest().expect("digest"),
            "both hold the same"
        );
        show_resident("after it");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Snapshot,
    Logs,
}

/// Times how long it takes a new device to show the tree, and to hold all logs.
fn join(old: &Replica, new: &Replica, way: Way, rng: &mut ChaCha8Rng) {
    let start = Instant::now();
    let (mut a, mut b) = (
        Session::new(old, new.device()),
        Session::new(new, old.device()),
    );
    let mut to_b = a.start().expect("start");
    let mut to_a = b.start().expect("start");
    if way == Way::Logs {
        // As a program from before snapshots says it.
        to_a.remove(0);
    }
    let files = old.counts().expect("counts").files;
    let (mut bytes, mut longest, mut shown) = (0, Duration::ZERO, false);
    while !(to_a.is_empty() && to_b.is_empty()) {
        let (now_a, now_b) = (std::mem::take(&mut to_a), std::mem::take(&mut to_b));
        for message in now_b {
            bytes += message.as_bytes().len();
            let start = Instant::now();
            to_a.extend(b.receive(message.as_bytes(), rng).expect("receive"));
            longest = longest.max(start.elapsed());
        }
        for message in now_a {
            to_b.extend(a.receive(message.as_bytes(), rng).expect("receive"));
        }
        if !shown && b.in_sync() && new.counts().expect("counts").files == files {
            shown = true;
            new.flush().expect("flush");
            println!(
                "{way:?}: tree after {:?}, {} MiB",
                start.elapsed(),
                bytes >> 20
            );
        }
        to_b.extend(a.poll(1 << 20).expect("poll"));
        to_a.extend(b.poll(1 << 20).expect("poll"));
    }
    new.flush().expect("flush");
    println!(
        "{way:?}: everything after {:?}, {} MiB; longest step {longest:?}",
        start.elapsed(),
        bytes >> 20
    );
}

fn import(replica: &Replica, entries: usize, rng: &mut ChaCha8Rng) -> Vec<EntryId> {
    let start = Instant::now();
    let mut files = Vec::with_capacity(entries);
    let mut edits = Vec::with_capacity(BATCH);
    let mut parent = EntryId::ROOT;
    for number in 0..entries {
        if number % FILES_PER_DIRECTORY == 0 {
            let id = replica.fresh_id(EntryId::ROOT, rng).expect("an id");
            edits.push(create(
                id,
                EntryId::ROOT,
                &format!("directory-{number}"),
                NewNode::Directory,
            ));
            parent = id;
        }
        let id = replica.fresh_id(parent, rng).expect("an id");
        edits.push(create(
            id,
            parent,
            &format!("file-{number}.txt"),
            NewNode::File(content(rng)),
        ));
        files.push(id);
        if edits.len() >= BATCH || number + 1 == entries {
            replica.edit_deferred(&edits, now()).expect("import");
            edits.clear();
        }
    }
    replica.flush().expect("flush");
    let took = start.elapsed();
    let rate = files.len() as f64 / took.as_secs_f64();
    println!("import of {entries} files: {took:?} ({rate:.0}/s)");
    files
}

fn catch_up(one: &Replica, two: &Replica, rng: &mut ChaCha8Rng) {
    let start = Instant::now();
    let (mut a, mut b) = (
        Session::new(one, two.device()),
        Session::new(two, one.device()),
    );
    let mut bytes = 0;
    exchange(&mut a, &mut b, &mut bytes, rng);
    two.flush().expect("flush");
    println!(
        "a new device catches up: {:?}, {} MiB",
        start.elapsed(),
        bytes >> 20
    );
}

fn exchange(a: &mut Session, b: &mut Session, bytes: &mut usize, rng: &mut ChaCha8Rng) {
    let mut to_b = a.start().expect("start");
    let mut to_a = b.start().expect("start");
    while !(to_a.is_empty() && to_b.is_empty()) {
        let (now_a, now_b) = (std::mem::take(&mut to_a), std::mem::take(&mut to_b));
        for message in now_b {
            *bytes += message.as_bytes().len();
            to_a.extend(b.receive(message.as_bytes(), rng).expect("receive"));
        }
        for message in now_a {
            to_b.extend(a.receive(message.as_bytes(), rng).expect("receive"));
        }
        to_b.extend(a.poll(1 << 20).expect("poll"));
        to_a.extend(b.poll(1 << 20).expect("poll"));
    }
}

fn single_edits(one: &Replica, two: &Replica, files: &[EntryId], rng: &mut ChaCha8Rng) {
    let (mut a, mut b) = (
        Session::new(one, two.device()),
        Session::new(two, one.device()),
    );
    exchange(&mut a, &mut b, &mut 0, rng);
    let (mut local, mut remote, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..500 {
        let key = EntryKey::from(files[rng.random_range(0..files.len())]);
        let edit = Edit::Write {
            key,
            content: content(rng),
            base: None,
        };
        let start = Instant::now();
        one.edit(&[edit], now()).expect("edit");
        local.push(start.elapsed());
        for message in a.poll(1 << 20).expect("poll") {
            let start = Instant::now();
            let answers = b.receive(message.as_bytes(), rng).expect("receive");
            remote.push(start.elapsed());
            for answer in answers {
                a.receive(answer.as_bytes(), rng).expect("receive");
            }
        }
        if round % 5 == 0 {
            let start = Instant::now();
            one.flush().expect("flush");
            flushes.push(start.elapsed());
        }
    }
    show("one local edit, durable", &mut local);
    show("one flush after five edits", &mut flushes);
    show("one remote change applied", &mut remote);
}

fn reads(replica: &Replica, files: &[EntryId], rng: &mut ChaCha8Rng) {
    let (mut listings, mut lookups) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        let key = EntryKey::from(files[rng.random_range(0..files.len())]);
        let start = Instant::now();
        let entry = replica.entry(&key).expect("entry").expect("it is there");
        lookups.push(start.elapsed());
        let start = Instant::now();
        replica.children(entry.parent).expect("children");
        listings.push(start.elapsed());
    }
    show("one entry", &mut lookups);
    show("a directory of 100", &mut listings);
}

fn create(id: EntryId, parent: EntryId, name: &str, node: NewNode) -> Edit {
    let name = EntryName::parse(name).expect("a name");
    Edit::Create {
        id,
        parent,
        name,
        node,
        mode: None,
    }
}

fn content(rng: &mut ChaCha8Rng) -> FileInput {
    let id = ContentId::from_bytes(rng.random());
    FileInput {
        content: Content {
            id,
            size: rng.random_range(1..1 << 20),
        },
        mtime: now(),
    }
}

fn now() -> Timestamp {
    Timestamp(1_700_000_000_000_000_000)
}

fn database(dir: &Path, name: &str) -> Database {
    Builder::new()
        .set_cache_size(32 << 20)
        .create(dir.join(name))
        .expect("a database")
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort();
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: median {median:?}, 99 % under {late:?}");
}

fn show_resident(when: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or("unknown");
    println!(
        "resident {when}: {}",
        line.trim_start_matches("VmRSS:").trim()
    );
}
