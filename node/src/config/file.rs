//! `config.toml`: its grammar, and the text that a new home begins with.
//!
//! Unknown keys are errors: a typing mistake must not be a setting that silently does nothing.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Allowed, ByteCount, ConfigError, Limit, LogFormat, Switch, is_log_level};

/// What a new home's `config.toml` says: every setting with its default, commented out.
pub(super) const EXPLAINED: &str = include_str!("explained.toml");

/// What the file says; `None` where it says nothing.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) device_name: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) listen: Option<Vec<IpAddr>>,
    pub(super) interfaces: Option<Vec<String>>,
    pub(super) mdns: Option<Switch>,
    pub(super) beacon: Option<Switch>,
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) cache_memory: Option<ByteCount>,
    pub(super) up: Option<Limit>,
    pub(super) down: Option<Limit>,
    pub(super) check_rate: Option<Limit>,
    pub(super) trash_days: Option<u64>,
    pub(super) trash_size: Option<ByteCount>,
    pub(super) quiet: Option<Duration>,
    pub(super) longest_wait: Option<Duration>,
    pub(super) log_level: Option<String>,
    pub(super) log_format: Option<LogFormat>,
}

impl File {
    /// Parses the text of the file at `path` (named in errors only).
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span()),
            message: error.message().to_owned(),
        })?;
        let place = Place { path, text };
        Ok(Self {
            device_name: raw.device_name,
            port: raw.network.port,
            listen: place.each("network.listen", raw.network.listen, Allowed::Addresses)?,
            interfaces: raw.network.interfaces,
            mdns: raw.network.mdns.map(Switch::from),
            beacon: raw.network.beacon.map(Switch::from),
            cache_dir: place.checked("cache.dir", raw.cache.dir, Allowed::AbsolutePath, |dir| {
                Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute())
            })?,
            cache_memory: place.one("cache.memory", raw.cache.memory, Allowed::Amount)?,
            up: place.one("limits.up", raw.limits.up, Allowed::Limit)?,
            down: place.one("limits.down", raw.limits.down, Allowed::Limit)?,
            check_rate: place.one("check.rate", raw.check.rate, Allowed::Limit)?,
            trash_days: place.within("trash.days", raw.trash.days, 0..=36_500, Allowed::Days)?,
            trash_size: place.one("trash.size", raw.trash.size, Allowed::Amount)?,
            quiet: place.seconds("folders.quiet", raw.folders.quiet)?,
            longest_wait: place.seconds("folders.longest_wait", raw.folders.longest_wait)?,
            log_level: place.checked("log.level", raw.log.level, Allowed::LogLevel, |level| {
                is_log_level(level).then(|| level.to_owned())
            })?,
            log_format: place.one("log.format", raw.log.format, Allowed::LogFormat)?,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    device_name: Option<String>,
    #[serde(default)]
    network: Network,
    #[serde(default)]
    cache: Cache,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    check: Check,
    #[serde(default)]
    trash: Trash,
    #[serde(default)]
    folders: Folders,
    #[serde(default)]
    log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    port: Option<u16>,
    listen: Option<Vec<Spanned<String>>>,
    interfaces: Option<Vec<String>>,
    mdns: Option<bool>,
    beacon: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    dir: Option<Spanned<String>>,
    memory: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    up: Option<Spanned<String>>,
    down: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    rate: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trash {
    days: Option<Spanned<u64>>,
    size: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Folders {
    quiet: Option<Spanned<u64>>,
    longest_wait: Option<Spanned<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    level: Option<Spanned<String>>,
    format: Option<Spanned<String>>,
}

/// Where a value stands, for the message when it is not allowed.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn checked<T>(
        &self,
        key: &'static str,
        value: Option<Spanned<String>>,
        allowed: Allowed,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        match parse(value.get_ref()) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(ConfigError::Value {
                path: self.path.to_owned(),
                line: line_of(self.text, Some(value.span())),
                key,
                value: value.into_inner(),
                allowed,
            }),
        }
    }

    fn one<T: FromStr>(
        &self,
        key: &'static str,
        value: Option<Spanned<String>>,
        allowed: Allowed,
    ) -> Result<Option<T>, ConfigError> {
        // The reason is in `Allowed`.
        self.checked(key, value, allowed, |text| text.parse().ok())
    }

    fn within(
        &self,
        key: &'static str,
        value: Option<Spanned<u64>>,
        range: RangeInclusive<u64>,
        allowed: Allowed,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = value else { return Ok(None) };
        if range.contains(value.get_ref()) {
            return Ok(Some(value.into_inner()));
        }
        Err(ConfigError::Value {
            path: self.path.to_owned(),
            line: line_of(self.text, Some(value.span())),
            key,
            value: value.into_inner().to_string(),
            allowed,
        })
    }

    fn seconds(
        &self,
        key: &'static str,
        value: Option<Spanned<u64>>,
    ) -> Result<Option<Duration>, ConfigError> {
        let seconds = self.within(key, value, 1..=86_400, Allowed::Seconds)?;
        Ok(seconds.map(Duration::from_secs))
    }

    fn each<T: FromStr>(
        &self,
        key: &'static str,
        values: Option<Vec<Spanned<String>>>,
        allowed: Allowed,
    ) -> Result<Option<Vec<T>>, ConfigError> {
        let Some(values) = values else {
            return Ok(None);
        };
        let mut parsed = Vec::with_capacity(values.len());
        for value in values {
            parsed.extend(self.one(key, Some(value), allowed)?);
        }
        // An empty list would be a node that nobody can reach; the default is meant.
        Ok(Some(parsed).filter(|parsed| !parsed.is_empty()))
    }
}

/// The line, from 1, on which a span begins.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start);
    1 + text
        .bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
}
