//! Amounts of bytes as people write them: `500`, `64 KiB`, `1.5 MB`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is no amount of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ByteCountError {
    /// It does not begin with a number.
    #[error("expected a number, with a unit such as KiB, MiB, kB or MB")]
    NotANumber,
    /// The unit is not known.
    #[error("unknown unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB and K, M, G, T are known")]
    UnknownUnit,
    /// It does not fit 64 bits.
    #[error("too large")]
    TooLarge,
    /// It is below what is allowed here.
    #[error("at least {least} is needed")]
    TooSmall {
        /// The least that is allowed.
        least: ByteCount,
    },
}

impl FromStr for ByteCount {
    type Err = ByteCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let factor = factor(unit.trim()).ok_or(ByteCountError::UnknownUnit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| ByteCountError::NotANumber)?;
        let mut bytes = whole.checked_mul(factor).ok_or(ByteCountError::TooLarge)?;
        let mut place = factor;
        for digit in fraction.chars() {
            let digit = digit.to_digit(10).ok_or(ByteCountError::NotANumber)?;
            place /= 10;
            bytes = bytes
                .checked_add(place.saturating_mul(u64::from(digit)))
                .ok_or(ByteCountError::TooLarge)?;
        }
        Ok(Self(bytes))
    }
}

fn factor(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    })
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (1_u64 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        match units.into_iter().find(|(size, _)| self.0 >= *size) {
            Some((size, unit)) if self.0.is_multiple_of(size) => {
                write!(f, "{} {unit}", self.0 / size)
            }
            Some((size, unit)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("500", 500),
            ("64 KiB", 65_536),
            ("1.5MB", 1_500_000),
            ("2M", 2 << 20),
            (" 1 GB ", 1_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteCount::from_bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_reason() {
        assert_eq!(
            "fast".parse::<ByteCount>(),
            Err(ByteCountError::UnknownUnit)
        );
        assert_eq!("".parse::<ByteCount>(), Err(ByteCountError::NotANumber));
        assert_eq!(
            "1.2.3 MB".parse::<ByteCount>(),
            Err(ByteCountError::NotANumber)
        );
        assert_eq!(
            "99999999 TiB".parse::<ByteCount>(),
            Err(ByteCountError::TooLarge)
        );
        assert_eq!("-1".parse::<ByteCount>(), Err(ByteCountError::UnknownUnit));
    }

    #[test]
    fn amounts_are_shown_short() {
        assert_eq!(ByteCount::from_bytes(1_536).to_string(), "1.5 KiB");
        assert_eq!(ByteCount::from_bytes(64 << 20).to_string(), "64 MiB");
        assert_eq!(ByteCount::from_bytes(12).to_string(), "12 B");
    }
}
