//! How fast is the path to a member? Bytes from memory to memory, over one stream like any other.
//!
//! For `doctor` and benches: what a transfer reaches at most, without disks, hashes and databases. Only
//! members are served, one at a time each, and the bandwidth limits hold.
//!
//! On the wire: the opener sends how many bytes it wants (u64, little-endian), the acceptor sends as many.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::streams::{Handler, Protocol, Quota, Stream};

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "probe",
    major: 1,
};

/// The most that one probe may ask for.
const MAX_BYTES: u64 = 16 << 30;

/// Bytes handed to the stream at once; what a chunk server does too.
const PIECE: usize = 256 * 1024;

/// How long either side waits for the other to do anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a probe measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the request to the last byte.
    pub elapsed: Duration,
}

/// Why a probe measured nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The device cannot be reached or does not serve probes to us.
    #[error("the device does not answer probes; it serves members only, one at a time")]
    Refused,
    /// The stream failed or stalled on the way.
    #[error("the connection was lost after {bytes} bytes")]
    Lost {
        /// What had arrived.
        bytes: u64,
    },
}

/// Asks for `bytes` on an open stream and counts them.
pub(crate) async fn measure(mut stream: Stream, bytes: u64) -> Result<Probed, ProbeError> {
    let start = Instant::now();
    let mut arrived = 0;
    let lost = |bytes| ProbeError::Lost { bytes };
    stream.write_u64_le(bytes).await.map_err(|_| lost(0))?;
    stream.flush().await.map_err(|_| lost(0))?;
    let mut buffer = vec![0; PIECE];
    while arrived < bytes {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer));
        match read.await {
            Ok(Ok(read)) if read > 0 => arrived += read as u64,
            Ok(Ok(_) | Err(_)) | Err(_) => return Err(lost(arrived)),
        }
    }
    Ok(Probed {
        bytes: arrived,
        elapsed: start.elapsed(),
    })
}

/// Answers probes.
pub(crate) struct Prober;

impl Handler for Prober {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        Quota {
            stranger: 0,
            member: 1,
            total: 4,
        }
    }

    fn accept(&self, mut stream: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let served = async {
                let wanted = tokio::time::timeout(PATIENCE, stream.read_u64_le()).await??;
                let mut left = wanted.min(MAX_BYTES);
                let piece = vec![0x5a; PIECE];
                while let Some(part) =
                    piece.get(..PIECE.min(usize::try_from(left).unwrap_or(PIECE)))
                    && !part.is_empty()
                {
                    tokio::time::timeout(PATIENCE, stream.write_all(part)).await??;
                    left -= part.len() as u64;
                }
                stream.shutdown().await
            };
            if let Err(error) = served.await {
                tracing::debug!(%error, "a probe ended early");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use wormhole_crdt::DeviceId;

    use super::*;
    use crate::peer::PathKind;

    #[tokio::test]
    async fn a_probe_counts_what_was_asked_for() {
        let peer = DeviceId::from_bytes([1; 32]);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let serve = Prober.accept(Stream::new(theirs, peer, PathKind::Local));
        let measure = measure(Stream::new(ours, peer, PathKind::Local), 3_000_001);
        let (probed, ()) = tokio::join!(measure, serve);
        assert_eq!(probed.unwrap().bytes, 3_000_001);
    }

    #[tokio::test]
    async fn a_probe_that_is_cut_says_how_far_it_came() {
        let peer = DeviceId::from_bytes([1; 32]);
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let cut = async move {
            theirs.write_all(&[0; 1000]).await.unwrap();
        };
        let measure = measure(Stream::new(ours, peer, PathKind::Local), 2000);
        let (probed, ()) = tokio::join!(measure, cut);
        assert!(matches!(
            probed.unwrap_err(),
            ProbeError::Lost { bytes: 1000 }
        ));
    }
}
