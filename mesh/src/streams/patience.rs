//! How long a stream may stand still: a clock that every byte resets, whatever the size of the message.
//!
//! A deadline for a whole message would make a slow line look like a dead peer: at 1 KiB/s a chunk takes
//! minutes. So silence is measured in bytes that move. The clock does not run while nobody waits, nor while
//! this device's own limits hold the bytes back. What is over is an [`io::ErrorKind::TimedOut`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::Carrier;

/// How long a stream is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A wait for bytes to come.
    pub(crate) reading: Duration,
    /// A wait for bytes to go.
    pub(crate) writing: Duration,
    /// What ends the silence for a reader.
    pub(crate) sign: Sign,
}

/// What a reader takes for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Bytes that come: the other side owes something.
    Received,
    /// Bytes that go, too: the other side need not say anything while it is being answered.
    Moved,
}

/// A stream that fails when it stands still. See the module.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    io: S,
    patience: Patience,
    reading: Clock,
    writing: Clock,
}

/// The wait in one direction.
#[derive(Debug)]
struct Clock {
    /// Since when somebody waits; `None` while nobody does.
    waiting: Option<Instant>,
    /// The last sign of life.
    sign: Instant,
    /// Rings at the deadline, or before.
    bell: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    fn new() -> Self {
        Self {
            waiting: None,
            sign: Instant::now(),
            bell: None,
        }
    }

    /// Something moved.
    fn moved(&mut self) {
        self.sign = Instant::now();
    }

    /// Ready once there was no sign of life for `limit` while somebody waited.
    fn poll_over(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let deadline = since.max(self.sign) + limit;
        let bell = self
            .bell
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // It was set for an earlier deadline, as signs of life only move it on.
        while Instant::now() < deadline {
            ready!(bell.as_mut().poll(cx));
            bell.as_mut().reset(deadline);
        }
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S: Carrier> Patient<S> {
    pub(crate) fn new(io: S, patience: Patience) -> Self {
        Self {
            io,
            patience,
            reading: Clock::new(),
            writing: Clock::new(),
        }
    }

    fn poll_reader(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let held = self.io.held();
        let busy = match self.patience.sign {
            Sign::Received => held.reading,
            Sign::Moved => held.reading || held.writing || self.writing.waiting.is_some(),
        };
        if busy {
            self.reading.moved();
        }
        self.reading.poll_over(self.patience.reading, cx)
    }

    fn poll_writer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.io.held().writing {
            self.writing.moved();
        }
        self.writing.poll_over(self.patience.writing, cx)
    }

    fn wrote(&mut self) {
        self.writing.waiting = None;
        self.writing.moved();
        if self.patience.sign == Sign::Moved {
            self.reading.moved();
        }
    }
}

impl<S: Carrier> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) {
            this.reading.waiting = None;
            this.reading.moved();
            return Poll::Ready(read);
        }
        this.poll_reader(cx).map(Err)
    }
}

impl<S: Carrier> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(written) = Pin::new(&mut this.io).poll_write(cx, buf) {
            this.wrote();
            return Poll::Ready(written);
        }
        this.poll_writer(cx).map(Err)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(flushed) = Pin::new(&mut this.io).poll_flush(cx) {
            this.writing.waiting = None;
            return Poll::Ready(flushed);
        }
        this.poll_writer(cx).map(Err)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(shut) = Pin::new(&mut this.io).poll_shutdown(cx) {
            this.writing.waiting = None;
            return Poll::Ready(shut);
        }
        this.poll_writer(cx).map(Err)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex, split},
        time::sleep,
    };

    use super::*;
    use crate::{
        limit::{Limits, Meter, RateLimits, Urgency},
        peer::PathKind,
    };

    const LIMIT: Duration = Duration::from_secs(5);

    fn patience(sign: Sign) -> Patience {
        Patience {
            reading: LIMIT,
            writing: LIMIT,
            sign,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_message_arrives_and_silence_ends_the_wait() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Patient::new(ours, patience(Sign::Received));
        let dribble = async {
            for byte in 0..100 {
                sleep(LIMIT - Duration::from_millis(1)).await;
                theirs.write_u8(byte).await.unwrap();
            }
        };
        let mut message = [0; 100];
        let (read, ()) = tokio::join!(ours.read_exact(&mut message), dribble);
        assert_eq!(read.unwrap(), 100);
        let begun = Instant::now();
        let silent = ours.read_u8().await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_rests_while_nobody_waits() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Patient::new(ours, patience(Sign::Received));
        theirs.write_u8(1).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), 1);
        sleep(LIMIT * 10).await;
        let late = async {
            sleep(LIMIT / 2).await;
            theirs.write_u8(2).await.unwrap();
        };
        assert_eq!(tokio::join!(ours.read_u8(), late).0.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_as_long_as_an_answer_is_on_its_way() {
        let (ours, mut theirs) = duplex(16);
        let (mut reader, mut writer) = split(Patient::new(ours, patience(Sign::Moved)));
        let answering = async {
            let written = writer.write_all(&[7; 1000]).await;
            written.map(|()| Instant::now())
        };
        let taking = async {
            for _ in 0..1000 {
                sleep(LIMIT / 10).await;
                assert_eq!(theirs.read_u8().await.unwrap(), 7);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            (asked, written) = async { tokio::join!(reader.read_u8(), answering) } => {
                assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::TimedOut);
                assert!(written.unwrap().elapsed() >= LIMIT - LIMIT / 10);
            }
            () = taking => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let mut ours = Patient::new(ours, patience(Sign::Moved));
        let stuck = ours.write_all(&[7; 17]).await.unwrap_err();
        assert_eq!(stuck.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn what_our_own_limits_hold_back_is_no_silence() {
        let rates = RateLimits {
            up: Some(1),
            down: Some(1),
        };
        let meter = Meter {
            traffic: std::sync::Arc::default(),
            limits: std::sync::Arc::new(Limits::new(rates)),
            urgency: Urgency::Bulk,
        };
        let (ours, mut theirs) = duplex(64 * 1024);
        let peer = wormhole_crdt::DeviceId::from_bytes([1; 32]);
        let limited = meter.around(ours, peer, PathKind::Local);
        let (mut reader, mut writer) = split(Patient::new(limited, patience(Sign::Received)));
        // More than the buckets hold at first: the rest takes minutes for each piece.
        let bytes = vec![7; 10_000];
        theirs.write_all(&bytes).await.unwrap();
        let (mut got, mut echoed) = (vec![0; bytes.len()], vec![0; bytes.len()]);
        let (read, written, taken) = tokio::join!(
            reader.read_exact(&mut got),
            writer.write_all(&bytes),
            theirs.read_exact(&mut echoed)
        );
        read.unwrap();
        written.unwrap();
        taken.unwrap();
        assert!(got == bytes && echoed == bytes);
    }
}
