//! Length-prefixed frames: a `u32` little-endian length, then that many bytes (postcard for messages).
//!
//! The length is checked against the caller's limit before anything is allocated, and memory grows with
//! the bytes that really arrive, so that a peer which announces a megabyte and sends ten bytes costs ten
//! bytes. Deadlines are the caller's: a frame has no clock. Used by every protocol of this crate.

use std::io;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the length prefix.
const PREFIX: usize = size_of::<u32>();

/// What is reserved for a frame before its bytes arrive.
const FIRST_RESERVE: usize = 16 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream failed, or ended inside a frame ([`io::ErrorKind::UnexpectedEof`]).
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The peer announced a frame above the limit. Its fault.
    #[error("frame of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// The announced length.
        len: usize,
        /// The limit for this message.
        max: usize,
    },
    /// The frame is whole but does not decode. Its fault.
    #[error("frame does not decode")]
    Malformed(#[source] postcard::Error),
    /// Our own message does not encode or is over the limit that the other side enforces.
    #[error("message does not fit its frame")]
    Unencodable(#[source] postcard::Error),
}

impl FrameError {
    /// Whether the peer broke the protocol (as opposed to a connection that went away).
    pub(crate) fn is_misbehaviour(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Malformed(_) => true,
            Self::Io(_) | Self::Unencodable(_) => false,
        }
    }
}

/// Reads one frame's bytes; `None` when the stream ended cleanly between frames.
///
/// Not cancel-safe: a cancelled read loses its place in the stream.
pub(crate) async fn read_bytes<R>(reader: &mut R, max: usize) -> Result<Option<Bytes>, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let Some(len) = read_prefix(reader).await? else {
        return Ok(None);
    };
    if len > max {
        return Err(FrameError::TooLarge { len, max });
    }
    let mut bytes = Vec::with_capacity(len.min(FIRST_RESERVE));
    let got = reader.take(len as u64).read_to_end(&mut bytes).await?;
    if got < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(bytes.into()))
}

/// Reads and decodes one message; `None` when the stream ended cleanly between frames.
///
/// Not cancel-safe: a cancelled read loses its place in the stream.
pub(crate) async fn read<T, R>(reader: &mut R, max: usize) -> Result<Option<T>, FrameError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin + ?Sized,
{
    match read_bytes(reader, max).await? {
        Some(bytes) => postcard::from_bytes(&bytes)
            .map(Some)
            .map_err(FrameError::Malformed),
        None => Ok(None),
    }
}

/// Writes one frame around `bytes`. Does not flush.
///
/// Not cancel-safe: a cancelled write leaves half a frame in the stream.
pub(crate) async fn write_bytes<W>(
    writer: &mut W,
    bytes: &[u8],
    max: usize,
) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin + ?Sized,
{
    let len = match u32::try_from(bytes.len()) {
        Ok(len) if bytes.len() <= max => len,
        Ok(_) | Err(_) => {
            return Err(FrameError::TooLarge {
                len: bytes.len(),
                max,
            });
        }
    };
    writer.write_all(&len.to_le_bytes()).await?;
    writer.write_all(bytes).await?;
    Ok(())
}

/// Encodes and writes one message, then flushes.
///
/// Not cancel-safe: a cancelled write leaves half a frame in the stream.
pub(crate) async fn write<T, W>(writer: &mut W, message: &T, max: usize) -> Result<(), FrameError>
where
    T: Serialize + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    let bytes = postcard::to_stdvec(message).map_err(FrameError::Unencodable)?;
    write_bytes(writer, &bytes, max).await?;
    writer.flush().await?;
    Ok(())
}

/// Reads the length, telling "nothing more" from "cut inside the prefix".
async fn read_prefix<R>(reader: &mut R) -> Result<Option<usize>, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
{
    let mut prefix = Vec::with_capacity(PREFIX);
    reader.take(PREFIX as u64).read_to_end(&mut prefix).await?;
    match <[u8; PREFIX]>::try_from(prefix.as_slice()) {
        Ok(prefix) => {
            let len = u32::from_le_bytes(prefix);
            Ok(Some(usize::try_from(len).unwrap_or(usize::MAX)))
        }
        Err(_) if prefix.is_empty() => Ok(None),
        Err(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::bend::{Budget, bend};

    #[tokio::test]
    async fn a_message_survives_the_wire() -> Result<(), FrameError> {
        let (mut a, mut b) = tokio::io::duplex(64);
        let sent = vec!["one".to_owned(), "two".repeat(100)];
        let (written, read) = tokio::join!(
            write(&mut a, &sent, 1024),
            read::<Vec<String>, _>(&mut b, 1024)
        );
        written?;
        assert_eq!(read?, Some(sent));
        drop(a);
        assert!(
            read_bytes(&mut b, 1024).await?.is_none(),
            "a clean end is not an error"
        );
        Ok(())
    }

    #[tokio::test]
    async fn an_oversize_frame_is_refused_before_its_bytes_are_read() {
        let mut wire: &[u8] = &[0xff, 0xff, 0xff, 0xff];
        let refused = read_bytes(&mut wire, 1024).await.unwrap_err();
        assert!(
            matches!(refused, FrameError::TooLarge { max: 1024, .. }),
            "{refused:?}"
        );
        assert!(refused.is_misbehaviour());
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_an_unexpected_end() {
        for wire in [&[9, 0][..], &[9, 0, 0, 0, 1, 2]] {
            let mut wire = wire;
            let cut = read_bytes(&mut wire, 1024).await.unwrap_err();
            assert!(
                matches!(&cut, FrameError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof),
                "{cut:?}"
            );
        }
    }

    #[tokio::test]
    async fn bytes_that_do_not_decode_are_the_peers_fault() {
        let mut wire: &[u8] = &[2, 0, 0, 0, 0xff, 0xff];
        let malformed = read::<String, _>(&mut wire, 1024).await.unwrap_err();
        assert!(malformed.is_misbehaviour(), "{malformed:?}");
    }

    #[test]
    fn bent_frames_do_no_harm() {
        let words = postcard::to_stdvec(&vec!["one", "two", "three"]).unwrap();
        let length = u32::try_from(words.len()).unwrap().to_le_bytes();
        let frame = [&length[..], &words].concat();
        // A list reserves up to a megabyte for what it claims.
        let budget = Budget {
            fixed: 2 << 20,
            per_byte: 64,
        };
        bend("frames", &[frame.repeat(3)], "", budget, |bytes| {
            let mut wire = bytes;
            while let Some(Ok(Some(_))) = read::<Vec<String>, _>(&mut wire, 1 << 20).now_or_never()
            {
            }
        });
    }
}
