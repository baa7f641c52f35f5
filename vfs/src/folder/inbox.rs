//! Where the replica's news wait for the actor: which entries changed, each once, bounded.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use wormhole_crdt::{Change, Entries, EntryKey, Observer};

/// More changed entries than this are not listed: the whole tree is compared.
const MAX_KEYS: usize = 65_536;

/// The observer that a folder subscribes to its replica.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    news: Mutex<News>,
    notify: Notify,
}

/// What has changed since the actor last asked.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) keys: HashSet<EntryKey>,
    /// More than can be listed.
    pub(crate) everything: bool,
}

impl Inbox {
    /// Takes all news.
    pub(crate) fn take(&self) -> News {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn is_empty(&self) -> bool {
        let news = self.lock();
        news.keys.is_empty() && !news.everything
    }

    /// Waits for news. Cancel-safe.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        // Every change of the set is complete in itself.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Inbox {
    fn changed(&self, change: &Change) {
        let mut news = self.lock();
        match &change.entries {
            Entries::Listed(entries) => news.keys.extend(entries.iter().map(|entry| entry.key)),
            Entries::Everything => news.everything = true,
        }
        if news.keys.len() > MAX_KEYS {
            news.keys = HashSet::new();
            news.everything = true;
        }
        drop(news);
        self.notify.notify_one();
    }
}
