//! What the actor looks at again: everything, and the ground that the folder stands on.

use std::time::Instant;

use super::Actor;
use crate::folder::scan::Walk;
use crate::folder::status::Reason;

impl Actor {
    pub(super) fn start_scan(&mut self, now: Instant) {
        self.scan_again = false;
        let mut walk = Walk::whole();
        std::mem::swap(&mut walk, &mut self.walk);
        self.next_scan = now + self.trouble.rescan_every();
        self.trouble.try_again();
    }

    /// Everything was compared, and every directory is watched that can be.
    pub(super) fn compared(&mut self) {
        self.next_scan = Instant::now() + self.trouble.rescan_every();
        self.vanished.ask();
        if !self.trouble.is_limited()
            && let Some(engine) = &mut self.engine
        {
            engine.problems.clear_folder(&Reason::WatchLimit);
        }
    }

    pub(super) fn start_audit(&mut self) {
        if let Some(engine) = &self.engine {
            self.audit = vec![engine.config.base];
            self.untidy = true;
        }
    }

    /// The folder itself may have gone.
    pub(super) fn look_for_ground(&mut self) {
        if self.stopped.is_none()
            && let Some(engine) = &self.engine
            && let Err(reason) = engine.is_itself()
        {
            self.stop(reason);
        }
    }

    /// When the marker is to be renewed, which nobody has to wait for.
    pub(super) fn renewal(&self, now: Instant) -> Option<Instant> {
        self.engine.as_ref()?.renewal.at(now)
    }
}
