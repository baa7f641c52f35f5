//! How far fetches are, for status pages: counters that the driver bumps and snapshots read.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use wormhole_crdt::MeshId;
use wormhole_store::{Content, FetchJob};

use super::plan::JobId;
use crate::rate::Rate;

/// Transfers of one fetch that a snapshot lists; a fetch may have many thousand jobs.
const SHOWN: usize = 100;

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
            rate: Mutex::default(),
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

/// One fetch's place in the list.
#[derive(Debug)]
pub(super) struct Progress {
    counters: Arc<Counters>,
    number: u64,
    running: Running,
}

impl Progress {
    /// The slots of a job, or of its next part, are known; `here` bytes of that are here already.
    pub(super) fn begin(&self, job: JobId, here: u64) {
        *lock(&self.counters.begun).entry(job).or_default() += here;
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
