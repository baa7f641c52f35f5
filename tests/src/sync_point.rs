//! A node that is killed at a chosen sync point: the moment after the system made something durable or
//! gave it a name, before the program knows.
//!
//! `strace` watches the node's calls of `fsync`, `fdatasync`, `syncfs` and `rename`, whoever makes them,
//! holds each caller for a moment at its end, and tells; the calls are counted over all threads.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// The calls after which something is on disk that was not before.
const CALLS: &str = "fsync,fdatasync,syncfs,rename,renameat,renameat2";

/// How long a caller is held at the end of such a call, in microseconds: long enough to be killed there.
const HOLD: u32 = 10_000;

/// Counts the sync points of one run of a node, and kills it at the chosen one.
#[derive(Debug)]
pub struct SyncPoints {
    counted: Arc<Counted>,
    counter: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Counted {
    seen: AtomicU64,
    /// The process, once it is known; 0 before.
    process: AtomicI32,
}

impl SyncPoints {
    /// Sets a command up so that its process ends at its sync point number `last`; without one it is only
    /// counted. `place` is a directory for the pipe that tells.
    ///
    /// # Errors
    /// When there is no `strace`, or the pipe cannot be made.
    pub(crate) fn watch(
        command: &Command,
        place: &Path,
        last: Option<u64>,
    ) -> Result<(Command, Self)> {
        let pipe = place.join("sync-points");
        if !pipe.exists() {
            let made = Command::new("mkfifo").arg(&pipe).status()?;
            ensure!(made.success(), "mkfifo {}", pipe.display());
        }
        let mut watched = Command::new("strace");
        // `-D`: the process that is started is the node itself, and strace is beside it.
        watched.args(["-D", "-f", "--seccomp-bpf", "-qqq", "-e", "signal=none"]);
        watched.args(["-e", &format!("trace={CALLS}")]);
        watched.args(["-e", &format!("inject={CALLS}:delay_exit={HOLD}"), "-o"]);
        watched.arg(&pipe).arg("--").arg(command.get_program());
        watched.args(command.get_args());
        for (name, value) in command.get_envs() {
            watched.env(
                name,
                value.context("nothing is taken out of the environment")?,
            );
        }
        let counted = Arc::new(Counted {
            seen: AtomicU64::new(0),
            process: AtomicI32::new(0),
        });
        let counter = std::thread::spawn({
            let counted = Arc::clone(&counted);
            move || counted.count(&pipe, last)
        });
        let points = Self {
            counted,
            counter: Some(counter),
        };
        Ok((watched, points))
    }

    /// Says which process it is.
    pub(crate) fn begin(&self, process: i32) {
        self.counted.process.store(process, Ordering::SeqCst);
    }

    /// How many sync points there were, once the process has ended.
    #[must_use]
    pub fn ended(mut self) -> u64 {
        if let Some(counter) = self.counter.take() {
            // It only counts lines, and ends with the pipe.
            drop(counter.join());
        }
        self.counted.seen.load(Ordering::SeqCst)
    }
}

impl Counted {
    fn count(&self, pipe: &Path, last: Option<u64>) {
        let Ok(pipe) = File::open(pipe) else {
            return;
        };
        // A call that is interrupted by another thread's is told in two lines; the second has no name in
        // front and is not counted.
        let is_call = |line: &String| {
            let call = line.split_whitespace().nth(1).unwrap_or_default();
            CALLS.split(',').any(|name| call.starts_with(name))
        };
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if !is_call(&line) {
                continue;
            }
            let seen = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
            if last.is_some_and(|last| seen >= last)
                && let Some(process) = Pid::from_raw(self.process.load(Ordering::SeqCst))
            {
                // Fails only when it has ended already.
                let _is_gone = kill_process(process, Signal::KILL);
            }
        }
    }
}
