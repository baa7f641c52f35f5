//! The settings of a node: where they come from, and what they mean.
//!
//! Three types, of which the rest of the program sees only the last: [`Overrides`] (the command
//! line), `file::File` (`config.toml`, exactly as written) and [`Config`] (checked and complete).
//! A setting on the command line wins over one in the environment, that over the file, that over
//! the default. Every error names the place, the key and what is allowed there.

mod amount;
mod env;
mod file;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use amount::{ByteCount, ByteCountError};
use env::Environment;
use wormhole_vfs::{Quiet, TrashLimit};

/// What the command line says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// UDP and TCP port; 0 takes any free one.
    pub port: Option<u16>,
    /// Addresses to listen on.
    pub listen: Option<Vec<IpAddr>>,
    /// The name that other devices see.
    pub device_name: Option<String>,
    /// Whether to look for devices on the local network.
    pub discovery: Option<Switch>,
    /// How much to log.
    pub log_level: Option<String>,
    /// How log lines look.
    pub log_format: Option<LogFormat>,
}

/// The settings of a node, checked and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name that other devices see: 1 to 64 characters, 128 bytes at most, none of them a control character.
    pub device_name: String,
    /// UDP and TCP port; 0 takes any free one.
    pub port: u16,
    /// Addresses to listen on; never empty.
    pub listen: Vec<IpAddr>,
    /// Network interfaces that discovery uses; all of them when `None`.
    pub interfaces: Option<Vec<String>>,
    /// Whether to announce and look for devices by multicast DNS.
    pub mdns: Switch,
    /// Whether to announce and look for devices by UDP broadcast, where multicast is blocked.
    pub beacon: Switch,
    /// Directory for the chunks of all meshes; inside the home when `None`.
    pub cache_dir: Option<PathBuf>,
    /// Memory for chunks that were read lately, for each mesh.
    pub cache_memory: ByteCount,
    /// At most so many bytes a second are sent; no limit when `None`.
    pub up: Option<ByteCount>,
    /// At most so many bytes a second are received; no limit when `None`.
    pub down: Option<ByteCount>,
    /// So many bytes a second are read in the background to find damage; none when `None`.
    pub check: Option<ByteCount>,
    /// What is kept of what others remove or replace in a synced folder.
    pub trash: TrashLimit,
    /// How long files that are being written are left alone.
    pub quiet: Quiet,
    /// Which log lines are written: a level, or `tracing` directives.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Whether it is on.
    #[must_use]
    pub fn is_on(self) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line, for programs.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat),
        }
    }
}

/// The text names no log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected \"human\" or \"json\"")]
pub struct UnknownLogFormat;

impl Config {
    /// Reads `config.toml`, writing one with every setting explained when there is none, and the
    /// environment.
    ///
    /// # Errors
    /// A [`ConfigError`] that says where the mistake is and what is allowed there.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let io = |source| ConfigError::Io {
            path: path.to_owned(),
            source,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                crate::home::write_private(path, file::EXPLAINED.as_bytes()).map_err(io)?;
                file::EXPLAINED.to_owned()
            }
            Err(source) => return Err(io(source)),
        };
        Self::resolve(path, &text, &|name| std::env::var_os(name), overrides)
    }

    /// The same without touching disk or environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn resolve(
        path: &Path,
        text: &str,
        env: &dyn Fn(&str) -> Option<std::ffi::OsString>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let file = file::File::parse(path, text)?;
        let env = Environment::read(env)?;
        let over = overrides.clone();
        let discovery = over.discovery.or(env.discovery);
        let device_name = match over.device_name.or(env.device_name).or(file.device_name) {
            Some(name) => check_name(name)?,
            None => host_name(),
        };
        Ok(Self {
            device_name,
            port: over.port.or(env.port).or(file.port).unwrap_or(0),
            listen: over
                .listen
                .or(env.listen)
                .or(file.listen)
                .unwrap_or_else(every_address),
            interfaces: env.interfaces.or(file.interfaces),
            mdns: discovery.or(env.mdns).or(file.mdns).unwrap_or(Switch::On),
            beacon: discovery
                .or(env.beacon)
                .or(file.beacon)
                .unwrap_or(Switch::On),
            cache_dir: env.cache_dir.or(file.cache_dir),
            cache_memory: env
                .cache_memory
                .or(file.cache_memory)
                .unwrap_or(CACHE_MEMORY),
            up: env.up.or(file.up).unwrap_or_default().into(),
            down: env.down.or(file.down).unwrap_or_default().into(),
            check: env
                .check_rate
                .or(file.check_rate)
                .unwrap_or(Limit(Some(CHECK_RATE)))
                .into(),
            trash: TrashLimit {
                days: file.trash_days.unwrap_or(TrashLimit::default().days),
                bytes: file.trash_size.map(ByteCount::bytes),
            },
            quiet: Quiet {
                growing: file.quiet.unwrap_or(Quiet::default().growing),
                longest: file.longest_wait.unwrap_or(Quiet::default().longest),
            },
            log_level: over
                .log_level
                .or(env.log_level)
                .or(file.log_level)
                .unwrap_or_else(level),
            log_format: over
                .log_format
                .or(env.log_format)
                .or(file.log_format)
                .unwrap_or_default(),
        })
    }
}

/// Enough for a few large files being read at once; small beside what a desktop has.
const CACHE_MEMORY: ByteCount = ByteCount::from_bytes(64 << 20);

/// A hundredth of what the slowest disks give; 5 TB a month.
const CHECK_RATE: ByteCount = ByteCount::from_bytes(2 << 20);

/// A limit as written: `"off"`, or an amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Limit(Option<ByteCount>);

impl From<Limit> for Option<ByteCount> {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

/// Below this a connection could not even keep itself alive.
const LEAST_LIMIT: ByteCount = ByteCount::from_bytes(1024);

impl std::str::FromStr for Limit {
    type Err = ByteCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let amount: ByteCount = text.parse()?;
        if amount < LEAST_LIMIT {
            return Err(ByteCountError::TooSmall { least: LEAST_LIMIT });
        }
        Ok(Self(Some(amount)))
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML, or has a key or a type that is not allowed.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser found and what it would allow.
        message: String,
    },
    /// A value in the file is not allowed.
    #[error("{path}:{line}: {key} = {value:?}: {allowed}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The setting.
        key: &'static str,
        /// What is written there.
        value: String,
        /// What is allowed.
        allowed: Allowed,
    },
    /// A value in the environment is not allowed.
    #[error("environment variable {name} = {value:?}: {allowed}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: std::ffi::OsString,
        /// What is allowed.
        allowed: Allowed,
    },
    /// The device's name is not allowed.
    #[error("device name {name:?}: {}", Allowed::DeviceName)]
    DeviceName {
        /// The name.
        name: String,
    },
}

/// What a setting may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// A port.
    Port,
    /// Addresses to listen on.
    Addresses,
    /// On or off.
    Switch,
    /// An amount of memory.
    Amount,
    /// A bandwidth limit.
    Limit,
    /// A number of days.
    Days,
    /// A number of seconds.
    Seconds,
    /// A log format.
    LogFormat,
    /// Log directives.
    LogLevel,
    /// A path.
    AbsolutePath,
    /// Text.
    Text,
    /// A device's name.
    DeviceName,
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Port => "expected a number from 0 (any free port) to 65535",
            Self::Addresses => "expected IP addresses of this machine, such as 0.0.0.0 and ::",
            Self::Switch => "expected on or off",
            Self::Amount => "expected an amount such as \"64 MiB\"",
            Self::Limit => {
                "expected \"off\" or an amount a second of at least 1 KiB, such as \"2 MiB\""
            }
            Self::Days => "expected a number of days from 0 to 36500",
            Self::Seconds => "expected a number of seconds from 1 to 86400",
            Self::LogFormat => "expected \"human\" or \"json\"",
            Self::LogLevel => {
                "expected error, warn, info, debug or trace, or directives such as \
                 \"info,wormhole_mesh=debug\""
            }
            Self::AbsolutePath => "expected an absolute path",
            Self::Text => "expected text in UTF-8",
            Self::DeviceName => {
                "expected 1 to 64 characters (128 bytes in UTF-8 at most) without line breaks or control characters"
            }
        })
    }
}

/// Checks what becomes visible on other people's screens.
fn check_name(name: String) -> Result<String, ConfigError> {
    let name_ok = !name.trim().is_empty()
        && name.chars().count() <= LONGEST_NAME
        && name.len() <= LONGEST_NAME_BYTES
        && !name.chars().any(char::is_control);
    if name_ok {
        Ok(name)
    } else {
        Err(ConfigError::DeviceName { name })
    }
}

/// As long as a host name may be.
const LONGEST_NAME: usize = 64;

/// As long as the name of a member may be in a mesh, or nobody could admit this device.
const LONGEST_NAME_BYTES: usize = 128;

/// The machine's own name, made fit where it is not.
fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name: String = name
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_NAME)
        .collect();
    let short = name.split('.').next().unwrap_or_default().trim();
    if short.is_empty() {
        "device".to_owned()
    } else {
        short.to_owned()
    }
}

fn every_address() -> Vec<IpAddr> {
    vec![IpAddr::from([0_u8; 4]), IpAddr::from([0_u16; 8])]
}

fn level() -> String {
    "info".to_owned()
}

/// Whether `tracing-subscriber` takes the text as directives.
fn is_log_level(text: &str) -> bool {
    !text.is_empty() && text.parse::<tracing_subscriber::EnvFilter>().is_ok()
}

#[cfg(test)]
mod tests;
