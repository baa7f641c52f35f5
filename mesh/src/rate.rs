//! How fast a counter of bytes rises, for status pages: looked at now and then, by anybody.

use std::time::Duration;

use tokio::time::Instant;

/// The rate is that of about this long.
const WINDOW: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Rate {
    since: Instant,
    bytes: u64,
    last: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
            last: 0,
        }
    }
}

impl Rate {
    /// Bytes per second, when the counter stands at `bytes`.
    pub(crate) fn now(&mut self, bytes: u64) -> u64 {
        let elapsed = self.since.elapsed();
        let nanos = elapsed.as_nanos().max(1);
        let fresh = u128::from(bytes.saturating_sub(self.bytes)) * 1_000_000_000 / nanos;
        let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
        if elapsed >= WINDOW {
            *self = Self {
                since: Instant::now(),
                bytes,
                last: fresh,
            };
        }
        if self.last == 0 { fresh } else { self.last }
    }
}
