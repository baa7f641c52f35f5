//! The `wormhole` program: reads the command line, runs one command, tells how it ended.
//!
//! Exit codes are decided here and nowhere else; docs/cli.md lists them. What the commands do is
//! in `cli`; what a node is, in the library beside this file.

mod cli;
mod demo;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{CliError, Line, Outcome};

/// Something failed; the message says what.
const FAILED: u8 = 1;
/// The command line is wrong (clap uses the same).
const USAGE: u8 = 2;
/// `wait` gave up.
const NOT_IN_SYNC: u8 = 3;
/// There is no node and `--no-start` forbids to start one.
const NOT_RUNNING: u8 = 4;
/// `up` found the home in use by another process.
const HOME_IN_USE: u8 = 5;

fn main() -> ExitCode {
    let line = Line::parse();
    let json = line.global.json;
    match cli::run(line) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NotInSync) => NOT_IN_SYNC.into(),
        Ok(Outcome::Damaged) => FAILED.into(),
        // Whoever read our output has seen enough (`wormhole ls … | head`).
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&error, json);
            code(&error).into()
        }
    }
}

fn code(error: &CliError) -> u8 {
    match error {
        CliError::Usage { .. } => USAGE,
        CliError::NotRunning { .. } => NOT_RUNNING,
        CliError::HomeInUse(_) => HOME_IN_USE,
        CliError::StartFailed { .. }
        | CliError::StartTimedOut { .. }
        | CliError::Program { .. }
        | CliError::Directory { .. }
        | CliError::NotUtf8 { .. }
        | CliError::Client(_)
        | CliError::Home(_)
        | CliError::Config(_)
        | CliError::Log(_)
        | CliError::Spawn(_)
        | CliError::Crashed { .. }
        | CliError::StillRunning { .. }
        | CliError::Signals(_)
        | CliError::Input(_)
        | CliError::Output(_)
        | CliError::Runtime(_)
        | CliError::Json(_)
        | CliError::Demo(_)
        | CliError::InviteOver { .. }
        | CliError::Interrupted { .. }
        | CliError::NotAgreed
        | CliError::Silent { .. } => FAILED,
    }
}

/// Writes the error with all its causes, and what to do, to the standard error stream.
fn report(error: &CliError, json: bool) {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        message.push_str(": ");
        message.push_str(&source.to_string());
        cause = source.source();
    }
    let mut stderr = io::stderr().lock();
    // When even the standard error stream is gone there is nobody left to tell.
    drop(if json {
        let fault = serde_json::json!({
            "error": { "code": error.name(), "message": message, "hint": error.hint() }
        });
        writeln!(stderr, "{}", cli::json(&fault).unwrap_or_default())
    } else {
        match error.hint() {
            Some(hint) => writeln!(stderr, "wormhole: {message}\n  {hint}"),
            None => writeln!(stderr, "wormhole: {message}"),
        }
    });
}
