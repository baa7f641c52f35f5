//! When to dial which device again: a pure table of deadlines.
//!
//! Every member of an attached mesh should be connected. A device that is not is dialled at once when
//! something suggests that it is there (it was seen on the LAN, an address was given), and otherwise with
//! growing pauses. The clock and the jitter are arguments; the actor does the dialling.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use wormhole_crdt::DeviceId;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause. A device that comes home is found by discovery much sooner.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Hints do not make us dial more often than this.
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// Hints that are followed in a row ...
const MAX_HINTS: u32 = 4;

/// ... and how often one more. Anybody on the local network can give them, in the name of any device and with any
/// address: that must not make us knock everywhere. Beyond them the growing pauses hold.
const HINT_EVERY: Duration = Duration::from_secs(15);

/// Who should be connected, and when to try again.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    devices: BTreeMap<DeviceId, Try>,
    hints: BTreeMap<DeviceId, Hints>,
}

/// Hints about one device that may still be followed.
#[derive(Clone, Copy, Debug)]
struct Hints {
    left: u32,
    since: Instant,
}

impl Hints {
    fn take(&mut self, now: Instant) -> bool {
        while self.left < MAX_HINTS && now.saturating_duration_since(self.since) >= HINT_EVERY {
            self.left += 1;
            self.since += HINT_EVERY;
        }
        if self.left == MAX_HINTS {
            self.since = now;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

#[derive(Clone, Copy, Debug)]
enum Try {
    /// It is connected.
    Up,
    /// A dial is under way.
    Dialling { failures: u32 },
    /// The next dial is due.
    At {
        due: Instant,
        failures: u32,
        last: Option<Instant>,
    },
}

impl Keeper {
    /// Replaces the set of devices to stay connected to. Says who is new and who has left.
    pub(super) fn want(
        &mut self,
        wanted: &BTreeSet<DeviceId>,
        is_connected: impl Fn(&DeviceId) -> bool,
        now: Instant,
    ) -> (Vec<DeviceId>, Vec<DeviceId>) {
        let gone: Vec<_> = self
            .devices
            .keys()
            .filter(|device| !wanted.contains(device))
            .copied()
            .collect();
        for device in &gone {
            self.devices.remove(device);
            self.hints.remove(device);
        }
        let new: Vec<_> = wanted
            .iter()
            .filter(|device| !self.devices.contains_key(device))
            .copied()
            .collect();
        for device in &new {
            let state = if is_connected(device) {
                Try::Up
            } else {
                Try::At {
                    due: now,
                    failures: 0,
                    last: None,
                }
            };
            self.devices.insert(*device, state);
        }
        (new, gone)
    }

    /// Whether we want to be connected to it.
    pub(super) fn wants(&self, device: &DeviceId) -> bool {
        self.devices.contains_key(device)
    }

    /// The first moment at which somebody is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = |state: &Try| match state {
            Try::At { due, .. } => Some(*due),
            Try::Up | Try::Dialling { .. } => None,
        };
        self.devices.values().filter_map(due).min()
    }

    /// Who is due now. They count as being dialled until one of the calls below.
    pub(super) fn due(&mut self, now: Instant) -> Vec<DeviceId> {
        let mut devices = Vec::new();
        for (device, state) in &mut self.devices {
            if let Try::At { due, failures, .. } = *state
                && due <= now
            {
                *state = Try::Dialling { failures };
                devices.push(*device);
            }
        }
        devices
    }

    /// The device is connected.
    pub(super) fn up(&mut self, device: &DeviceId) {
        if let Some(state) = self.devices.get_mut(device) {
            *state = Try::Up;
        }
    }

    /// The last connection to the device is gone. `jitter` (0 to 1) keeps two sides from dialling at
    /// the same moment.
    pub(super) fn down(&mut self, device: &DeviceId, now: Instant, jitter: f64) {
        if let Some(state) = self.devices.get_mut(device) {
            let due = now + MIN_PAUSE.mul_f64(jitter);
            *state = Try::At {
                due,
                failures: 0,
                last: None,
            };
        }
    }

    /// A dial failed, or could not even be tried. Spreads the next by `jitter` (0 to 1).
    pub(super) fn failed(&mut self, device: &DeviceId, now: Instant, jitter: f64) {
        if let Some(state) = self.devices.get_mut(device) {
            let failures = match *state {
                Try::Dialling { failures } | Try::At { failures, .. } => failures,
                Try::Up => return,
            };
            let pause = FIRST_PAUSE
                .saturating_mul(1 << failures.min(16))
                .min(LAST_PAUSE);
            let due = now + pause.mul_f64(0.75 + jitter / 2.0);
            *state = Try::At {
                due,
                failures: failures.saturating_add(1),
                last: Some(now),
            };
        }
    }

    /// Something suggests that the device can be reached now.
    pub(super) fn hint(&mut self, device: &DeviceId, now: Instant) {
        let Some(Try::At { due, last, .. }) = self.devices.get_mut(device) else {
            return;
        };
        let soonest = last.map_or(now, |last| now.max(last + MIN_PAUSE));
        if soonest >= *due {
            return;
        }
        let hints = self.hints.entry(*device).or_insert(Hints {
            left: MAX_HINTS,
            since: now,
        });
        if hints.take(now) {
            *due = soonest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    fn keeper(now: Instant) -> Keeper {
        let mut keeper = Keeper::default();
        let (new, gone) = keeper.want(&BTreeSet::from([device(1)]), |_| false, now);
        assert_eq!((new, gone), (vec![device(1)], vec![]));
        keeper
    }

    #[test]
    fn a_wanted_device_is_dialled_at_once_and_then_with_growing_pauses() {
        let start = Instant::now();
        let mut keeper = keeper(start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(keeper.due(now), [device(1)]);
            assert_eq!(keeper.due(now), [], "not again while it is being dialled");
            keeper.failed(&device(1), now, 0.5);
            let next = keeper.next().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_hint_ends_the_pause() {
        let now = Instant::now();
        let mut keeper = keeper(now);
        for _ in 0..5 {
            let _due = keeper.due(now);
            keeper.failed(&device(1), now, 0.5);
        }
        keeper.hint(&device(1), now);
        assert_eq!(keeper.due(now), [], "but not into a hammer");
        assert_eq!(keeper.due(now + MIN_PAUSE), [device(1)]);
    }

    #[test]
    fn a_flood_of_hints_makes_us_dial_a_few_times_and_other_devices_keep_theirs() {
        let start = Instant::now();
        let mut keeper = keeper(start);
        let both = BTreeSet::from([device(1), device(2)]);
        keeper.want(&both, |_| false, start);
        let mut dials = 0;
        for tick in 0..600 {
            let now = start + tick * Duration::from_millis(100);
            keeper.hint(&device(1), now);
            for due in keeper.due(now) {
                dials += u32::from(due == device(1));
                keeper.failed(&due, now, 0.5);
            }
        }
        // A minute: the hints in a row, four more, and the six or seven dials that are due without any.
        assert!(dials <= MAX_HINTS + 4 + 7, "{dials} dials");
        let now = start + Duration::from_secs(60);
        keeper.hint(&device(2), now);
        assert_eq!(keeper.due(now + MIN_PAUSE).last(), Some(&device(2)));
    }

    #[test]
    fn a_connected_device_is_left_alone_and_a_lost_one_is_dialled_soon() {
        let now = Instant::now();
        let mut keeper = keeper(now);
        let _due = keeper.due(now);
        keeper.up(&device(1));
        keeper.hint(&device(1), now);
        assert_eq!(keeper.next(), None);
        keeper.down(&device(1), now, 1.0);
        assert_eq!(keeper.next(), Some(now + MIN_PAUSE));
    }

    #[test]
    fn who_is_not_wanted_any_more_is_forgotten() {
        let now = Instant::now();
        let mut keeper = keeper(now);
        let (new, gone) = keeper.want(&BTreeSet::from([device(2)]), |_| true, now);
        assert_eq!((new, gone), (vec![device(2)], vec![device(1)]));
        assert_eq!(keeper.next(), None, "the new one is connected already");
        assert!(!keeper.wants(&device(1)));
    }
}
