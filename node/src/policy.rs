//! Which content is fetched without anybody reading it: on a seed, all of it.
//!
//! Synced folders fetch what they show by themselves; a mount fetches what is read. A [`Seed`] walks
//! the live contents of its mesh and brings each into the store that is not there. News of single
//! entries is taken from a bounded list; when that is lost, a member is present that was not, or
//! what did not come may be wanted no more, the tree is walked again.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wormhole_crdt::{Entry, EntryChange, EntryId, EntryPath, Replica, StorageError};
use wormhole_mesh::{FetchError, Hindrance};
use wormhole_store::{Content, FetchJob, Holding, Store, WriteError};

use crate::api::Phase;
use crate::event::EventKind;
use crate::node::{LocalMesh, Node, blocking};

/// Jobs in one request to the network: enough to keep it busy, few enough to see progress.
const BATCH: usize = 512;

/// Single contents that may wait; more are found by walking the tree.
const WAITING: usize = 65_536;

/// What did not come is tried again after this long at first: no event tells when a disk has room,
/// or when a connected member has got what it lacked. Each time in vain doubles the pause.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LAST: Duration = Duration::from_secs(10 * 60);

/// What a seed is still to fetch, and what it has.
#[derive(Debug, Default)]
pub(crate) struct Seed {
    state: Mutex<SeedState>,
}

#[derive(Debug, Clone)]
struct SeedState {
    /// Whether the tree must be walked, because what is wanted is not all in `waiting`.
    walk: bool,
    waiting: VecDeque<(Content, Arc<str>)>,
    progress: SeedProgress,
    /// What did not come when it was tried last.
    failed: SeedProgress,
}

/// How far a seed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SeedProgress {
    /// Contents that are wanted and not here yet, as far as is known.
    pub(crate) missing: u64,
    /// Their bytes.
    pub(crate) missing_bytes: u64,
    /// Why nothing comes, when nothing does.
    pub(crate) obstacle: Option<Obstacle>,
    /// Whether the seed has looked at everything and has it.
    pub(crate) complete: bool,
}

impl From<Obstacle> for Hindrance {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::NoHolder => Self::NoHolder,
            Obstacle::Disk => Self::Failed,
            Obstacle::Full => Self::DiskFull,
        }
    }
}

/// Why a seed does not get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// No connected member has what is missing.
    NoHolder,
    /// The store cannot write.
    Disk,
    /// The store's disk is full.
    Full,
}

impl Default for SeedState {
    fn default() -> Self {
        Self {
            walk: true,
            waiting: VecDeque::new(),
            progress: SeedProgress::default(),
            failed: SeedProgress::default(),
        }
    }
}

impl SeedProgress {
    /// What the seed does, as people are told.
    pub(crate) fn phase(&self, paused: bool) -> Phase {
        match (paused, self.complete) {
            (true, _) => Phase::Paused,
            (false, true) => Phase::UpToDate,
            (false, false) => Phase::Syncing,
        }
    }
}

impl Seed {
    /// Wants the contents of these entries, or of all.
    pub(crate) fn want(&self, entries: Option<&[EntryChange]>) {
        self.reconsider(entries);
        let mut state = self.lock();
        state.progress.complete = false;
        let Some(entries) = entries.filter(|list| state.waiting.len() + list.len() <= WAITING)
        else {
            state.walk = true;
            return;
        };
        for entry in entries.iter().filter_map(|change| change.after.as_ref()) {
            if let Some(file) = &entry.file {
                let label = Arc::from(entry.name.display().to_string());
                state.waiting.push_back((file.content, label));
            }
        }
    }

    /// What did not come may be wanted no more: these entries, or any, changed.
    pub(crate) fn reconsider(&self, entries: Option<&[EntryChange]>) {
        let let_go = |change: &EntryChange| {
            let content = |entry: &Entry| entry.file.as_ref().map(|file| file.content);
            let before = change.before.as_ref().and_then(content);
            before.is_some() && before != change.after.as_ref().and_then(content)
        };
        let mut state = self.lock();
        if state.failed.missing > 0 && entries.is_none_or(|list| list.iter().any(let_go)) {
            state.walk = true;
        }
    }

    /// How far the seed is.
    pub(crate) fn progress(&self) -> SeedProgress {
        self.lock().progress
    }

    fn lock(&self) -> MutexGuard<'_, SeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a seed full until its mesh stops.
pub(crate) async fn fill(node: Node, mesh: Arc<LocalMesh>, seed: Arc<Seed>) {
    let mut teller = Teller::new(&node, &mesh);
    let mut pause = RETRY_FIRST;
    loop {
        let before = seed.lock().failed;
        let progress = match fill_once(&node, &mesh, &seed, &mut teller).await {
            Ok(progress) => progress,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(mesh = mesh.name(), error, "a seed cannot read the metadata");
                seed.lock().walk = true;
                SeedProgress {
                    obstacle: Some(Obstacle::Disk),
                    ..SeedProgress::default()
                }
            }
        };
        seed.lock().progress = progress;
        mesh.stir.notify_one();
        teller.tell(&progress);
        if progress.missing_bytes < before.missing_bytes {
            pause = RETRY_FIRST;
        }
        tokio::select! {
            biased;
            () = mesh.stop.cancelled() => return,
            () = mesh.wake.notified() => if seed.lock().walk {
                pause = RETRY_FIRST;
            },
            () = tokio::time::sleep(pause), if may_retry(&node, &mesh, &progress) => {
                pause = (pause * 2).min(RETRY_LAST);
                seed.lock().walk = true;
            }
        }
    }
}

/// Whether trying again can help though nothing happens. A mesh that is paused, and a device that is
/// alone, are woken when that ends.
fn may_retry(node: &Node, mesh: &LocalMesh, progress: &SeedProgress) -> bool {
    let is_alone = || node.network().sync_state(mesh.id()).is_empty();
    match progress.obstacle {
        _ if progress.complete || mesh.record().paused => false,
        Some(Obstacle::Disk | Obstacle::Full) => true,
        Some(Obstacle::NoHolder) | None => !is_alone(),
    }
}

/// Tells the people who follow when a seed begins to do something else.
struct Teller<'a> {
    node: &'a Node,
    mesh: &'a LocalMesh,
    told: Option<Phase>,
}

impl<'a> Teller<'a> {
    fn new(node: &'a Node, mesh: &'a LocalMesh) -> Self {
        Self {
            node,
            mesh,
            told: None,
        }
    }

    fn tell(&mut self, progress: &SeedProgress) {
        let phase = progress.phase(self.mesh.record().paused);
        if self.told.replace(phase) == Some(phase) {
            return;
        }
        self.node.events().raise(EventKind::FolderPhase {
            mesh: self.mesh.reference(),
            dir: None,
            phase,
            reason: None,
        });
    }
}

/// Fetches all that is wanted now.
async fn fill_once(
    node: &Node,
    mesh: &LocalMesh,
    seed: &Seed,
    teller: &mut Teller<'_>,
) -> Result<SeedProgress, StorageError> {
    let (is_walk, waiting, failed) = {
        let mut state = seed.lock();
        let is_walk = std::mem::take(&mut state.walk);
        (is_walk, std::mem::take(&mut state.waiting), state.failed)
    };
    let (replica, store) = (mesh.replica().clone(), mesh.store().clone());
    let mut missing = blocking(move || match is_walk {
        true => walk(&replica, &store),
        false => Ok(absent(&store, waiting)),
    })
    .await?;
    // A walk finds again what did not come before; a list adds to it.
    let mut left = match is_walk {
        true => SeedProgress::default(),
        false => failed,
    };
    while !missing.is_empty() && !mesh.stop.is_cancelled() {
        let progress = count(&missing, left);
        seed.lock().progress = progress;
        teller.tell(&progress);
        let rest = missing.split_off(missing.len().min(BATCH));
        let batch = std::mem::replace(&mut missing, rest);
        for (content, error) in fetch(node, mesh, batch).await {
            left.missing += 1;
            left.missing_bytes += content.size;
            left.obstacle = Some(match error {
                FetchError::NoHolder
                | FetchError::Paused
                | FetchError::Cancelled
                | FetchError::Stopped => Obstacle::NoHolder,
                FetchError::Sink(WriteError::NoSpace { .. }) => Obstacle::Full,
                FetchError::Sink(_) => Obstacle::Disk,
            });
        }
    }
    let mut state = seed.lock();
    state.failed = left;
    left.complete = left.missing == 0 && state.waiting.is_empty() && !state.walk;
    Ok(left)
}

fn count(missing: &[(Content, Arc<str>)], left: SeedProgress) -> SeedProgress {
    let bytes: u64 = missing.iter().map(|(content, _)| content.size).sum();
    SeedProgress {
        missing: left.missing + missing.len() as u64,
        missing_bytes: left.missing_bytes + bytes,
        complete: false,
        ..left
    }
}

/// Fetches a batch into the store and makes it durable; gives back what did not come.
async fn fetch(
    node: &Node,
    mesh: &LocalMesh,
    batch: Vec<(Content, Arc<str>)>,
) -> Vec<(Content, FetchError)> {
    let job = |(content, label): &(Content, Arc<str>)| FetchJob {
        content: *content,
        label: label.clone(),
        sink: Arc::new(mesh.store().clone()),
    };
    let jobs = batch.iter().map(job).collect();
    let cancel: CancellationToken = mesh.stop.child_token();
    let results = node.network().fetch(mesh.id(), jobs, cancel).await;
    let store = mesh.store().clone();
    if let Err(error) = blocking(move || store.commit()).await {
        let error = &error as &dyn std::error::Error;
        tracing::error!(
            mesh = mesh.name(),
            error,
            "a seed cannot keep what it fetched"
        );
    }
    let failed = batch
        .into_iter()
        .zip(results)
        .filter_map(|((content, label), result)| {
            let error = result.err()?;
            tracing::debug!(path = &*label, %error, "a seed did not get a content");
            Some((content, error))
        });
    failed.collect()
}

/// Every live content that is not whole in the store, with the path to show for it.
fn walk(replica: &Replica, store: &Store) -> Result<Vec<(Content, Arc<str>)>, StorageError> {
    let mut missing = Vec::new();
    replica.walk(EntryId::ROOT, &mut |path: &EntryPath, entry| {
        if let Some(file) = &entry.file
            && !is_here(store, &file.content)
        {
            missing.push((file.content, Arc::from(path.display().to_string())));
        }
        ControlFlow::Continue(())
    })?;
    Ok(missing)
}

fn absent(store: &Store, waiting: VecDeque<(Content, Arc<str>)>) -> Vec<(Content, Arc<str>)> {
    waiting
        .into_iter()
        .filter(|(content, _)| !is_here(store, content))
        .collect()
}

/// Whether every byte of a content is in the store. One that cannot be read is as good as absent.
pub(crate) fn is_here(store: &Store, content: &Content) -> bool {
    content.is_empty()
        || match store.holding(content) {
            Ok(Holding::All) => true,
            Ok(Holding::None | Holding::Some(_) | Holding::NoManifest) | Err(_) => false,
        }
}

#[cfg(test)]
mod tests;
