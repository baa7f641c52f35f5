//! Where log lines go and how they look.
//!
//! Called once by a program's `main`. Secrets (codes, links, keys) are never given to the log: their
//! types do not print.

mod rolling;

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use rolling::Rolling;

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// To standard error, for a node in the foreground.
    Stderr,
    /// To the end of a file that only this user can read.
    File(PathBuf),
}

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directives are not understood.
    #[error("log level {level:?} is not understood")]
    Level {
        /// The directives.
        level: String,
        /// What is wrong with them.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The file cannot be opened.
    #[error("cannot open the log file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This process has a log already.
    #[error("this process has a log already")]
    Taken,
}

/// Libraries that report what is no trouble to us: `notify` warns of every watched directory that is
/// deleted, as all are in time.
const QUIET: &[&str] = &["notify=error"];

/// Starts the log of this process.
///
/// # Errors
/// A [`LogError`]; there is then no log.
pub fn start(level: &str, format: LogFormat, target: &LogTarget) -> Result<(), LogError> {
    let filter: EnvFilter = level.parse().map_err(|source| LogError::Level {
        level: level.to_owned(),
        source,
    })?;
    let filter = QUIET.iter().fold(filter, |filter, quiet| {
        // What the user says of a library goes before what is said here.
        let library = quiet.split('=').next().unwrap_or(quiet);
        if level.contains(library) {
            return filter;
        }
        filter.add_directive(quiet.parse().expect("a directive of our own"))
    });
    match target {
        LogTarget::Stderr => install(filter, format, io::stderr),
        LogTarget::File(path) => {
            let file = Rolling::open(path).map_err(|source| LogError::File {
                path: path.clone(),
                source,
            })?;
            install(filter, format, Mutex::new(file))
        }
    }
}

fn install<W>(filter: EnvFilter, format: LogFormat, writer: W) -> Result<(), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Human => builder.with_target(false).with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LogError::Taken)
}
