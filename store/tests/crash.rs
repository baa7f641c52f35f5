//! A store whose process is killed at any moment keeps what it acknowledged.
//!
//! The test starts itself as a child that writes and reports each commit, kills it after some
//! reports, and looks for everything that was reported.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests, which may fail loudly

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rand::{Rng, SeedableRng};
use wormhole_store::{ContentKey, FilePath, RootId, Store, StoreOptions};

const CHILD: &str = "WORMHOLE_STORE_CRASH_CHILD";
const ROOT: RootId = RootId::from_bytes([1; 16]);

#[test]
fn what_was_committed_survives_kill_9() {
    if let Some(home) = env::var_os(CHILD) {
        write_until_killed(Path::new(&home));
    }
    let home = tempfile::tempdir().unwrap();
    let mut begun = 0;
    for round in 0..6 {
        let acknowledged = run_and_kill(home.path(), begun, 5 + 7 * round);
        let store = open(home.path());
        for number in 0..acknowledged {
            assert!(
                holds(&store, number),
                "round {round}: {number} of {acknowledged}"
            );
        }
        begun = acknowledged;
    }
    assert!(begun > 100, "only {begun} acknowledged");
}

/// Starts a child that goes on from `begun`, kills it after `reports`, returns what it reported.
fn run_and_kill(home: &Path, begun: u64, reports: usize) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "what_was_committed_survives_kill_9",
            "--nocapture",
        ])
        .env(CHILD, home)
        .env("BEGUN", begun.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reported = lines.map_while(Result::ok).filter_map(|line| {
        line.strip_prefix("acknowledged ")
            .map(|number| number.parse::<u64>().unwrap())
    });
    let last = reported.take(reports).last();
    child.kill().unwrap();
    child.wait().unwrap();
    last.expect("the child reports until it is killed")
}

fn write_until_killed(home: &Path) -> ! {
    let store = open(home);
    let begun: u64 = env::var("BEGUN").unwrap().parse().unwrap();
    for number in begun.. {
        let bytes = bytes_of(number);
        if number % 3 == 0 {
            let path = format!("{}/{number}", number % 5);
            let full = home.join("folder").join(&path);
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(&full, &bytes).unwrap();
            store.import_reference(&FilePath::new(ROOT, path)).unwrap();
        } else {
            store.put(&bytes).unwrap();
        }
        if number % 4 == 3 {
            store.commit().unwrap();
            println!("acknowledged {}", number + 1);
            std::io::stdout().flush().unwrap();
        }
    }
    unreachable!("nobody counts that far")
}

fn open(home: &Path) -> Store {
    let options = StoreOptions {
        pack_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    let key = ContentKey::from_bytes([42; 32]);
    let store = Store::open(&home.join("store"), key, options).unwrap();
    store.add_root(&ROOT, &home.join("folder")).unwrap();
    store
}

fn holds(store: &Store, number: u64) -> bool {
    let bytes = bytes_of(number);
    store
        .read(&store.key().chunk_id(&bytes))
        .is_ok_and(|found| found == bytes)
}

fn bytes_of(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 20_000 + 100 * usize::try_from(number % 50).unwrap()];
    rand_chacha::ChaCha8Rng::seed_from_u64(number).fill_bytes(&mut bytes);
    bytes
}
