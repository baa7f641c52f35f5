//! The settings that the environment can override.
//!
//! | variable | overrides |
//! |---|---|
//! | `WORMHOLE_DEVICE_NAME` | `device_name` |
//! | `WORMHOLE_PORT` | `network.port` |
//! | `WORMHOLE_LISTEN` | `network.listen` (addresses, comma-separated) |
//! | `WORMHOLE_INTERFACES` | `network.interfaces` (names, comma-separated) |
//! | `WORMHOLE_DISCOVERY` | `network.mdns` and `network.beacon` at once: `on`, `off` |
//! | `WORMHOLE_MDNS`, `WORMHOLE_BEACON` | the one or the other: `on`, `off` |
//! | `WORMHOLE_CACHE_DIR`, `WORMHOLE_CACHE_MEMORY` | `cache.dir`, `cache.memory` |
//! | `WORMHOLE_UP`, `WORMHOLE_DOWN` | `limits.up`, `limits.down` |
//! | `WORMHOLE_CHECK_RATE` | `check.rate` |
//! | `WORMHOLE_LOG_LEVEL`, `WORMHOLE_LOG_FORMAT` | `log.level`, `log.format` |
//!
//! `WORMHOLE_HOME` is read by `home`, because the file with the other settings is in it. An empty
//! variable counts as absent.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{Allowed, ByteCount, ConfigError, Limit, LogFormat, Switch, is_log_level};

/// What the environment says; `None` where it says nothing.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) device_name: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) listen: Option<Vec<IpAddr>>,
    pub(super) interfaces: Option<Vec<String>>,
    pub(super) discovery: Option<Switch>,
    pub(super) mdns: Option<Switch>,
    pub(super) beacon: Option<Switch>,
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) cache_memory: Option<ByteCount>,
    pub(super) up: Option<Limit>,
    pub(super) down: Option<Limit>,
    pub(super) check_rate: Option<Limit>,
    pub(super) log_level: Option<String>,
    pub(super) log_format: Option<LogFormat>,
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Environment {
    /// Reads every variable.
    pub(super) fn read(env: Lookup<'_>) -> Result<Self, ConfigError> {
        let text = |text: &str| Some(text.to_owned());
        Ok(Self {
            device_name: variable(env, "WORMHOLE_DEVICE_NAME", Allowed::DeviceName, text)?,
            port: variable(env, "WORMHOLE_PORT", Allowed::Port, parse)?,
            listen: variable(env, "WORMHOLE_LISTEN", Allowed::Addresses, |text| {
                text.split(',').map(|part| parse(part.trim())).collect()
            })?,
            interfaces: variable(env, "WORMHOLE_INTERFACES", Allowed::Text, |text| {
                Some(text.split(',').map(|part| part.trim().to_owned()).collect())
            })?,
            discovery: variable(env, "WORMHOLE_DISCOVERY", Allowed::Switch, switch)?,
            mdns: variable(env, "WORMHOLE_MDNS", Allowed::Switch, switch)?,
            beacon: variable(env, "WORMHOLE_BEACON", Allowed::Switch, switch)?,
            cache_dir: variable(env, "WORMHOLE_CACHE_DIR", Allowed::AbsolutePath, |text| {
                Some(PathBuf::from(text)).filter(|path| path.is_absolute())
            })?,
            cache_memory: variable(env, "WORMHOLE_CACHE_MEMORY", Allowed::Amount, parse)?,
            up: variable(env, "WORMHOLE_UP", Allowed::Limit, parse)?,
            down: variable(env, "WORMHOLE_DOWN", Allowed::Limit, parse)?,
            check_rate: variable(env, "WORMHOLE_CHECK_RATE", Allowed::Limit, parse)?,
            log_level: variable(env, "WORMHOLE_LOG_LEVEL", Allowed::LogLevel, |level| {
                text(level).filter(|level| is_log_level(level))
            })?,
            log_format: variable(env, "WORMHOLE_LOG_FORMAT", Allowed::LogFormat, parse)?,
        })
    }
}

/// Reads one variable; `None` when it is absent or empty.
fn variable<T>(
    env: Lookup<'_>,
    name: &'static str,
    allowed: Allowed,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = env(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match value.to_str().and_then(parse) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(ConfigError::Environment {
            name,
            value,
            allowed,
        }),
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    // The reason is in `Allowed`: it is the same sentence wherever the setting comes from.
    text.parse().ok()
}

fn switch(text: &str) -> Option<Switch> {
    match text {
        "on" | "true" | "1" | "yes" => Some(Switch::On),
        "off" | "false" | "0" | "no" => Some(Switch::Off),
        _ => None,
    }
}
