//! What the actor tells people: the status after each step, and answers to "why is this file not synced?".

use std::path::PathBuf;

use super::Actor;
use crate::error::FolderError;
use crate::folder::engine::{Engine, Outcome, Todo};
use crate::folder::explain::Found;
use crate::folder::restore::{RestoreError, Restored};
use crate::folder::status::{Explanation, FolderStatus, Phase, Reason, StopReason, WaitingFor};
use crate::folder::trash::Trashed;

impl Actor {
    pub(super) async fn explain(&mut self, path: PathBuf) -> Explanation {
        if let Some(reason) = &self.stopped {
            return Explanation::Stopped(reason.clone());
        }
        let Some(mut engine) = self.engine.take() else {
            return Explanation::Unknown;
        };
        let asked = path.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let found = match engine.is_itself() {
                Ok(()) => engine.explain(&asked),
                Err(reason) => Err(FolderError::Stopped(reason)),
            };
            (engine, found)
        });
        let Ok((engine, found)) = ran.await else {
            return Explanation::Stopped(StopReason::Asked);
        };
        self.engine = Some(engine);
        match found {
            Ok(Found::Answer(answer)) => answer,
            Ok(Found::Absent(key)) => match self.downloads.waiting_for(&key) {
                Some(reason) => Explanation::Waiting(reason),
                None => Explanation::Waiting(WaitingFor::Transfer),
            },
            Ok(Found::Unrecorded) if self.settle.is_waiting(&path) => Explanation::Settling,
            Ok(Found::Unrecorded) => Explanation::Unrecorded,
            Err(FolderError::Stopped(reason)) => {
                self.stop(reason.clone());
                Explanation::Stopped(reason)
            }
            Err(error) => Explanation::Problem(Reason::Io {
                message: error.to_string(),
            }),
        }
    }

    pub(super) async fn trashed(&mut self) -> Result<Vec<Trashed>, RestoreError> {
        self.with_engine(|engine| Ok((engine.trashed(), Todo::default())))
            .await
    }

    pub(super) async fn restore(
        &mut self,
        path: PathBuf,
        version: u64,
    ) -> Result<Restored, RestoreError> {
        self.with_engine(move |engine| {
            let (todo, restored) = engine.restore(&path, version)?;
            Ok((restored, todo))
        })
        .await
    }

    /// Lends the engine to one question of a person.
    async fn with_engine<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Engine) -> Outcome<(Result<T, RestoreError>, Todo)> + Send + 'static,
    ) -> Result<T, RestoreError> {
        if let Some(reason) = &self.stopped {
            return Err(RestoreError::Stopped(reason.clone()));
        }
        let asked = || RestoreError::Stopped(StopReason::Asked);
        let mut engine = self.engine.take().ok_or_else(asked)?;
        let ran = tokio::task::spawn_blocking(move || {
            let done = match engine.is_itself() {
                Ok(()) => work(&mut engine),
                Err(reason) => Err(FolderError::Stopped(reason)),
            };
            (engine, done)
        });
        let (engine, done) = ran.await.map_err(|_cancelled| asked())?;
        self.engine = Some(engine);
        match done {
            Ok((answer, todo)) => {
                self.take_todo(todo);
                answer
            }
            Err(error) => {
                self.fail(&error);
                let reason = self.stopped.clone().unwrap_or(StopReason::StateFailed);
                Err(RestoreError::Stopped(reason))
            }
        }
    }

    pub(super) fn publish_now_and_then(&mut self) {
        let applying = !self.keys.is_empty() || !self.gone_keys.is_empty();
        if !self.walk.is_idle() || !self.audit.is_empty() || applying {
            self.publish();
        }
    }

    pub(super) fn publish(&mut self) {
        let Some(engine) = &mut self.engine else {
            let phase = self.stopped.clone().map_or(Phase::Scanning, Phase::Stopped);
            self.status.send_if_modified(|status| {
                replace(
                    status,
                    FolderStatus {
                        phase,
                        ..FolderStatus::default()
                    },
                )
            });
            return;
        };
        for (reason, is_there) in self.downloads.disk_trouble().reasons() {
            if is_there {
                engine.problems.report_folder(reason);
            } else {
                engine.problems.clear_folder(&reason);
            }
        }
        let comparing = self.scan_again || !self.walk.is_idle() || !self.audit.is_empty();
        let busy = comparing
            || !self.settle.is_empty()
            || self.vanished.is_pending()
            || !self.doubted.is_empty()
            || !self.keys.is_empty()
            || !self.gone_keys.is_empty()
            || !self.blocked.is_empty()
            || !self.complete.is_empty()
            || !self.imports.is_empty()
            || !self.import_queue.is_empty()
            || !self.imported.is_empty()
            || self.unflushed.is_some()
            || !self.downloads.is_empty()
            || !self.inbox.is_empty();
        // What the system refuses is tried again, and may be refused for ever.
        let at_rest = !busy;
        let busy = busy || !self.refused.is_empty();
        let phase = match (&self.stopped, self.paused) {
            (Some(reason), _) => Phase::Stopped(reason.clone()),
            (None, true) => Phase::Paused,
            (None, false) if comparing => Phase::Scanning,
            (None, false) if busy => Phase::Syncing,
            (None, false) => Phase::UpToDate,
        };
        let mut status = FolderStatus {
            settled: phase == Phase::UpToDate && engine.held.is_empty(),
            at_rest: at_rest && self.stopped.is_none() && !self.paused,
            phase,
            counts: engine.counts(),
            held: engine.held.shown().clone(),
            trash: engine.trash.size(),
            ..FolderStatus::default()
        };
        self.downloads.describe(&mut status);
        engine.problems.describe(&mut status);
        self.status.send_if_modified(|old| replace(old, status));
    }
}

fn replace(old: &mut FolderStatus, new: FolderStatus) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}
