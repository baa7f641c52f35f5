//! What is being sent to whom, for status pages: the other side of a fetch.
//!
//! Who fetches knows which files its chunks are for; who serves sees chunks of some mesh going to some member.
//! So an upload is told for each of those, for as long as bytes go.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{self, AsyncWrite},
    time::Instant,
};
use wormhole_crdt::{DeviceId, MeshId};

use crate::rate::Rate;

/// An upload of which nothing went for this long is over.
const IDLE: Duration = Duration::from_secs(10);

/// Uploads of one mesh that are told of.
const MAX_SHOWN: usize = 256;

/// Content of a mesh that is being sent to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Whose content it is.
    pub mesh: MeshId,
    /// Who fetches it.
    pub device: DeviceId,
    /// Bytes sent since it began to fetch, with pauses of a few seconds at most.
    pub sent_bytes: u64,
    /// Bytes per second, lately.
    pub rate: u64,
}

/// The uploads of one mesh.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<BTreeMap<DeviceId, Counter>>);

#[derive(Debug)]
struct Counter {
    bytes: u64,
    rate: Rate,
    last: Instant,
}

impl Uploads {
    /// Bytes went to a member.
    pub(crate) fn sent(&self, device: DeviceId, bytes: u64) {
        let mut counters = self.going();
        if counters.len() >= MAX_SHOWN && !counters.contains_key(&device) {
            return;
        }
        let fresh = || Counter {
            bytes: 0,
            rate: Rate::default(),
            last: Instant::now(),
        };
        let counter = counters.entry(device).or_insert_with(fresh);
        counter.bytes += bytes;
        counter.last = Instant::now();
    }

    /// What is going to whom now.
    pub(crate) fn snapshot(&self, mesh: MeshId) -> Vec<Upload> {
        let mut counters = self.going();
        let uploads = counters.iter_mut().map(|(device, counter)| Upload {
            mesh,
            device: *device,
            sent_bytes: counter.bytes,
            rate: counter.rate.now(counter.bytes),
        });
        uploads.collect()
    }

    /// The counters of uploads that are not over.
    fn going(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Counter>> {
        // Only counters: a panic elsewhere leaves them as good as they were.
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.retain(|_, counter| counter.last.elapsed() < IDLE);
        counters
    }
}

/// Counts what is written to a member.
pub(super) struct Counted<'a, W> {
    io: W,
    device: DeviceId,
    uploads: &'a Uploads,
}

impl<'a, W> Counted<'a, W> {
    pub(super) fn new(io: W, device: DeviceId, uploads: &'a Uploads) -> Self {
        Self {
            io,
            device,
            uploads,
        }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Counted<'_, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.uploads.sent(self.device, written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MESH: MeshId = MeshId::from_bytes([9; 32]);

    fn device(n: u16) -> DeviceId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        DeviceId::from_bytes(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_told_with_its_rate_and_gone_when_idle() {
        let uploads = Uploads::default();
        for _ in 0..8 {
            uploads.sent(device(1), 1000);
            advance(Duration::from_millis(500)).await;
        }
        let expected = Upload {
            mesh: MESH,
            device: device(1),
            sent_bytes: 8000,
            rate: 2000,
        };
        assert_eq!(uploads.snapshot(MESH), [expected]);
        advance(IDLE).await;
        assert_eq!(uploads.snapshot(MESH), []);
        uploads.sent(device(1), 7);
        assert_eq!(uploads.snapshot(MESH)[0].sent_bytes, 7, "another one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_uploads_is_bounded() {
        let uploads = Uploads::default();
        for n in 0..1000 {
            uploads.sent(device(n), 1);
        }
        assert_eq!(uploads.snapshot(MESH).len(), MAX_SHOWN);
    }
}
