//! Brings wanted contents: small ones in big batches, big ones by themselves, at the same time, so that a download of
//! 100 GB never delays a 4 KiB save.
//!
//! The actor owns this, hands in what the engine wants and takes out what is complete. What no device has stays here with
//! its reason and is asked for again with a growing pause, or at once after [`Downloads::poke`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::EntryKey;
use wormhole_store::{ChunkSink, FetchJob, Store};

use super::beneath;
use super::partial::{Durable, Fault, PartialFile, Want};
use super::status::{FolderStatus, Reason, Waiting, WaitingFor};
use super::temporary::Temporary;
use crate::source::{FetchFailure, Source};

/// Contents up to here travel together.
const SMALL_BYTES: u64 = 1 << 20;
/// A batch of small ones: enough that no file costs a round trip or a wait for the disk of its own, few enough to show
/// progress.
const BATCH_FILES: usize = 1_024;
const BATCH_BYTES: u64 = 16 << 20;
/// Batches of small contents, and big contents, in flight.
const SMALL_TASKS: usize = 4;
const BIG_TASKS: usize = 3;
/// From this many files on, one `syncfs` is cheaper than an fsync each.
const SYNC_TOGETHER: usize = 8;
/// The engine pauses its comparison while this many wait for their first try.
const QUEUE: usize = 8_192;
/// And while it has asked for so many that nobody has: each costs some hundred bytes.
const MAX_PENDING: usize = 131_072;
/// How soon a file is asked for that another transfer has: one that is not wanted any more, and ends.
const OWNED_PAUSE: Duration = Duration::from_millis(200);
/// The pauses between tries.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Asking a disk that takes no writes costs next to nothing.
const LAST_READ_ONLY_RETRY: Duration = Duration::from_secs(10);

/// A transfer that ended.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) file: Arc<PartialFile>,
    pub(crate) result: Result<(), Stuck>,
}

/// Why a transfer did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// Nobody who is connected has it.
    Holder,
    /// It could not be written.
    Disk(Fault),
}

impl Stuck {
    fn waiting_for(&self) -> WaitingFor {
        match self {
            Self::Holder => WaitingFor::Holder,
            Self::Disk(Fault::NoSpace) => WaitingFor::Space,
            Self::Disk(Fault::ReadOnly) => WaitingFor::ReadOnlyDisk,
            Self::Disk(Fault::Io(_)) => WaitingFor::Disk,
        }
    }

    /// The pause after so many tries.
    fn rest(&self, tries: u32) -> Duration {
        let last = match self {
            Self::Disk(Fault::ReadOnly) => LAST_READ_ONLY_RETRY,
            Self::Holder | Self::Disk(Fault::NoSpace | Fault::Io(_)) => LAST_RETRY,
        };
        (FIRST_RETRY * 2u32.saturating_pow(tries.min(6))).min(last)
    }
}

#[derive(Debug)]
struct Pending {
    want: Want,
    /// What the last try met.
    stuck: Option<Stuck>,
    tries: u32,
    stage: Stage,
}

impl Pending {
    fn waiting_for(&self) -> WaitingFor {
        let stuck = self.stuck.as_ref();
        stuck.map_or(WaitingFor::Transfer, Stuck::waiting_for)
    }
}

#[derive(Debug)]
enum Stage {
    Queued,
    Active(CancellationToken),
    /// Until then, or until something changes.
    Resting(Instant),
}

/// Everything that is wanted and not here.
#[derive(Debug)]
pub(crate) struct Downloads {
    pending: HashMap<EntryKey, Pending>,
    small: VecDeque<EntryKey>,
    big: VecDeque<EntryKey>,
    small_tasks: usize,
    big_tasks: usize,
    pending_bytes: u64,
    /// How many were not tried yet. What nobody has must not stop everything else.
    untried: usize,
    /// Unfinished files that nobody waits for any more.
    left: Vec<OsString>,
}

/// What the folder's disk has against what is wanted.
#[derive(Debug, Default)]
pub(crate) struct DiskTrouble {
    bytes_needed: Option<u64>,
    read_only: bool,
    failed: Option<String>,
}

impl DiskTrouble {
    /// Each kind of trouble, and whether it is there.
    pub(crate) fn reasons(self) -> [(Reason, bool); 3] {
        let Self {
            bytes_needed,
            read_only,
            failed,
        } = self;
        let (full, broken) = (bytes_needed.is_some(), failed.is_some());
        let bytes_needed = bytes_needed.unwrap_or_default();
        let message = failed.unwrap_or_default();
        [
            (Reason::NoSpace { bytes_needed }, full),
            (Reason::ReadOnlyDisk, read_only),
            (Reason::Io { message }, broken),
        ]
    }
}

/// What transfers need of the folder.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) store: Store,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) tmp: Arc<Temporary>,
    pub(crate) cancel: CancellationToken,
}

impl Downloads {
    pub(crate) fn new() -> Self {
        Self {
            pending: HashMap::new(),
            small: VecDeque::new(),
            big: VecDeque::new(),
            small_tasks: 0,
            big_tasks: 0,
            pending_bytes: 0,
            untried: 0,
            left: Vec::new(),
        }
    }

    /// Asks for a content. Asking again for the same is fine; another content for the same entry replaces the old wish.
    pub(crate) fn want(&mut self, want: Want) {
        if let Some(pending) = self.pending.get(&want.key) {
            if pending.want == want {
                return;
            }
            self.forget(&want.key);
        }
        // A member may claim any size: the sum must not overflow, and is only shown.
        self.pending_bytes = self.pending_bytes.saturating_add(want.content.size);
        self.queue(want.key, want.content.size);
        let pending = Pending {
            stuck: None,
            tries: 0,
            stage: Stage::Queued,
            want,
        };
        self.pending.insert(pending.want.key, pending);
        self.untried += 1;
    }

    /// The entry is gone or has what it needs.
    pub(crate) fn forget(&mut self, key: &EntryKey) {
        if let Some(old) = self.pending.remove(key) {
            self.untried -= usize::from(old.tries == 0);
            self.pending_bytes = self.pending_bytes.saturating_sub(old.want.content.size);
            match old.stage {
                Stage::Active(cancel) => cancel.cancel(),
                Stage::Queued | Stage::Resting(_) => self.left.push(old.want.partial_name()),
            }
        }
    }

    /// Unfinished files to remove, unless somebody wants them again.
    pub(crate) fn take_left(&mut self) -> Vec<OsString> {
        if self.left.is_empty() {
            return Vec::new();
        }
        let wanted = self.partial_names();
        let mut left = std::mem::take(&mut self.left);
        left.retain(|name| !wanted.contains(name));
        left
    }

    /// Something changed in the mesh: ask for everything again.
    pub(crate) fn poke(&mut self) {
        self.wake(|_until| true);
    }

    /// Starts what there is room for.
    pub(crate) fn start(&mut self, tasks: &mut JoinSet<Vec<Fetched>>, means: &Means) {
        let now = Instant::now();
        self.wake(|until| until <= now);
        while self.small_tasks < SMALL_TASKS {
            let batch = take(
                &mut self.small,
                &mut self.pending,
                BATCH_FILES,
                BATCH_BYTES,
                means,
            );
            if batch.files.is_empty() {
                break;
            }
            self.small_tasks += 1;
            tasks.spawn(batch.run(means.clone()));
        }
        while self.big_tasks < BIG_TASKS {
            let batch = take(&mut self.big, &mut self.pending, 1, u64::MAX, means);
            if batch.files.is_empty() {
                break;
            }
            self.big_tasks += 1;
            tasks.spawn(batch.run(means.clone()));
        }
    }

    /// Takes the outcome of one task. What came is given back; what did not waits here.
    pub(crate) fn finished(&mut self, fetched: Vec<Fetched>) -> Vec<Arc<PartialFile>> {
        let small = fetched
            .first()
            .is_some_and(|one| one.file.want().content.size <= SMALL_BYTES);
        let tasks = if small {
            &mut self.small_tasks
        } else {
            &mut self.big_tasks
        };
        *tasks = tasks.saturating_sub(1);
        let mut complete = Vec::new();
        for Fetched { file, result } in fetched {
            let current = self.pending.get_mut(&file.want().key);
            let Some(pending) = current.filter(|pending| pending.want == *file.want()) else {
                // Superseded while it was on its way.
                self.left.push(file.name().to_owned());
                continue;
            };
            match result {
                Ok(()) => {
                    let key = pending.want.key;
                    self.forget(&key);
                    complete.push(file);
                }
                Err(stuck) => {
                    let key = pending.want.key;
                    self.rests(&key, stuck);
                }
            }
        }
        complete
    }

    /// A try failed: it is tried again after a pause.
    fn rests(&mut self, key: &EntryKey, stuck: Stuck) {
        if let Some(pending) = self.pending.get_mut(key) {
            self.untried -= usize::from(pending.tries == 0);
            pending.stage = Stage::Resting(Instant::now() + stuck.rest(pending.tries));
            pending.tries += 1;
            pending.stuck = Some(stuck);
        }
    }

    /// When the next rest is over.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let resting = self
            .pending
            .values()
            .filter_map(|pending| match pending.stage {
                Stage::Resting(until) => Some(until),
                Stage::Queued | Stage::Active(_) => None,
            });
        resting.min()
    }

    /// Whether the engine should pause comparing.
    pub(crate) fn is_full(&self) -> bool {
        self.untried >= QUEUE || self.pending.len() >= MAX_PENDING
    }

    /// The names of the unfinished files of everything that is wanted.
    pub(crate) fn partial_names(&self) -> HashSet<OsString> {
        let wants = self.pending.values().map(|pending| &pending.want);
        wants.map(Want::partial_name).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What an entry waits for.
    pub(crate) fn waiting_for(&self, key: &EntryKey) -> Option<WaitingFor> {
        self.pending.get(key).map(Pending::waiting_for)
    }

    /// Fills in the pending part of a status.
    pub(crate) fn describe(&self, status: &mut FolderStatus) {
        status.pending_files = self.pending.len() as u64;
        status.pending_bytes = self.pending_bytes;
        let waiting = self.pending.values().map(|pending| Waiting {
            path: Arc::clone(&pending.want.label),
            bytes: pending.want.content.size,
            reason: pending.waiting_for(),
        });
        status.pending = waiting.take(FolderStatus::LISTED).collect();
        status
            .pending
            .sort_by(|one, other| one.path.cmp(&other.path));
    }

    /// Whether the disk is too full for what is wanted.
    pub(crate) fn lacks_space(&self) -> bool {
        let full = Some(Stuck::Disk(Fault::NoSpace));
        self.pending.values().any(|pending| pending.stuck == full)
    }

    /// What the disk has against what is wanted: each trouble is one for people, however many files meet it.
    pub(crate) fn disk_trouble(&self) -> DiskTrouble {
        let mut trouble = DiskTrouble::default();
        for pending in self.pending.values() {
            match &pending.stuck {
                Some(Stuck::Disk(Fault::NoSpace)) => {
                    let bytes = trouble.bytes_needed.unwrap_or_default();
                    let bytes = bytes.saturating_add(pending.want.content.size);
                    trouble.bytes_needed = Some(bytes);
                }
                Some(Stuck::Disk(Fault::ReadOnly)) => trouble.read_only = true,
                Some(Stuck::Disk(Fault::Io(said))) => trouble.failed = Some(said.clone()),
                Some(Stuck::Holder) | None => {}
            }
        }
        trouble
    }

    fn queue(&mut self, key: EntryKey, size: u64) {
        let queue = if size <= SMALL_BYTES {
            &mut self.small
        } else {
            &mut self.big
        };
        queue.push_back(key);
    }

    fn wake(&mut self, ready: impl Fn(Instant) -> bool) {
        let mut woken = Vec::new();
        for (key, pending) in &mut self.pending {
            if matches!(pending.stage, Stage::Resting(until) if ready(until)) {
                pending.stage = Stage::Queued;
                woken.push((*key, pending.want.content.size));
            }
        }
        for (key, size) in woken {
            self.queue(key, size);
        }
    }
}

struct TransferBatch {
    files: Vec<Arc<PartialFile>>,
    cancel: CancellationToken,
}

fn take(
    queue: &mut VecDeque<EntryKey>,
    pending: &mut HashMap<EntryKey, Pending>,
    files: usize,
    bytes: u64,
    means: &Means,
) -> TransferBatch {
    let mut batch = TransferBatch {
        files: Vec::new(),
        cancel: means.cancel.child_token(),
    };
    let mut total = 0u64;
    while batch.files.len() < files
        && total < bytes
        && let Some(key) = queue.pop_front()
    {
        // Forgotten, replaced and taken already, or woken twice.
        let Some(found) = pending.get_mut(&key) else {
            continue;
        };
        if !matches!(found.stage, Stage::Queued) {
            continue;
        }
        let want = found.want.clone();
        let Some(file) = PartialFile::claim(want, &means.tmp, means.store.clone()) else {
            found.stage = Stage::Resting(Instant::now() + OWNED_PAUSE);
            continue;
        };
        // Cancelling one file must not cancel the others of its batch: only a batch of one is cancelled.
        let cancel = if files == 1 {
            batch.cancel.clone()
        } else {
            CancellationToken::new()
        };
        found.stage = Stage::Active(cancel);
        // Trouble with the disk stands until this try says otherwise.
        found.stuck.take_if(|stuck| *stuck == Stuck::Holder);
        total = total.saturating_add(found.want.content.size);
        batch.files.push(Arc::new(file));
    }
    batch
}

impl TransferBatch {
    async fn run(self, means: Means) -> Vec<Fetched> {
        let files = self.files;
        let store = means.store.clone();
        let filled = blocking(move || fill_from_here(files, &store)).await;
        let Some((files, local)) = filled else {
            return Vec::new();
        };
        let jobs: Vec<FetchJob> = files.iter().map(job).collect();
        let fetched = if jobs.is_empty() {
            Vec::new()
        } else {
            means.source.fetch(jobs, self.cancel).await
        };
        let mut results: Vec<Fetched> = files
            .into_iter()
            .zip(fetched)
            .map(|(file, result)| Fetched {
                result: result.map_err(|why| stuck(&file, &why)),
                file,
            })
            .collect();
        results.extend(local.into_iter().map(|file| Fetched {
            file,
            result: Ok(()),
        }));
        blocking(move || seal(results, &means.tmp))
            .await
            .unwrap_or_default()
    }
}

/// `None` when the runtime is stopping.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_cancelled) => None,
    }
}

/// Splits into what has to be fetched and what could be made of chunks that are on this device.
fn fill_from_here(
    files: Vec<Arc<PartialFile>>,
    store: &Store,
) -> (Vec<Arc<PartialFile>>, Vec<Arc<PartialFile>>) {
    files.into_iter().partition(|file| {
        let content = file.want().content;
        let known = store
            .missing_manifest(&content)
            .is_ok_and(|missing| missing.is_empty());
        !(known && file.prepare(&content, 0).is_ok_and(|lack| lack.is_empty()))
    })
}

fn job(file: &Arc<PartialFile>) -> FetchJob {
    let want = file.want();
    FetchJob {
        content: want.content,
        label: Arc::clone(&want.label),
        sink: Arc::clone(file) as Arc<dyn ChunkSink>,
    }
}

fn stuck(file: &PartialFile, failure: &FetchFailure) -> Stuck {
    match failure {
        FetchFailure::NoHolder | FetchFailure::Stopped | FetchFailure::Cancelled => Stuck::Holder,
        FetchFailure::Sink(error) => {
            tracing::warn!(path = %file.want().label, %error, "cannot write a fetched file");
            let fault = file.fault();
            if fault == Some(Fault::NoSpace) {
                // Half of a file must not take the room that others would fit into.
                file.discard();
            }
            Stuck::Disk(fault.unwrap_or_else(|| Fault::Io(error.to_string())))
        }
    }
}

/// Gives all files their attributes and makes them durable before any of them is moved into place.
fn seal(mut fetched: Vec<Fetched>, tmp: &Temporary) -> Vec<Fetched> {
    let complete = fetched.iter().filter(|one| one.result.is_ok()).count();
    let together = complete >= SYNC_TOGETHER;
    let durable = if together {
        Durable::Later
    } else {
        Durable::Now
    };
    for one in &mut fetched {
        if one.result.is_ok()
            && let Err(error) = one.file.seal(durable)
        {
            tracing::warn!(path = %one.file.want().label, %error, "cannot finish a fetched file");
            one.result = Err(Stuck::Disk(Fault::of(&error)));
        }
    }
    if together && let Err(error) = beneath::sync_file_system(tmp.dir().as_fd()) {
        tracing::warn!(%error, "cannot sync the folder's file system");
        for one in &mut fetched {
            if one.result.is_ok() {
                one.result = Err(Stuck::Disk(Fault::of(&error)));
            }
        }
    }
    fetched
}

#[cfg(test)]
mod tests {
    use wormhole_crdt::{EntryId, Mode, Timestamp};
    use wormhole_store::{Content, ContentId};

    use super::*;

    fn want(number: usize) -> Want {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Want {
            key: EntryKey::from(EntryId::from_bytes(id)),
            content: Content {
                id: ContentId::from_bytes([1; 32]),
                size: 3,
            },
            mode: Mode::FILE,
            mtime: Timestamp(0),
            label: Arc::from("file"),
        }
    }

    #[test]
    fn what_nobody_has_does_not_stop_what_others_have() {
        let mut downloads = Downloads::new();
        for number in 0..QUEUE {
            downloads.want(want(number));
        }
        assert!(downloads.is_full());
        for number in 0..QUEUE {
            downloads.rests(&want(number).key, Stuck::Holder);
        }
        assert!(!downloads.is_full());
        // Also when all are asked for once more.
        downloads.poke();
        assert!(!downloads.is_full());
        for number in 0..QUEUE {
            downloads.forget(&want(number).key);
        }
        downloads.want(want(0));
        assert!(!downloads.is_full());
    }
}
