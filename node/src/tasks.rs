//! The owner of every task in this crate.
//!
//! [`Tasks::spawn`] tracks, names and cancels; nothing else here may start a task. A task that
//! panics stops the node ([`Tasks::failed`]): half a node that looks alive is worse than none.
//! Work on the blocking pool is awaited by the task that started it and needs no owner of its own.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Starts tasks and stops them together. A clone is a handle to the same set.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    failed: watch::Sender<Option<&'static str>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            cancel: CancellationToken::new(),
            failed: watch::Sender::new(None),
        }
    }

    /// Cancelled when the set stops; tasks watch it.
    #[must_use]
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Starts a task under a name that its log lines carry.
    ///
    /// # Errors
    /// [`Closed`] once the set is stopping; the future is then dropped unpolled.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Result<(), Closed>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.tracker.is_closed() {
            return Err(Closed);
        }
        let failed = self.failed.clone();
        let span = tracing::info_span!("task", name);
        let task = async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                tracing::error!(name, "a task panicked: this is a fault of the program");
                failed.send_if_modified(|first| {
                    let is_first = first.is_none();
                    first.get_or_insert(name);
                    is_first
                });
            }
        };
        self.tracker.spawn(task.instrument(span));
        Ok(())
    }

    /// Waits for the first task that panics and returns its name. Cancel safe.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(name) = *failed.borrow_and_update() {
                return name;
            }
            if failed.changed().await.is_err() {
                // We hold a sender ourselves, so this cannot happen; waiting is right if it does.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Refuses new tasks, cancels those that run, and waits for all of them.
    pub async fn stop(&self) {
        self.tracker.close();
        self.cancel.cancel();
        self.tracker.wait().await;
    }

    /// How many tasks run now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task runs now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

/// The set is stopping and takes no more tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct Closed;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_cancels_and_joins_every_task() {
        let tasks = Tasks::new();
        for _ in 0..10 {
            let cancel = tasks.cancel().clone();
            tasks
                .spawn("waiter", async move { cancel.cancelled().await })
                .unwrap();
        }
        assert_eq!(tasks.len(), 10);
        tasks.stop().await;
        assert!(tasks.is_empty());
        assert_eq!(tasks.spawn("late", async {}), Err(Closed));
    }

    #[tokio::test]
    async fn a_panic_is_reported_by_name_and_does_not_hang_the_stop() {
        let tasks = Tasks::new();
        tasks
            .spawn("clumsy", async { panic!("on purpose") })
            .unwrap();
        assert_eq!(tasks.failed().await, "clumsy");
        tasks.stop().await;
    }
}
