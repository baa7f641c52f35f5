//! What is said on a chunk stream, as bytes. Spoken by `serve` and by the lanes of `fetch`.
//!
//! The fetcher sends [`Open`] and then any number of [`Request`]s without waiting; the holder answers each with
//! [`Reply`]s, in order: one [`Reply::Opened`] or [`Reply::Refused`] for the opening, one [`Reply::Held`] for
//! `Have`; for `Manifest` the blobs (root first, then each page once, in order) and [`Reply::End`], or one
//! [`Reply::Absent`]; for `Chunks` one reply per id. Requests are postcard frames. Replies are frames too, but
//! laid out by hand, as most of what they carry is a chunk: a tag byte, then for a chunk its codec byte, its
//! plain length (`u32` little-endian) and the bytes.

use std::io;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wormhole_crdt::MeshId;
use wormhole_store::{Bitmap, ChunkId, Codec, Content, Encoded, Holding, MAX_CHUNK};

use crate::{frame::FrameError, streams::Protocol};

/// How such streams are asked for.
pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "chunks",
    major: 1,
};

/// Ids in one request. A request is one round trip at most, and many are under way.
pub(crate) const MAX_IDS: usize = 512;

/// Room for the opening and for requests.
pub(crate) const MAX_REQUEST: usize = 64 + MAX_IDS * 34;

/// Tag, codec and length in front of a chunk's bytes.
const CHUNK_HEADER: usize = 1 + 1 + 4;

/// Room for replies: a whole chunk. Encoded bytes are never longer than plain ones.
const MAX_REPLY: usize = CHUNK_HEADER + MAX_CHUNK;

/// What is reserved before bytes arrive, unless a chunk of known length is expected.
const FIRST_RESERVE: usize = 4096;

/// The fetcher's first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Whose chunks are asked for.
    pub(crate) mesh: MeshId,
}

/// What a fetcher asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// How much of a content is there.
    Have(Content),
    /// All blobs of a content's manifest.
    Manifest(Content),
    /// These chunks, at most [`MAX_IDS`].
    Chunks(Vec<ChunkId>),
}

/// Why nothing is served. The stream ends after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// No such mesh is shared with this device, or it is not a member of it (any more).
    NotMember,
    /// The mesh is paused here.
    Paused,
    /// This device is stopping, or cannot read its own disk.
    Unable,
}

/// What a holder answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    /// The stream is good for requests.
    Opened,
    /// It is not, from here on.
    Refused(Refusal),
    /// A chunk, or a blob of a manifest.
    Chunk(Encoded),
    /// Not here (or no longer, or damaged and forgotten).
    Absent,
    /// The manifest is complete.
    End,
    /// How much is here.
    Held(Holding),
}

const OPENED: u8 = 0;
const REFUSED_NOT_MEMBER: u8 = 1;
const REFUSED_PAUSED: u8 = 2;
const REFUSED_UNABLE: u8 = 3;
const CHUNK: u8 = 4;
const ABSENT: u8 = 5;
const END: u8 = 6;
const HELD_ALL: u8 = 7;
const HELD_NONE: u8 = 8;
const HELD_SOME: u8 = 9;
const HELD_NO_MANIFEST: u8 = 10;

impl Reply {
    /// The bytes in front, and the bytes behind that need no copying.
    fn parts(&self) -> (Vec<u8>, &[u8]) {
        match self {
            Self::Opened => (vec![OPENED], &[]),
            Self::Refused(Refusal::NotMember) => (vec![REFUSED_NOT_MEMBER], &[]),
            Self::Refused(Refusal::Paused) => (vec![REFUSED_PAUSED], &[]),
            Self::Refused(Refusal::Unable) => (vec![REFUSED_UNABLE], &[]),
            Self::Chunk(Encoded { codec, len, bytes }) => {
                let mut head = Vec::with_capacity(CHUNK_HEADER);
                head.push(CHUNK);
                head.push(codec.to_byte());
                head.extend_from_slice(&len.to_le_bytes());
                (head, bytes)
            }
            Self::Absent => (vec![ABSENT], &[]),
            Self::End => (vec![END], &[]),
            Self::Held(Holding::All) => (vec![HELD_ALL], &[]),
            Self::Held(Holding::None) => (vec![HELD_NONE], &[]),
            Self::Held(Holding::NoManifest) => (vec![HELD_NO_MANIFEST], &[]),
            Self::Held(Holding::Some(slots)) => {
                // Slots beyond the end of a bitmap count as missing: of a content of more than two
                // terabytes the last part is not offered before all of it is here.
                let bytes = slots.as_bytes();
                (
                    vec![HELD_SOME],
                    bytes.get(..bytes.len().min(MAX_CHUNK)).unwrap_or_default(),
                )
            }
        }
    }

    /// Reads what [`Reply::parts`] wrote; `None` for what no holder of this version says.
    fn decode(mut body: Bytes) -> Option<Self> {
        let tag = body.try_get_u8().ok()?;
        let bare = |reply: Self| body.is_empty().then_some(reply);
        match tag {
            OPENED => bare(Self::Opened),
            REFUSED_NOT_MEMBER => bare(Self::Refused(Refusal::NotMember)),
            REFUSED_PAUSED => bare(Self::Refused(Refusal::Paused)),
            REFUSED_UNABLE => bare(Self::Refused(Refusal::Unable)),
            CHUNK => {
                let codec = Codec::from_byte(body.try_get_u8().ok()?)?;
                let len = body.try_get_u32_le().ok()?;
                Some(Self::Chunk(Encoded {
                    codec,
                    len,
                    bytes: body,
                }))
            }
            ABSENT => bare(Self::Absent),
            END => bare(Self::End),
            HELD_ALL => bare(Self::Held(Holding::All)),
            HELD_NONE => bare(Self::Held(Holding::None)),
            HELD_NO_MANIFEST => bare(Self::Held(Holding::NoManifest)),
            HELD_SOME => Some(Self::Held(Holding::Some(Bitmap::from_bytes(body.into())))),
            _ => None,
        }
    }

    /// Bytes that the reply holds in memory.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Chunk(encoded) => encoded.bytes.len(),
            Self::Held(Holding::Some(slots)) => slots.as_bytes().len(),
            Self::Held(Holding::All | Holding::None | Holding::NoManifest)
            | Self::Opened
            | Self::Refused(_)
            | Self::Absent
            | Self::End => 0,
        }
    }
}

/// Writes a reply. Does not flush.
pub(crate) async fn write_reply<W>(writer: &mut W, reply: &Reply) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let (head, tail) = reply.parts();
    let len = u32::try_from(head.len() + tail.len()).map_err(io::Error::other)?;
    writer.write_all(&len.to_le_bytes()).await?;
    writer.write_all(&head).await?;
    writer.write_all(tail).await
}

/// Why a reply could not be read.
pub(crate) type ReplyError = FrameError;

/// Reads a reply of which `expected` plain bytes are awaited; `None` at the end of the stream.
///
/// Not cancel-safe. A reply may be smaller than expected (compressed, or absent); one that is larger than
/// any chunk is refused before it is read.
pub(crate) async fn read_reply<R>(
    reader: &mut R,
    expected: usize,
) -> Result<Option<Reply>, ReplyError>
where
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; 4];
    match reader.read(&mut prefix).await? {
        0 => return Ok(None),
        got => {
            let rest = prefix.get_mut(got..).unwrap_or_default();
            reader.read_exact(rest).await?;
        }
    }
    let len = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if len > MAX_REPLY {
        return Err(FrameError::TooLarge {
            len,
            max: MAX_REPLY,
        });
    }
    let mut body = Vec::with_capacity(len.min(expected.max(FIRST_RESERVE) + CHUNK_HEADER));
    let got = reader.take(len as u64).read_to_end(&mut body).await?;
    if got < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let malformed = || FrameError::Malformed(postcard::Error::DeserializeBadEnum);
    Reply::decode(body.into()).map(Some).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::bend::{Budget, bend};

    fn encode(reply: &Reply) -> Bytes {
        let (mut head, tail) = reply.parts();
        head.extend_from_slice(tail);
        head.into()
    }

    #[tokio::test]
    async fn every_reply_survives_the_wire() {
        let chunk = Encoded {
            codec: Codec::Raw,
            len: 3,
            bytes: Bytes::from_static(b"abc"),
        };
        for reply in [
            Reply::Opened,
            Reply::Refused(Refusal::NotMember),
            Reply::Refused(Refusal::Paused),
            Reply::Refused(Refusal::Unable),
            Reply::Chunk(chunk),
            Reply::Absent,
            Reply::End,
            Reply::Held(Holding::All),
            Reply::Held(Holding::None),
            Reply::Held(Holding::NoManifest),
            Reply::Held(Holding::Some(Bitmap::from_bytes(vec![1, 2, 3]))),
        ] {
            let mut wire = Vec::new();
            write_reply(&mut wire, &reply).await.unwrap();
            let mut wire = wire.as_slice();
            assert_eq!(read_reply(&mut wire, 3).await.unwrap(), Some(reply));
            assert_eq!(read_reply(&mut wire, 3).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_too_large_or_cut_is_refused() {
        let mut large: &[u8] = &[0xff, 0xff, 0xff, 0x7f];
        assert!(
            read_reply(&mut large, 0)
                .await
                .unwrap_err()
                .is_misbehaviour()
        );
        for cut in [&[9, 0][..], &[9, 0, 0, 0, 1]] {
            let mut cut = cut;
            let error = read_reply(&mut cut, 0).await.unwrap_err();
            assert!(
                !error.is_misbehaviour(),
                "a connection may break anywhere: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_what_decodes_is_canonical(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            if let Some(reply) = Reply::decode(bytes.clone()) {
                prop_assert_eq!(encode(&reply), bytes);
            }
        }

        #[test]
        fn requests_never_panic(bytes: Vec<u8>) {
            let _decoded: Result<Request, _> = postcard::from_bytes(&bytes);
        }
    }

    /// What a holder may say, one after the other.
    fn replies() -> Vec<u8> {
        let chunk = Encoded {
            codec: Codec::Zstd,
            len: 70_000,
            bytes: Bytes::from_static(b"some bytes that came"),
        };
        let replies = [
            Reply::Opened,
            Reply::Held(Holding::Some(Bitmap::from_bytes(vec![5; 9]))),
            Reply::Chunk(chunk),
            Reply::Absent,
            Reply::End,
            Reply::Refused(Refusal::Paused),
        ];
        let mut wire = Vec::new();
        for reply in &replies {
            write_reply(&mut wire, reply)
                .now_or_never()
                .unwrap()
                .unwrap();
        }
        wire
    }

    #[test]
    fn bent_replies_do_no_harm() {
        let budget = Budget {
            fixed: 64 << 10,
            per_byte: 8,
        };
        bend("replies", &[replies()], "", budget, |bytes| {
            let mut wire = bytes;
            while let Some(Ok(Some(_))) = read_reply(&mut wire, 0).now_or_never() {}
        });
    }

    #[test]
    fn bent_requests_do_no_harm() {
        let content = Content {
            id: wormhole_store::ContentId::from_bytes([3; 32]),
            size: 1 << 33,
        };
        let requests = [
            Request::Have(content),
            Request::Manifest(content),
            Request::Chunks(vec![ChunkId::from_bytes([4; 32]); 9]),
        ];
        let right: Vec<_> = requests
            .iter()
            .map(|request| postcard::to_stdvec(request).unwrap())
            .collect();
        // A list reserves up to a megabyte for what it claims.
        let budget = Budget {
            fixed: 2 << 20,
            per_byte: 8,
        };
        bend("requests", &right, "", budget, |bytes| {
            let _request = postcard::from_bytes::<Request>(bytes);
            let _open = postcard::from_bytes::<Open>(bytes);
        });
    }
}
