//! What a process has used, as the kernel counts it in `/proc`.
//!
//! Called by `peer`; knows nothing of nodes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Fields of `/proc/PID/stat` as proc(5) numbers them; the third is the first after the name.
const FIRST_AFTER_NAME: usize = 3;
const USER_TICKS: usize = 14;
const SYSTEM_TICKS: usize = 15;

/// Processor time that the process has used so far, in seconds, user and system together.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let ticks = ticks(&read(process, "stat")?)?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory that the process holds now, in bytes.
///
/// # Errors
/// When there is no such process.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    let statm = read(process, "statm")?;
    let pages = statm.split_whitespace().nth(1);
    let pages = pages.context("statm has two fields")?.parse::<u64>()?;
    Ok(pages * rustix::param::page_size() as u64)
}

fn read(process: u32, file: &str) -> Result<String> {
    let path = Path::new("/proc").join(process.to_string()).join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Clock ticks of a stat line, user and system together. Fields are counted, never left out: some
/// are negative, such as the terminal's group of a process that has no terminal.
fn ticks(stat: &str) -> Result<u64> {
    let (_, rest) = stat
        .rsplit_once(')')
        .context("a stat line names the program")?;
    let field = |number: usize| -> Result<u64> {
        let text = rest.split_whitespace().nth(number - FIRST_AFTER_NAME);
        let text = text.with_context(|| format!("a stat line has a field {number}"))?;
        text.parse().with_context(|| format!("field {number}"))
    };
    Ok(field(USER_TICKS)? + field(SYSTEM_TICKS)?)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use anyhow::ensure;

    use super::*;
    use crate::Lab;

    /// Burns time in user mode, writes how much the shell itself counted, then waits to be measured.
    const BURN: &str = "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; \
                        echo $$ > pid; times > times.part; mv times.part times; exec sleep 600";

    /// Ends the process, so that a failed test leaves none.
    struct Burner(Child);

    impl Drop for Burner {
        fn drop(&mut self) {
            // Both fail only when it is gone already.
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    /// What `times` says of the shell: its first line, as in `0m1.230s 0m0.010s`.
    fn burnt(text: &str) -> Result<(f64, f64)> {
        let seconds = |word: &str| -> Result<f64> {
            let (minutes, rest) = word.split_once('m').context("minutes")?;
            let seconds = rest.trim_end_matches('s').parse::<f64>()?;
            Ok(minutes.parse::<f64>()? * 60.0 + seconds)
        };
        let mut words = text.split_whitespace();
        let mut next = || seconds(words.next().context("two times")?);
        Ok((next()?, next()?))
    }

    /// Runs `command` around the burning shell and compares what is measured with what it counted.
    fn measured(mut command: Command) -> Result<()> {
        let dir = tempfile::tempdir()?;
        command.current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _burner = Burner(command.spawn()?);
        let mut times = String::new();
        Lab::eventually("the time is burnt", || {
            times = fs::read_to_string(dir.path().join("times"))?;
            Ok(())
        })?;
        let pid = fs::read_to_string(dir.path().join("pid"))?.trim().parse()?;
        let (user, system) = burnt(&times)?;
        ensure!(user > 0.05, "the loop runs in user mode: {times}");
        let measured = cpu_seconds(pid)?;
        // Starting `sleep` costs a little more; the kernel counts in hundredths.
        let lowest = user + system - 0.03;
        ensure!(
            (lowest..lowest + 0.5).contains(&measured),
            "{measured} s measured, {user} + {system} s burnt"
        );
        Ok(())
    }

    #[test]
    fn processor_time_is_user_and_system_time_without_a_terminal() -> Result<()> {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", BURN]);
        measured(command)
    }

    #[test]
    fn processor_time_is_user_and_system_time_on_a_terminal() -> Result<()> {
        let mut command = Command::new("script");
        command.args(["--quiet", "--command", BURN, "/dev/null"]);
        measured(command)
    }

    #[test]
    fn negative_fields_are_counted_and_names_with_brackets_are_not() -> Result<()> {
        let line = "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 2 3 4 700 50 9 9 20 0 1 0 5 6 7";
        ensure!(ticks(line)? == 750);
        let line = line.replace(" -1 ", " 12 ");
        ensure!(ticks(&line)? == 750);
        ensure!(ticks("7 (cut) S 1").is_err());
        Ok(())
    }
}
