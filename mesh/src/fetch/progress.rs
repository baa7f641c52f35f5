//! How far fetches are, for status pages: counters that the driver bumps and snapshots read.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use wormhole_crdt::MeshId;
use wormhole_store::{Content, FetchJob};

use super::plan::JobId;

/// Transfers of one fetch that a snapshot lists; a fetch may have many thousand jobs.
const SHOWN: usize = 100;

/// The rate is that of about this long.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// A content that is being brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Whose it is.
    pub mesh: MeshId,
    /// The path to show to people.
    pub label: Arc<str>,
    /// What is brought.
    pub content: Content,
    /// Bytes that are here, those of earlier attempts included.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes per second of the whole fetch that this is part of.
    pub rate: u64,
    /// Devices that the fetch uses.
    pub peers: usize,
}

/// All fetches that are running. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Running {
    fetches: Arc<Mutex<Fetches>>,
}

#[derive(Debug, Default)]
struct Fetches {
    next: u64,
    by_number: BTreeMap<u64, Arc<Counters>>,
}

impl Running {
    /// Lists a fetch until the guard is dropped.
    pub(super) fn enter(&self, mesh: MeshId, jobs: Arc<[FetchJob]>) -> Progress {
        let counters = Arc::new(Counters {
            mesh,
            jobs,
            begun: Mutex::default(),
            peers: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            rate: Mutex::new(Rate {
                since: Instant::now(),
                bytes: 0,
                last: 0,
            }),
        });
        let mut fetches = lock(&self.fetches);
        fetches.next += 1;
        let number = fetches.next;
        fetches.by_number.insert(number, Arc::clone(&counters));
        Progress {
            counters,
            number,
            running: self.clone(),
        }
    }

    pub(super) fn snapshot(&self) -> Vec<Transfer> {
        let fetches: Vec<_> = lock(&self.fetches).by_number.values().cloned().collect();
        fetches
            .iter()
            .flat_map(|counters| counters.snapshot())
            .collect()
    }
}

struct Counters {
    mesh: MeshId,
    jobs: Arc<[FetchJob]>,
    /// Bytes done of each job that has begun and not ended.
    begun: Mutex<BTreeMap<JobId, u64>>,
    peers: AtomicUsize,
    bytes: AtomicU64,
    rate: Mutex<Rate>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters")
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Rate {
    since: Instant,
    bytes: u64,
    last: u64,
}

impl Counters {
    fn snapshot(&self) -> Vec<Transfer> {
        let rate = lock(&self.rate).now(self.bytes.load(Ordering::Relaxed));
        let peers = self.peers.load(Ordering::Relaxed);
        let begun = lock(&self.begun);
        let shown = begun.iter().take(SHOWN);
        let transfer = |(job, done): (&JobId, &u64)| {
            let job = self.jobs.get(job.0)?;
            Some(Transfer {
                mesh: self.mesh,
                label: Arc::clone(&job.label),
                content: job.content,
                done_bytes: *done,
                total_bytes: job.content.size,
                rate,
                peers,
            })
        };
        shown.filter_map(transfer).collect()
    }
}

impl Rate {
    fn now(&mut self, bytes: u64) -> u64 {
        let elapsed = self.since.elapsed();
        let nanos = elapsed.as_nanos().max(1);
        let fresh = u128::from(bytes.saturating_sub(self.bytes)) * 1_000_000_000 / nanos;
        let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
        if elapsed >= RATE_WINDOW {
            *self = Self {
                since: Instant::now(),
                bytes,
                last: fresh,
            };
        }
        if self.last == 0 { fresh } else { self.last }
    }
}

/// One fetch's place in the list.
#[derive(Debug)]
pub(super) struct Progress {
    counters: Arc<Counters>,
    number: u64,
    running: Running,
}

impl Progress {
    /// A job's slots are known; `done` bytes of it are here already.
    pub(super) fn begin(&self, job: JobId, done: u64) {
        lock(&self.counters.begun).insert(job, done);
    }

    /// Bytes of a job were put into its sink.
    pub(super) fn add(&self, job: JobId, bytes: u64) {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(done) = lock(&self.counters.begun).get_mut(&job) {
            *done += bytes;
        }
    }

    /// A job has ended, one way or the other.
    pub(super) fn end(&self, job: JobId) {
        lock(&self.counters.begun).remove(&job);
    }

    /// How many holders are in use.
    pub(super) fn set_peers(&self, peers: usize) {
        self.counters.peers.store(peers, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        lock(&self.running.fetches).by_number.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only counters: a panic elsewhere leaves them as good as they were.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
