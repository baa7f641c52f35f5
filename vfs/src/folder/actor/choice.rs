//! What the actor does next: saves first, then what came from the mesh, then comparing, then what can wait.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use wormhole_crdt::EntryKey;

use super::work::Work;
use super::{
    AUDIT_WATCHES, Actor, CLEAR_TRASH, Clearing, FLUSH, IMPORTS, READ_AGAIN, RECHECK, STEP,
};
use crate::folder::name;

impl Actor {
    /// Trouble may have passed; the folder itself may have gone.
    pub(super) fn recheck(&mut self, now: Instant) {
        self.next_check = now + RECHECK;
        self.look_for_ground();
        let Some(engine) = &mut self.engine else {
            return;
        };
        if self.stopped.is_some() || self.paused {
            return;
        }
        if !engine.held.is_empty() {
            self.vanished.ask();
        }
        let too_much = engine.trash.is_over();
        self.untidy |= engine.problems.at(Path::new(name::TMP)).is_some();
        for path in engine.problems.paths() {
            self.settle.again(path, now, Duration::ZERO);
        }
        self.keys.extend(self.refused.drain());
        // The next look may be as far away as the last one was.
        if now + RECHECK > self.next_watch_audit {
            self.next_watch_audit = now + AUDIT_WATCHES;
            self.watch_audit.get_or_insert(None);
        }
        if self.downloads.lacks_space() {
            self.clearing = Clearing::Now;
        } else if now >= self.next_clearing || too_much {
            self.next_clearing = now + CLEAR_TRASH;
            self.clearing = Clearing::WhenIdle;
        }
    }

    pub(super) fn start_imports(&mut self) {
        while self.imports.len() < IMPORTS
            && let Some(look) = self.import_queue.pop_front()
            && let Some(engine) = &self.engine
        {
            let (store, file) = (engine.store.clone(), engine.file_path(&look.path));
            self.imports.spawn_blocking(move || {
                let imported = store.import_reference(&file);
                (look, imported)
            });
        }
    }

    pub(super) fn next_work(&mut self) -> Option<Work> {
        if self.paused || self.stopped.is_some() {
            return None;
        }
        let now = Instant::now();
        if self
            .unflushed
            .is_some_and(|since| now.duration_since(since) >= FLUSH)
        {
            return Some(Work::Flush);
        }
        let left = self.downloads.take_left();
        if !left.is_empty() {
            return Some(Work::DropParts(left));
        }
        let due = self.settle.take_due(now, STEP);
        if !due.is_empty() {
            return Some(Work::Check(due));
        }
        if let Some((look, result)) = self.imported.pop_front() {
            return Some(Work::Imported(look, result));
        }
        // What is new is looked at before anything is replaced or removed: it may want the bytes of that.
        if !self.keys.is_empty() && !self.downloads.is_full() {
            return Some(Work::Apply(take_some(&mut self.keys)));
        }
        if !self.complete.is_empty() {
            let rest = self.complete.split_off(self.complete.len().min(STEP));
            return Some(Work::Finish(std::mem::replace(&mut self.complete, rest)));
        }
        if !self.gone_keys.is_empty() && self.keys.is_empty() && self.audit.is_empty() {
            return Some(Work::Withdraw(take_some(&mut self.gone_keys)));
        }
        if !self.walk.is_idle() {
            return Some(Work::Scan(std::mem::take(&mut self.walk)));
        }
        // Last of what the disk has to say: what is missing may have turned up under another name by now.
        if self.vanished.due(now).is_some_and(|due| due <= now) {
            return Some(Work::Judge(self.vanished.take()));
        }
        if !self.audit.is_empty() && !self.downloads.is_full() {
            return Some(Work::Audit(std::mem::take(&mut self.audit)));
        }
        // Until everything that is wanted has come, it may be wanted from the trash.
        if self.clearing == Clearing::Now
            || (self.clearing == Clearing::WhenIdle && self.downloads.is_empty())
        {
            self.clearing = Clearing::No;
            return Some(Work::ClearTrash);
        }
        if let Some(after) = self.watch_audit.take() {
            return Some(Work::AuditWatches(after));
        }
        if !self.doubted.is_empty() {
            let some = std::iter::from_fn(|| self.doubted.pop_first());
            return Some(Work::ReadAgain(some.take(READ_AGAIN).collect()));
        }
        if self.untidy
            && self.complete.is_empty()
            && self.keys.is_empty()
            && self.blocked.is_empty()
        {
            self.untidy = false;
            return Some(Work::Tidy(self.downloads.partial_names()));
        }
        let renew = self.renewal(now).is_some_and(|at| at <= now);
        (renew || self.unflushed.is_some()).then_some(Work::Flush)
    }
}

/// Takes as many as one step works on.
fn take_some(keys: &mut HashSet<EntryKey>) -> Vec<EntryKey> {
    let some: Vec<EntryKey> = keys.iter().take(STEP).copied().collect();
    for key in &some {
        keys.remove(key);
    }
    some
}
