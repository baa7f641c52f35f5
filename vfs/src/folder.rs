//! The synced folder: a directory on this device and a mesh's tree, kept the same in both directions.
//!
//! [`Folder`] is the handle. Behind it one task (`actor`) decides what to do next and one engine does it on the blocking
//! pool: `scan` and `watch` find out what changed on disk, `record` says it to the mesh (deletions when `vanished` has
//! them all, if `guard` lets them pass), `apply` shows on disk what the mesh says, `plan` decides between the two,
//! `download` brings contents. `state` remembers what was last synced, `ground` looks whether the directory is still
//! there. What happens to files that cannot be synced is in `status`: they are reported, never dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{Observer, Replica};
use wormhole_store::Store;

use self::actor::{Actor, Command, Parts};
use self::config::FolderConfig;
use self::download::Means;
use self::engine::Engine;
use self::ground::Ground;
use self::inbox::Inbox;
use self::record::Answer;
use self::restore::{RestoreError, Restored};
use self::status::{Explanation, FolderStatus, Phase, StopReason};
use self::trash::Trashed;
use self::watch::{QUEUED_HINTS, Trouble, Watcher};
use crate::error::OpenError;
use crate::source::Source;

mod actor;
mod apply;
mod base;
mod beneath;
pub mod config;
mod download;
mod engine;
mod explain;
mod ground;
mod guard;
mod held;
mod ignore;
mod inbox;
mod marker;
mod name;
mod owner;
mod partial;
mod plan;
mod problem;
mod record;
mod renewal;
pub mod restore;
mod scan;
mod settle;
mod stamp;
mod start;
mod state;
pub mod status;
mod taken;
mod temporary;
pub mod trash;
mod vanished;
mod watch;

#[cfg(test)]
mod tests;

/// Commands that wait for the task; callers wait when it is full.
const QUEUED_COMMANDS: usize = 64;

/// Whoever asks how a folder is does not wait longer for a disk that hangs.
const LOOK: Duration = Duration::from_secs(1);

/// Runs a folder; the caller spawns it and waits for it.
pub type FolderTask = BoxFuture<'static, ()>;

/// The handle of a synced folder. Clones speak to the same folder; when the last one is dropped, it stops.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
    commands: mpsc::Sender<Command>,
    status: channel::Receiver<FolderStatus>,
    /// None of a folder that must not be touched.
    ground: Option<Arc<Ground>>,
    afresh: bool,
    trouble: Arc<Trouble>,
}

impl Folder {
    /// Opens a folder and gives its task, which has to be spawned. Blocks for a few file operations.
    ///
    /// A new folder gets its marker. One whose marker is gone or foreign starts as [`Phase::Stopped`]: nothing in it is
    /// touched and nothing is deleted anywhere.
    ///
    /// # Errors
    /// The directory or the folder's own files cannot be opened. Nothing is left running.
    pub fn start(
        config: FolderConfig,
        replica: Replica,
        store: Store,
        source: Arc<dyn Source>,
        cancel: CancellationToken,
    ) -> Result<(Self, FolderTask), OpenError> {
        let trouble = Arc::new(Trouble::default());
        Self::start_with(config, replica, store, source, cancel, trouble)
    }

    /// `trouble` is where the watcher says what it could not tell one by one.
    fn start_with(
        config: FolderConfig,
        replica: Replica,
        store: Store,
        source: Arc<dyn Source>,
        cancel: CancellationToken,
        trouble: Arc<Trouble>,
    ) -> Result<(Self, FolderTask), OpenError> {
        let dir = config.dir.clone();
        // Subscribed first: what changes from here on is heard of.
        let inbox = Arc::new(Inbox::default());
        let subscription = replica.subscribe(Arc::clone(&inbox) as Arc<dyn Observer>);
        let (hint_sender, hints) = mpsc::channel(QUEUED_HINTS);
        let opened = Engine::open(config, replica, store.clone())?;
        let (commands, inputs) = mpsc::channel(QUEUED_COMMANDS);
        let (status_sender, status) = channel::channel(FolderStatus::default());
        let folder = Self {
            dir: dir.clone(),
            commands,
            status,
            ground: opened
                .as_ref()
                .ok()
                .map(|engine| Arc::clone(&engine.ground)),
            afresh: opened.as_ref().is_ok_and(|engine| engine.afresh),
            trouble: Arc::clone(&trouble),
        };
        let (engine, means, keys) = match opened {
            Ok(mut engine) => {
                let watcher = Watcher::start(&engine.root, hint_sender, Arc::clone(&trouble));
                engine.watcher = match watcher {
                    Ok(watcher) => Some(watcher),
                    Err(error) => {
                        tracing::warn!(%error, "no watcher: the folder is scanned now and then");
                        trouble.deafen();
                        None
                    }
                };
                let keys = engine
                    .recover()
                    .map_err(|source| OpenError::Recover { dir, source })?;
                let tmp = Arc::clone(&engine.tmp);
                let means = Means {
                    store,
                    source,
                    tmp,
                    cancel: cancel.child_token(),
                };
                (Ok(Box::new(engine)), means, keys)
            }
            Err(reason) => {
                status_sender.send_modify(|status| status.phase = Phase::Stopped(reason.clone()));
                let task = stopped(inputs, cancel);
                return Ok((folder, Box::pin(task)));
            }
        };
        let actor = Actor::new(Parts {
            engine,
            hints,
            trouble,
            inbox,
            subscription,
            commands: inputs,
            status: status_sender,
            means,
            cancel,
            keys,
        });
        Ok((folder, Box::pin(actor.run())))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether its directory is a copy that was made earlier, so that it began without the memory of the last sync:
    /// nothing in it counts as deleted, and what differs is kept beside what the mesh shows.
    pub fn began_afresh(&self) -> bool {
        self.afresh
    }

    /// What it is doing now.
    pub fn status(&self) -> FolderStatus {
        self.status.borrow().clone()
    }

    /// What it is doing now, after a look whether its directory is still in its place: that is not noticed at once by
    /// itself when a directory above was moved or a disk was unmounted.
    pub async fn checked_status(&self) -> FolderStatus {
        let status = self.status();
        let Some(ground) = &self.ground else {
            return status;
        };
        if matches!(status.phase, Phase::Stopped(_)) {
            return status;
        }
        let ground = Arc::clone(ground);
        let looked = tokio::task::spawn_blocking(move || ground.is_itself());
        match tokio::time::timeout(LOOK, looked).await {
            Ok(Ok(Err(reason))) => {
                self.trouble.doubt();
                FolderStatus {
                    phase: Phase::Stopped(reason),
                    settled: false,
                    ..status
                }
            }
            // A disk that does not answer is told by what waits for it.
            Ok(Ok(Ok(())) | Err(_)) | Err(_) => status,
        }
    }

    /// Follows what it is doing; only the newest status is kept.
    pub fn watch(&self) -> channel::Receiver<FolderStatus> {
        self.status.clone()
    }

    /// Why a path (relative to the folder) is or is not synced.
    pub async fn explain(&self, path: impl Into<PathBuf>) -> Explanation {
        let (answer, explanation) = oneshot::channel();
        let command = Command::Explain {
            path: path.into(),
            answer,
        };
        if self.commands.send(command).await.is_err() {
            return Explanation::Stopped(self.stop_reason());
        }
        match explanation.await {
            Ok(explanation) => explanation,
            Err(_gone) => Explanation::Stopped(self.stop_reason()),
        }
    }

    /// Compares everything now, whatever the watches say.
    pub async fn rescan(&self) {
        self.tell(Command::Rescan).await;
    }

    /// Neither records nor applies anything until [`Folder::resume`]. Transfers under way end first.
    pub async fn pause(&self) {
        self.tell(Command::Pause).await;
    }

    /// Goes on after [`Folder::pause`].
    pub async fn resume(&self) {
        self.tell(Command::Resume).await;
    }

    /// A device connected or has news: asks again for contents that nobody had.
    pub async fn poke(&self) {
        self.tell(Command::Poke).await;
    }

    /// Everything that changes from elsewhere removed or replaced here and that is kept.
    ///
    /// # Errors
    /// The trash cannot be read, or the folder is stopped.
    pub async fn trash(&self) -> Result<Vec<Trashed>, RestoreError> {
        let (answer, trashed) = oneshot::channel();
        self.tell(Command::Trash { answer }).await;
        self.answered(trashed).await
    }

    /// Brings something back from the trash to where it stood: a file in its last version (1) or one before, or everything
    /// that is kept of a directory. What stands there now goes into the trash.
    ///
    /// # Errors
    /// A [`RestoreError`]; then nothing, or some files of a directory, came back.
    pub async fn restore(
        &self,
        path: impl Into<PathBuf>,
        version: u64,
    ) -> Result<Restored, RestoreError> {
        let (answer, restored) = oneshot::channel();
        let path = path.into();
        self.tell(Command::Restore {
            path,
            version,
            answer,
        })
        .await;
        self.answered(restored).await
    }

    async fn answered<T>(
        &self,
        answer: oneshot::Receiver<Result<T, RestoreError>>,
    ) -> Result<T, RestoreError> {
        match answer.await {
            Ok(answer) => answer,
            Err(_gone) => Err(RestoreError::Stopped(self.stop_reason())),
        }
    }

    /// A person confirms the deletions that are held back: this list of them, as the status showed it. Answers how many
    /// entries those are; `None` when it is another list by now, and then nothing was done.
    pub async fn confirm_deletions(&self, list: u64) -> Option<u64> {
        self.answer_held(list, Answer::Confirm).await
    }

    /// A person wants back what vanished, as [`Folder::confirm_deletions`] would delete it.
    pub async fn undo_deletions(&self, list: u64) -> Option<u64> {
        self.answer_held(list, Answer::Undo).await
    }

    async fn answer_held(&self, list: u64, answer: Answer) -> Option<u64> {
        let (reply, done) = oneshot::channel();
        self.tell(Command::AnswerHeld {
            list,
            answer,
            reply,
        })
        .await;
        done.await.ok().flatten()
    }

    /// Waits until everything seen on disk is recorded and everything known to the mesh is here. Cancel-safe.
    ///
    /// False when the folder stopped instead. What the kernel has not reported yet is not seen: after writing a file, call
    /// [`Folder::rescan`] first to be certain.
    pub async fn settled(&self) -> bool {
        let mut status = self.status.clone();
        let settled = status
            .wait_for(|status| status.settled || matches!(status.phase, Phase::Stopped(_)))
            .await;
        settled.is_ok_and(|status| status.settled)
    }

    /// Stops, and waits until nothing is under way any more and its database is closed. The caller still waits for the
    /// task itself.
    pub async fn stop(self) {
        self.tell(Command::Stop).await;
        self.commands.closed().await;
    }

    async fn tell(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!(dir = %self.dir.display(), "the folder has stopped");
        }
    }

    fn stop_reason(&self) -> StopReason {
        match &self.status.borrow().phase {
            Phase::Stopped(reason) => reason.clone(),
            Phase::Scanning | Phase::Syncing | Phase::UpToDate | Phase::Paused => StopReason::Asked,
        }
    }
}

/// The task of a folder that must not be touched: it only waits to be told to end.
async fn stopped(mut commands: mpsc::Receiver<Command>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            command = commands.recv() => match command {
                Some(Command::Stop) | None => return,
                // Whoever asks for an explanation is answered from the status.
                Some(_) => {}
            },
        }
    }
}
