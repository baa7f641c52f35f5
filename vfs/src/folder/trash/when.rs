//! When something went into the trash, as the name of a directory: `2026-11-27T21.03.11Z`, and `… 2` for a second one of
//! the same second. Names sort like times.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 3600;

/// A second, in universal time, and which one of that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct When {
    seconds: u64,
    twin: u32,
}

impl When {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::at(since.unwrap_or_default().as_secs())
    }

    /// So many seconds after 1970.
    pub(crate) fn at(seconds: u64) -> Self {
        Self { seconds, twin: 1 }
    }

    pub(crate) fn seconds(self) -> u64 {
        self.seconds
    }

    /// The name of the `twin`-th directory of this second, from 1.
    pub(crate) fn name(self, twin: u32) -> String {
        let (year, month, day) = date(self.seconds / DAY);
        let rest = self.seconds % DAY;
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}.{minute:02}.{second:02}Z");
        if twin > 1 {
            format!("{text} {twin}")
        } else {
            text
        }
    }

    /// `None` for a name that is none of these.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (text, twin) = match name.split_once(' ') {
            Some((text, twin)) => (text, twin.parse().ok()?),
            None => (name, 1),
        };
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let [year, month, day] = numbers(date, '-')?;
        let [hour, minute, second] = numbers(time, '.')?;
        let seconds = days(year, month, day)? * DAY + hour * 3600 + minute * 60 + second;
        let when = Self { seconds, twin };
        // Only as it is written here: nothing else is ours.
        (when.name(twin) == name).then_some(when)
    }
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text
        .split(separator)
        .map(|part| part.parse().ok())
        .collect();
    let numbers: [u64; 3] = numbers?.try_into().ok()?;
    numbers
        .iter()
        .all(|number| *number < 10_000)
        .then_some(numbers)
}

/// Year, month and day of a day after 1970, by Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// The other way, by `days_from_civil`. `None` before 1970.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dates_and_can_be_read_back() {
        for (seconds, name) in [
            (0, "1970-01-01T00.00.00Z"),
            (951_782_399, "2000-02-28T23.59.59Z"),
            (951_782_400, "2000-02-29T00.00.00Z"),
            (1_795_813_391, "2026-11-27T21.03.11Z"),
            (4_107_542_400, "2100-03-01T00.00.00Z"),
        ] {
            let when = When::at(seconds);
            assert_eq!(when.name(1), name);
            assert_eq!(When::parse(name), Some(when));
        }
        let twin = When::parse("2026-11-27T21.03.11Z 2").unwrap();
        assert!(twin > When::at(1_795_813_391));
        assert_eq!(twin.seconds(), 1_795_813_391);
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "",
            "notes",
            "2026-11-27",
            "2026-13-01T00.00.00Z",
            "2026-02-30T00.00.00Z",
            "2026-11-27T25.00.00Z",
            "26-11-27T21.03.11Z",
            "2026-11-27T21.03.11Z 1",
            "99999999999999999999-11-27T21.03.11Z",
        ] {
            assert_eq!(When::parse(name), None, "{name}");
        }
    }
}
