//! The folder's task: decides what to do next and lends the engine to the blocking pool for it, one short step at a time.
//!
//! Saves go first, then what came from the mesh, then comparing everything; so a scan of a million files or a download of
//! 100 GB never stands in the way of a 4 KiB save. Nothing in here touches the disk.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wormhole_crdt::{EntryId, EntryKey, Subscription};
use wormhole_store::{ImportError, Imported};

use self::work::{Done, Work, perform};
use super::download::{Downloads, Fetched, Means};
use super::engine::{Engine, Look, Todo};
use super::inbox::Inbox;
use super::partial::PartialFile;
use super::record::Answer;
use super::restore::{RestoreError, Restored};
use super::scan::{Walk, Walked};
use super::settle::{Hint, Quiet, Settle};
use super::status::{Explanation, FolderStatus, Phase, Reason, StopReason};
use super::trash::Trashed;
use super::vanished::{Extent, Vanished};
use super::watch::Trouble;
use crate::error::FolderError;

mod again;
mod choice;
mod report;
mod work;

/// Trouble that may pass by itself is tried again this often, and the marker is looked at.
const RECHECK: Duration = Duration::from_secs(30);
/// It is looked whether the watches are where they should be: what was missed is found within this.
const AUDIT_WATCHES: Duration = Duration::from_secs(60);
/// Deferred work is made durable, and so told to others, at least this often.
const FLUSH: Duration = Duration::from_secs(1);
/// Paths, entries or files taken in one step.
const STEP: usize = 256;
/// The trash is looked through for what is too old.
const CLEAR_TRASH: Duration = Duration::from_secs(3600);
/// Renamed files read again in one step, and how many are remembered: more are found by comparing everything.
const READ_AGAIN: usize = 8;
const MAX_DOUBTED: usize = 65_536;
/// Big files hashed at the same time.
const IMPORTS: usize = 2;
/// How often an entry is tried at once when something on disk stood in its way; then it waits.
const EAGER_TRIES: u32 = 3;
const BLOCKED_PAUSE: Duration = Duration::from_secs(5);

/// What the handle asks.
#[derive(Debug)]
pub(crate) enum Command {
    Explain {
        path: PathBuf,
        answer: oneshot::Sender<Explanation>,
    },
    Trash {
        answer: oneshot::Sender<Result<Vec<Trashed>, RestoreError>>,
    },
    Restore {
        path: PathBuf,
        version: u64,
        answer: oneshot::Sender<Result<Restored, RestoreError>>,
    },
    Rescan,
    Pause,
    Resume,
    Poke,
    /// What a person says of the deletions that they were shown.
    AnswerHeld {
        list: u64,
        answer: Answer,
        reply: oneshot::Sender<Option<u64>>,
    },
    Stop,
}

/// The task's state.
pub(crate) struct Actor {
    /// Away only while a step runs.
    engine: Option<Box<Engine>>,
    hints: mpsc::Receiver<(PathBuf, Hint)>,
    trouble: Arc<Trouble>,
    inbox: Arc<Inbox>,
    _subscription: Subscription,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<FolderStatus>,
    means: Means,
    cancel: CancellationToken,
    settle: Settle,
    /// Renamed files that are read again when there is nothing else to do.
    doubted: BTreeSet<PathBuf>,
    /// The directories that are watched are being looked at, from there on.
    watch_audit: Option<Option<PathBuf>>,
    downloads: Downloads,
    transfers: JoinSet<Vec<Fetched>>,
    imports: JoinSet<(Look, Result<Imported, ImportError>)>,
    import_queue: VecDeque<Look>,
    imported: VecDeque<(Look, Result<Imported, ImportError>)>,
    complete: Vec<Arc<PartialFile>>,
    keys: HashSet<EntryKey>,
    /// Not shown by the mesh any more; taken from disk when all `keys` were looked at.
    gone_keys: HashSet<EntryKey>,
    /// Tried when what stands in their way was looked at.
    blocked: HashSet<EntryKey>,
    tries: HashMap<EntryKey, u32>,
    /// Tried again with the problems that were reported of them.
    refused: HashSet<EntryKey>,
    blocked_until: Option<Instant>,
    walk: Walk,
    vanished: Vanished,
    audit: Vec<EntryId>,
    /// Unfinished files may be left that nobody waits for: to be removed after the comparison.
    untidy: bool,
    /// The trash is to be looked through.
    clearing: Clearing,
    next_clearing: Instant,
    /// Something was missed while everything was being compared: it is compared once more.
    scan_again: bool,
    next_scan: Instant,
    next_check: Instant,
    next_watch_audit: Instant,
    unflushed: Option<Instant>,
    paused: bool,
    stopped: Option<StopReason>,
}

/// What an actor is made of.
pub(crate) struct Parts {
    pub(crate) engine: Result<Box<Engine>, StopReason>,
    pub(crate) hints: mpsc::Receiver<(PathBuf, Hint)>,
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) subscription: Subscription,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) status: watch::Sender<FolderStatus>,
    pub(crate) means: Means,
    pub(crate) cancel: CancellationToken,
    /// Entries that a crash left on their way.
    pub(crate) keys: Vec<EntryKey>,
}

impl Actor {
    pub(crate) fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let quiet = match &parts.engine {
            Ok(engine) => engine.config.quiet,
            Err(_) => Quiet::default(),
        };
        let (engine, stopped, base) = match parts.engine {
            Ok(engine) => {
                let base = engine.config.base;
                (Some(engine), None, base)
            }
            Err(reason) => (None, Some(reason), EntryId::ROOT),
        };
        Self {
            engine,
            hints: parts.hints,
            inbox: parts.inbox,
            _subscription: parts.subscription,
            commands: parts.commands,
            status: parts.status,
            means: parts.means,
            cancel: parts.cancel,
            settle: Settle::new(quiet),
            doubted: BTreeSet::new(),
            watch_audit: None,
            downloads: Downloads::new(),
            transfers: JoinSet::new(),
            imports: JoinSet::new(),
            import_queue: VecDeque::new(),
            imported: VecDeque::new(),
            complete: Vec::new(),
            keys: parts.keys.into_iter().collect(),
            gone_keys: HashSet::new(),
            blocked: HashSet::new(),
            tries: HashMap::new(),
            refused: HashSet::new(),
            blocked_until: None,
            walk: Walk::whole(),
            vanished: Vanished::default(),
            audit: vec![base],
            untidy: true,
            clearing: Clearing::WhenIdle,
            next_clearing: now + CLEAR_TRASH,
            scan_again: false,
            next_scan: now + parts.trouble.rescan_every(),
            next_check: now + RECHECK,
            next_watch_audit: now + AUDIT_WATCHES,
            unflushed: None,
            trouble: parts.trouble,
            paused: false,
            stopped,
        }
    }

    /// Runs until it is stopped or cancelled; joins everything it started.
    pub(crate) async fn run(mut self) {
        while !self.cancel.is_cancelled() {
            self.gather();
            match self.next_work() {
                Some(work) => self.step(work).await,
                None => {
                    self.publish();
                    if self.wait().await == Next::Stop {
                        break;
                    }
                }
            }
        }
        self.shut_down().await;
    }

    /// Takes in everything that has happened, without waiting.
    fn gather(&mut self) {
        let now = Instant::now();
        while let Ok((path, hint)) = self.hints.try_recv() {
            self.hear(path, hint, now);
        }
        let news = self.inbox.take();
        self.keys.extend(news.keys);
        if news.everything {
            self.start_audit();
        }
        if self.trouble.is_limited()
            && let Some(engine) = &mut self.engine
        {
            engine.problems.report_folder(Reason::WatchLimit);
            self.next_scan = self.next_scan.min(now + self.trouble.rescan_every());
        }
        let lost = self.trouble.take_lost();
        let comparing = self.walk.is_whole() && !self.walk.is_idle();
        if self.settle.take_overflow() || lost || (now >= self.next_scan && !comparing) {
            self.scan_again = true;
        }
        // One that is under way is never cut short, and what it found missing is judged before the next.
        if self.scan_again && !comparing && !self.vanished.is_pending() {
            self.start_scan(now);
        }
        if self.blocked_until.is_some_and(|until| now >= until) {
            self.blocked_until = None;
            self.keys.extend(self.blocked.drain());
        }
        if self.trouble.take_doubt() {
            self.look_for_ground();
        }
        if now >= self.next_check {
            self.recheck(now);
        }
        if !self.paused && self.stopped.is_none() {
            self.downloads.start(&mut self.transfers, &self.means);
            self.start_imports();
        }
    }

    fn hear(&mut self, path: PathBuf, hint: Hint, now: Instant) {
        if hint == Hint::Vanished {
            self.vanished.heard(now);
        }
        self.settle.hint(path, hint, now);
    }

    async fn step(&mut self, work: Work) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        // Read first: what comes from now on is not looked at.
        let known = engine.replica.vector();
        let behind = !self.keys.is_empty()
            || !self.blocked.is_empty()
            || !self.audit.is_empty()
            || !self.inbox.is_empty();
        engine.caught_up = (!behind).then_some(known);
        let ran = tokio::task::spawn_blocking(move || {
            let done = perform(&mut engine, work);
            (engine, done)
        });
        match ran.await {
            Ok((engine, done)) => {
                self.engine = Some(engine);
                match done {
                    Ok(done) => self.after(done),
                    Err(error) => self.fail(&error),
                }
            }
            // redb panics over a page that makes no sense. This folder stops for that, and nothing else.
            Err(error) if error.is_panic() => {
                tracing::error!("a step of the folder panicked");
                self.stop(StopReason::StateFailed);
            }
            // The runtime is going down, and with it this task.
            Err(_cancelled) => self.stopped = Some(StopReason::Asked),
        }
    }

    fn after(&mut self, done: Done) {
        match done {
            Done::Flushed(doubtful) => {
                self.unflushed = None;
                for path in doubtful {
                    self.walk.add(path);
                }
            }
            Done::Todo(todo) => {
                // What stood in the way has been looked at.
                if self.blocked_until.is_none() {
                    self.keys.extend(self.blocked.drain());
                }
                self.take_todo(todo);
            }
            Done::Applied(keys, todo) => {
                for key in keys.iter().filter(|key| !todo.blocked.contains(key)) {
                    self.tries.remove(key);
                }
                self.take_todo(todo);
            }
            Done::Audited(rest, todo) => {
                self.audit = rest;
                self.take_todo(todo);
            }
            Done::WatchesAudited(next, todo) => {
                self.watch_audit = next.map(Some);
                self.take_todo(todo);
            }
            Done::Scanned(walk, walked, todo) => {
                self.walk = walk;
                if let Walked::Done(extent) = walked {
                    if self.blocked_until.is_none() {
                        self.keys.extend(self.blocked.drain());
                    }
                    if extent == Extent::Whole {
                        self.compared();
                    }
                }
                self.take_todo(todo);
            }
            Done::Answered(reply, entries, todo) => {
                self.take_todo(todo);
                self.publish();
                // The caller stopped waiting.
                let _unheard = reply.send(entries);
            }
            Done::Judged(todo) => {
                // What waited for a deletion to be recorded goes on.
                self.blocked_until = None;
                self.keys.extend(self.blocked.drain());
                self.take_todo(todo);
            }
        }
        self.publish_now_and_then();
    }

    pub(super) fn take_todo(&mut self, todo: Todo) {
        let now = Instant::now();
        for key in &todo.unwanted {
            self.downloads.forget(key);
        }
        for want in todo.wants {
            self.downloads.want(want);
        }
        self.import_queue.extend(todo.imports);
        for path in todo.paths {
            self.settle.again(path, now, Duration::ZERO);
        }
        for (path, pause) in todo.later {
            self.settle.again(path, now, pause);
        }
        for path in todo.scans {
            self.walk.add(path);
        }
        for path in todo.lists {
            self.walk.add_names(path);
        }
        if todo.audit {
            self.start_audit();
        }
        self.untidy |= todo.untidy;
        self.doubted.extend(todo.doubted);
        if self.doubted.len() > MAX_DOUBTED {
            self.doubted.clear();
            self.scan_again = true;
        }
        self.vanished.add(todo.gone, now);
        if todo.ask_held {
            self.vanished.ask();
        }
        self.keys.extend(todo.keys);
        self.gone_keys.extend(todo.gone_keys);
        self.refused.extend(todo.refused);
        for key in todo.blocked {
            let tries = self.tries.entry(key).or_insert(0);
            *tries += 1;
            if *tries > EAGER_TRIES {
                self.blocked_until = Some(now + BLOCKED_PAUSE);
            }
            self.blocked.insert(key);
        }
        let looking = !self.settle.is_empty() || !self.walk.is_idle() || self.vanished.is_pending();
        if !self.blocked.is_empty() && !looking {
            // Nothing is going to be looked at that could free them.
            self.blocked_until.get_or_insert(now + BLOCKED_PAUSE);
        }
        if self.downloads.is_empty()
            && let Some(engine) = &mut self.engine
        {
            engine.wanted.clear();
        }
        if todo.progress {
            self.unflushed.get_or_insert(now);
        }
    }

    pub(super) fn fail(&mut self, error: &FolderError) {
        let reason = match error {
            FolderError::Stopped(reason) => reason.clone(),
            FolderError::State(_) | FolderError::Replica(_) | FolderError::Store(_) => {
                tracing::error!(error = error as &dyn std::error::Error, "the folder stops");
                StopReason::StateFailed
            }
        };
        self.stop(reason);
    }

    fn stop(&mut self, reason: StopReason) {
        tracing::error!(%reason, "the folder stops");
        self.stopped = Some(reason);
        self.publish();
    }

    /// When there is something to do again, if nothing happens until then.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        if self.paused || self.stopped.is_some() {
            // Nothing is done; what is due meanwhile must not wake this task over and over.
            return now + RECHECK;
        }
        let first = [
            self.settle.next_due(),
            self.vanished.due(now),
            self.downloads.next_retry(),
            self.blocked_until,
            self.renewal(now),
            Some(self.next_scan),
        ];
        first
            .into_iter()
            .flatten()
            .fold(self.next_check, Instant::min)
    }

    async fn wait(&mut self) -> Next {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Next::Stop,
            command = self.commands.recv() => match command {
                Some(command) => return self.command(command).await,
                // The last handle is gone.
                None => return Next::Stop,
            },
            Some((path, hint)) = self.hints.recv() => {
                self.hear(path, hint, Instant::now());
            }
            () = self.inbox.wait() => {}
            () = self.trouble.wait() => {}
            Some(fetched) = self.transfers.join_next() => {
                self.complete.extend(self.downloads.finished(joined(fetched)));
            }
            Some(imported) = self.imports.join_next() => self.imported.push_back(joined(imported)),
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        Next::Go
    }

    async fn command(&mut self, command: Command) -> Next {
        match command {
            Command::Explain { path, answer } => {
                let explanation = self.explain(path).await;
                // The caller stopped waiting.
                drop(answer.send(explanation));
            }
            Command::Trash { answer } => {
                let trashed = self.trashed().await;
                // The caller stopped waiting.
                drop(answer.send(trashed));
            }
            Command::Restore {
                path,
                version,
                answer,
            } => {
                let restored = self.restore(path, version).await;
                // The caller stopped waiting.
                drop(answer.send(restored));
            }
            Command::Rescan => {
                self.scan_again = true;
                self.start_audit();
            }
            Command::Pause => self.paused = true,
            Command::Resume => self.paused = false,
            Command::Poke => self.downloads.poke(),
            Command::AnswerHeld {
                list,
                answer,
                reply,
            } => {
                if !self.paused && self.stopped.is_none() {
                    self.step(Work::AnswerHeld(list, answer, reply)).await;
                }
            }
            Command::Stop => return Next::Stop,
        }
        Next::Go
    }

    /// Whoever waits for the end hears of it last, when the commands go with everything else: the folder may then be
    /// opened anew.
    async fn shut_down(mut self) {
        self.means.cancel.cancel();
        while self.transfers.join_next().await.is_some() {}
        while self.imports.join_next().await.is_some() {}
        if let Some(mut engine) = self.engine.take() {
            engine.renewal.hurry();
            let flushed = tokio::task::spawn_blocking(move || engine.flush()).await;
            if let Ok(Err(error)) = flushed {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the last flush failed"
                );
            }
        }
        let phase = Phase::Stopped(self.stopped.take().unwrap_or(StopReason::Asked));
        self.status.send_modify(|status| {
            status.phase = phase;
            status.settled = false;
        });
    }
}

/// Whether the trash is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clearing {
    No,
    WhenIdle,
    Now,
}

/// Whether the actor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Stop,
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only `shut_down` could abort them, and it waits for them instead.
            Err(cancelled) => unreachable!("a transfer was aborted: {cancelled}"),
        },
    }
}
