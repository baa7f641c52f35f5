//! Which version of the protocol two devices speak: the first bytes of every conversation between them.
//!
//! A *preamble* is 8 magic bytes and the least and greatest version that a program speaks, as two `u16`
//! little-endian. Its layout never changes, so that any two programs, however far apart, find out what they
//! have in common, or can tell a person which side to update. Sent first by `hello` and `invite`.

use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What every conversation starts with.
const MAGIC: [u8; 8] = *b"wormhole";

/// Bytes of a preamble.
const PREAMBLE: usize = MAGIC.len() + 4;

/// The versions that this program speaks.
pub(crate) const OURS: VersionRange = VersionRange {
    least: 1,
    greatest: 1,
};

/// The versions that a program speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest.
    pub least: u16,
    /// The newest.
    pub greatest: u16,
}

impl VersionRange {
    /// The newest version that both speak.
    ///
    /// # Errors
    ///
    /// [`VersionMismatch`] when there is none; it says which side is older.
    pub(crate) fn common(self, theirs: Self) -> Result<u16, VersionMismatch> {
        let version = self.greatest.min(theirs.greatest);
        if version >= self.least && version >= theirs.least {
            Ok(version)
        } else {
            Err(VersionMismatch { ours: self, theirs })
        }
    }

    /// A preamble.
    pub(crate) fn encode(self) -> [u8; PREAMBLE] {
        let mut bytes = [0; PREAMBLE];
        let (magic, numbers) = bytes.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        let (least, greatest) = numbers.split_at_mut(2);
        least.copy_from_slice(&self.least.to_le_bytes());
        greatest.copy_from_slice(&self.greatest.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; PREAMBLE]) -> Option<Self> {
        let (magic, numbers) = bytes.split_first_chunk::<8>()?;
        let (least, greatest) = numbers.split_first_chunk::<2>()?;
        let range = Self {
            least: u16::from_le_bytes(*least),
            greatest: u16::from_le_bytes(greatest.try_into().ok()?),
        };
        (*magic == MAGIC && range.least <= range.greatest).then_some(range)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.least == self.greatest {
            write!(f, "{}", self.greatest)
        } else {
            write!(f, "{} to {}", self.least, self.greatest)
        }
    }
}

/// What a program can do beyond its version, one bit each. Bits that a program does not know it ignores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// Tells the others how far it shows what it knows.
    pub(crate) const REPORTS: Self = Self(1 << 4);

    /// Those of this program.
    pub(crate) const OURS: Self = Self::REPORTS;

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `wanted` is there.
    pub(crate) const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// What both can do.
    #[must_use]
    pub(crate) const fn common(self, theirs: Self) -> Self {
        Self(self.0 & theirs.0)
    }
}

/// What two devices have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The version that they speak.
    pub(crate) version: u16,
    /// What both can do.
    pub(crate) capabilities: Capabilities,
}

/// Two programs have no version in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this device speaks protocol {ours} and the other {theirs}; update wormhole on {}",
    if .ours.greatest < .theirs.greatest { "this device" } else { "the other device" }
)]
pub struct VersionMismatch {
    /// What this program speaks.
    pub ours: VersionRange,
    /// What the other one speaks.
    pub theirs: VersionRange,
}

/// Why a conversation did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreambleError {
    /// The stream failed or ended.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The other side does not speak any version of this protocol.
    #[error("the peer does not begin like a wormhole")]
    Malformed,
    /// No common version.
    #[error(transparent)]
    Mismatch(#[from] VersionMismatch),
}

/// Says what we speak. Does not flush.
pub(crate) async fn write_preamble<W>(writer: &mut W, ours: VersionRange) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    writer.write_all(&ours.encode()).await
}

/// Reads what the other side speaks, and gives the version to go on with.
pub(crate) async fn read_preamble<R>(
    reader: &mut R,
    ours: VersionRange,
) -> Result<u16, PreambleError>
where
    R: AsyncRead + Unpin,
{
    Ok(ours.common(read_range(reader).await?)?)
}

/// Reads what the other side speaks.
pub(crate) async fn read_range<R>(reader: &mut R) -> Result<VersionRange, PreambleError>
where
    R: AsyncRead + Unpin,
{
    let mut bytes = [0; PREAMBLE];
    reader.read_exact(&mut bytes).await?;
    VersionRange::decode(bytes).ok_or(PreambleError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(least: u16, greatest: u16) -> VersionRange {
        VersionRange { least, greatest }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(range(1, 3).common(range(2, 5)), Ok(3));
        assert_eq!(range(4, 4).common(range(1, 9)), Ok(4));
    }

    #[test]
    fn a_mismatch_says_which_side_to_update() {
        let older = range(1, 1).common(range(2, 3)).unwrap_err();
        assert_eq!(
            older.to_string(),
            "this device speaks protocol 1 and the other 2 to 3; update wormhole on this device"
        );
        let newer = range(2, 3).common(range(1, 1)).unwrap_err();
        assert!(
            newer
                .to_string()
                .ends_with("update wormhole on the other device")
        );
    }

    #[test]
    fn capabilities_that_one_side_does_not_know_are_ignored() {
        let (older, newer) = (Capabilities::OURS, Capabilities::from_bits(u64::MAX));
        assert_eq!(older.common(newer), older);
        assert_eq!(newer.common(older), older);
        assert!(newer.common(older).has(Capabilities::REPORTS));
        assert!(!Capabilities::from_bits(0).has(Capabilities::REPORTS));
    }

    #[test]
    fn a_preamble_reads_back_and_garbage_does_not() {
        assert_eq!(VersionRange::decode(OURS.encode()), Some(OURS));
        assert_eq!(VersionRange::decode([0; PREAMBLE]), None);
        assert_eq!(VersionRange::decode(range(3, 2).encode()), None);
    }
}
