//! [`Throttled`]: a stream that takes tokens for its bytes, and waits when there are none.
//!
//! Throttles nest: the stream of a mesh with limits of its own takes from the mesh's buckets, then from the
//! node's. What one of them granted and the next did not let through is given back.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{Bucket, Limits, Urgency};
use crate::streams::{Carrier, Held};

/// A stream whose bytes are held back. Without limits it pays an atomic load for a read or a write.
pub(crate) struct Throttled<T> {
    io: T,
    limits: Arc<Limits>,
    urgency: Urgency,
    read_wait: Option<Pin<Box<Sleep>>>,
    write_wait: Option<Pin<Box<Sleep>>>,
}

impl<T> Throttled<T> {
    /// Holds `io` back to `limits`, which others share.
    pub(crate) fn new(io: T, limits: Arc<Limits>, urgency: Urgency) -> Self {
        Self {
            io,
            limits,
            urgency,
            read_wait: None,
            write_wait: None,
        }
    }
}

/// Waits until the bucket gives something.
pub(super) fn poll_take(
    bucket: &Bucket,
    wait: &mut Option<Pin<Box<Sleep>>>,
    want: usize,
    urgency: Urgency,
    cx: &mut Context<'_>,
) -> Poll<usize> {
    loop {
        if let Some(sleep) = wait {
            ready!(sleep.as_mut().poll(cx));
            *wait = None;
        }
        match bucket.take(want, urgency, Instant::now()) {
            Ok(granted) => return Poll::Ready(granted),
            Err(later) => *wait = Some(Box::pin(sleep_until(later))),
        }
    }
}

impl<T: Carrier> Carrier for Throttled<T> {
    fn held(&self) -> Held {
        let below = self.io.held();
        Held {
            reading: below.reading || self.read_wait.is_some(),
            writing: below.writing || self.write_wait.is_some(),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Throttled<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let bucket = this.limits.down();
        let (want, urgency) = (buf.remaining(), this.urgency);
        let granted = ready!(poll_take(bucket, &mut this.read_wait, want, urgency, cx));
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(granted));
        let polled = Pin::new(&mut this.io).poll_read(cx, &mut part);
        let read = part.filled().len();
        bucket.put_back(granted - read);
        ready!(polled)?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Throttled<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let bucket = this.limits.up();
        let (want, urgency) = (buf.len(), this.urgency);
        let granted = ready!(poll_take(bucket, &mut this.write_wait, want, urgency, cx));
        let part = buf.get(..granted).unwrap_or(buf);
        let polled = Pin::new(&mut this.io).poll_write(cx, part);
        let written = match &polled {
            Poll::Ready(Ok(written)) => *written,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        bucket.put_back(granted.saturating_sub(written));
        polled
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
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::RateLimits;

    const MIB: u64 = 1 << 20;

    fn limits(up: u64) -> Arc<Limits> {
        Arc::new(Limits::new(RateLimits {
            up: Some(up),
            down: None,
        }))
    }

    /// Sends so many bytes through `sender` and says how long that took, in virtual time.
    async fn send<T>(
        mut sender: T,
        mut receiver: tokio::io::DuplexStream,
        bytes: u64,
    ) -> io::Result<Duration>
    where
        T: AsyncWrite + Unpin,
    {
        let start = Instant::now();
        let send = async {
            let bytes = usize::try_from(bytes).expect("fits in memory");
            sender.write_all(&vec![7; bytes]).await?;
            sender.shutdown().await
        };
        let receive = async {
            let mut sink = Vec::new();
            receiver.read_to_end(&mut sink).await
        };
        let (sent, received) = tokio::join!(send, receive);
        sent?;
        assert_eq!(received? as u64, bytes);
        Ok(start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_holds_over_a_second() -> io::Result<()> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let sender = Throttled::new(ours, limits(MIB), Urgency::Bulk);
        let took = send(sender, theirs, 4 * MIB).await?.as_secs_f64();
        assert!(
            (3.5..4.5).contains(&took),
            "4 MiB at 1 MiB/s took {took} s of virtual time"
        );
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_limits_around_a_stream_the_lower_one_holds() -> io::Result<()> {
        for (mesh, node) in [(MIB, 3 * MIB), (3 * MIB, MIB)] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let inner = Throttled::new(ours, limits(node), Urgency::Bulk);
            let sender = Throttled::new(inner, limits(mesh), Urgency::Bulk);
            let took = send(sender, theirs, 4 * MIB).await?.as_secs_f64();
            assert!(
                (3.5..4.5).contains(&took),
                "4 MiB at {mesh} within {node} bytes/s took {took} s of virtual time"
            );
        }
        Ok(())
    }
}
