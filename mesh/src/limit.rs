//! How fast bytes may go: token buckets, and who takes from which.
//!
//! Content gives way to everything else ([`Urgency`]): under a limit, metadata does not queue behind files.
//! One pair of buckets (up, down) is shared by all streams to known devices, so the limits hold for the
//! whole node. A mesh may have a smaller pair of its own, which its streams take from too; a stranger has
//! one of its own. `throttle` holds streams back, `meter` counts their bytes.

mod meter;
mod throttle;

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(crate) use self::{
    meter::{Meter, Traffic},
    throttle::Throttled,
};
use crate::{serve::message, streams::Protocol};

/// Bandwidth limits: of this node, all meshes and peers together, or of one mesh within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    /// Bytes sent per second; `None` is unlimited.
    pub up: Option<u64>,
    /// Bytes received per second; `None` is unlimited.
    pub down: Option<u64>,
}

/// A bucket holds what may go in this time: short enough to be smooth, long enough to batch.
const BURST: Duration = Duration::from_millis(100);

/// No bucket is smaller, or a slow limit would send single bytes.
const MIN_BURST: u64 = 4 * 1024;

/// Nothing smaller is worth a packet. Under a very low limit larger pieces would look like silence, when
/// several streams take turns.
const MIN_PIECE: u64 = 512;

/// The most that one read or write may take at once, so that streams share a limit fairly.
const MAX_TAKE: usize = 64 * 1024;

/// Bytes per second, each way, for a device that shares no mesh with us: plenty for an invite.
const STRANGER_RATE: u64 = 512 * 1024;

/// What may wait when bandwidth is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Little, and somebody waits for it: hellos, metadata, invites. It may take tokens in advance, up
    /// to a second's worth; content then waits until they have flowed in.
    Talk,
    /// Content, which takes what is left.
    Bulk,
}

impl Urgency {
    /// That of a protocol.
    pub(crate) fn of(protocol: Protocol) -> Self {
        if protocol == message::PROTOCOL {
            Self::Bulk
        } else {
            Self::Talk
        }
    }
}

/// Tokens are bytes; they flow in at the rate and never exceed a burst.
#[derive(Debug, Default)]
struct Bucket {
    /// Bytes per second; 0 is unlimited.
    rate: AtomicU64,
    level: Mutex<Option<Level>>,
}

#[derive(Debug)]
struct Level {
    /// Below zero after [`Urgency::Talk`] took some in advance.
    tokens: i64,
    /// Up to when tokens have flowed in.
    filled: Instant,
}

impl Bucket {
    fn set(&self, rate: Option<u64>) {
        // A limit of zero would mean "never", which is what pausing is for.
        self.rate
            .store(rate.map_or(0, |rate| rate.max(1)), Ordering::Relaxed);
    }

    /// Takes up to `want` bytes, or says when it is worth asking again.
    fn take(&self, want: usize, urgency: Urgency, now: Instant) -> Result<usize, Instant> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 || want == 0 {
            return Ok(want);
        }
        let burst = signed((rate.saturating_mul(BURST.as_millis() as u64) / 1000).max(MIN_BURST));
        let advance = match urgency {
            Urgency::Talk => signed(rate.max(MIN_BURST)),
            Urgency::Bulk => 0,
        };
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let level = level.get_or_insert(Level {
            tokens: burst,
            filled: now,
        });
        let elapsed = now.saturating_duration_since(level.filled);
        let flowed = elapsed.as_nanos().saturating_mul(u128::from(rate)) / 1_000_000_000;
        let flowed = i64::try_from(flowed).unwrap_or(i64::MAX);
        if flowed > 0 {
            level.tokens = level.tokens.saturating_add(flowed).min(burst);
            level.filled = now;
        }
        let want = signed(want.min(MAX_TAKE) as u64);
        let least = want.min(signed((rate / 2).clamp(MIN_PIECE, MIN_BURST)));
        let available = level.tokens.saturating_add(advance);
        // Waiting for a sensible piece is better than dribbling.
        if available < least {
            let missing = u128::from(least.saturating_sub(available).unsigned_abs());
            let wait = Duration::from_nanos(
                u64::try_from(missing * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX),
            );
            return Err(now + wait.clamp(Duration::from_millis(1), Duration::from_secs(1)));
        }
        let grant = want.min(available);
        level.tokens -= grant;
        Ok(usize::try_from(grant).unwrap_or(MAX_TAKE))
    }

    /// Gives back what was taken and not used.
    fn put_back(&self, bytes: usize) {
        if self.rate.load(Ordering::Relaxed) == 0 || bytes == 0 {
            return;
        }
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(level) = level.as_mut() {
            level.tokens = level.tokens.saturating_add(signed(bytes as u64));
        }
    }
}

/// The same number, as far as a debt can be counted.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A pair of limits that streams share.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    up: Bucket,
    down: Bucket,
    /// Those that hold in the place of these now.
    instead: OnceLock<Arc<Self>>,
}

impl Limits {
    /// Those of a node or of a mesh.
    pub(crate) fn new(rates: RateLimits) -> Self {
        let limits = Self::default();
        limits.set(rates);
        limits
    }

    /// What one stranger gets.
    pub(crate) fn stranger() -> Self {
        Self::new(RateLimits {
            up: Some(STRANGER_RATE),
            down: Some(STRANGER_RATE),
        })
    }

    /// From now on `others` hold for the streams that keep to these: a stranger has become a member, and its
    /// streams need not be opened again for that.
    pub(crate) fn give_way_to(&self, others: Arc<Self>) {
        self.instead.get_or_init(|| others);
    }

    fn up(&self) -> &Bucket {
        self.instead.get().map_or(&self.up, |others| &others.up)
    }

    fn down(&self) -> &Bucket {
        self.instead.get().map_or(&self.down, |others| &others.down)
    }

    /// Changes the limits, also for open streams.
    pub(crate) fn set(&self, rates: RateLimits) {
        self.up.set(rates.up);
        self.down.set(rates.down);
    }
}

#[cfg(test)]
mod tests {
    use super::{throttle::poll_take, *};

    #[tokio::test(start_paused = true)]
    async fn streams_share_one_limit() {
        let bucket = Bucket::default();
        bucket.set(Some(1_000_000));
        let start = Instant::now();
        let mut taken = 0;
        for _ in 0..1000 {
            let mut wait = None;
            taken +=
                std::future::poll_fn(|cx| poll_take(&bucket, &mut wait, 10_000, Urgency::Bulk, cx))
                    .await;
        }
        let rate = taken as f64 / start.elapsed().as_secs_f64();
        assert!((900_000.0..1_100_000.0).contains(&rate), "{rate} bytes/s");
    }

    /// Takes `want` bytes and says how long that took.
    async fn wait_for(bucket: &Bucket, want: usize, urgency: Urgency) -> Duration {
        let (start, mut left) = (Instant::now(), want);
        while left > 0 {
            let mut wait = None;
            left -=
                std::future::poll_fn(|cx| poll_take(bucket, &mut wait, left, urgency, cx)).await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn under_a_limit_metadata_does_not_wait_for_content_and_the_limit_still_holds() {
        const RATE: u64 = 64 * 1024;
        const MESSAGE: usize = 2000;
        let bucket = Bucket::default();
        bucket.set(Some(RATE));
        let start = Instant::now();
        let content = async {
            let mut sent = 0;
            while start.elapsed() < Duration::from_secs(20) {
                wait_for(&bucket, 8 * 1024, Urgency::Bulk).await;
                sent += 8 * 1024;
            }
            sent
        };
        let metadata = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(190)).await;
                slowest = slowest.max(wait_for(&bucket, MESSAGE, Urgency::Talk).await);
            }
            slowest
        };
        let (sent, slowest) = tokio::join!(content, metadata);
        assert_eq!(slowest, Duration::ZERO, "a message waited");
        let rate = (sent + 100 * MESSAGE) as f64 / start.elapsed().as_secs_f64();
        let limit = RATE as f64;
        assert!((0.9 * limit..1.1 * limit).contains(&rate), "{rate} bytes/s");
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_alone_keeps_to_the_limit_too() {
        let bucket = Bucket::default();
        bucket.set(Some(100_000));
        let took = wait_for(&bucket, 2_000_000, Urgency::Talk)
            .await
            .as_secs_f64();
        assert!(
            (18.0..21.0).contains(&took),
            "2 MB at 100 kB/s took {took} s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_streams_of_a_stranger_that_became_a_member_are_held_back_no_more() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let limits = Arc::new(Limits::stranger());
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let mut ours = Throttled::new(ours, Arc::clone(&limits), Urgency::Talk);
        let megabytes = 8 * STRANGER_RATE as usize;
        let start = Instant::now();
        let send = async {
            ours.write_all(&vec![0; megabytes / 2]).await.unwrap();
            let as_a_stranger = start.elapsed();
            limits.give_way_to(Arc::default());
            ours.write_all(&vec![0; megabytes / 2]).await.unwrap();
            (as_a_stranger, start.elapsed())
        };
        let mut received = vec![0; megabytes];
        let ((before, after), _) = tokio::join!(send, theirs.read_exact(&mut received));
        assert!(before > Duration::from_secs(2), "{before:?}");
        assert_eq!(after, before, "a member's bytes take no time here");
    }

    #[test]
    fn no_limit_costs_no_tokens() {
        let bucket = Bucket::default();
        assert_eq!(
            bucket.take(1 << 30, Urgency::Bulk, Instant::now()),
            Ok(1 << 30)
        );
    }
}
