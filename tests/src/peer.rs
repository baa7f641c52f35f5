//! One node of the lab: a real process with its own home, spoken to through its command line.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Lab, SyncPoints, Tree, meter};

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; -1 when a signal ended the command.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The last line of standard output, as JSON: long commands print progress lines before it.
    ///
    /// # Errors
    /// When there is no such line.
    pub fn json(&self) -> Result<Value> {
        let line = self
            .stdout
            .lines()
            .rfind(|line| line.starts_with(['{', '[']));
        let line = line.with_context(|| format!("no JSON in {self:?}"))?;
        Ok(serde_json::from_str(line)?)
    }

    /// The code of the error that the command failed with, as docs/cli.md names it.
    ///
    /// # Errors
    /// When it did not fail, or not in a way that is described.
    pub fn refusal(&self) -> Result<String> {
        let error: Value = serde_json::from_str(self.stderr.lines().last().unwrap_or_default())
            .with_context(|| format!("no error in {self:?}"))?;
        string(&error, "/error/code")
    }

    /// The same answer, if the command succeeded.
    ///
    /// # Errors
    /// When it did not.
    pub fn good(self) -> Result<Self> {
        if self.code == 0 {
            Ok(self)
        } else {
            bail!("exit code {}: {self:?}", self.code)
        }
    }
}

/// A node and its places on disk.
#[derive(Debug)]
pub struct Peer {
    name: String,
    program: PathBuf,
    place: PathBuf,
    namespace: Option<String>,
    process: Option<Child>,
}

impl Peer {
    pub(crate) fn new(
        name: &str,
        program: &Path,
        place: PathBuf,
        namespace: Option<String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            place,
            namespace,
            process: None,
        }
    }

    /// The peer's name, which is its device name too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.place.join("home")
    }

    /// A directory of this peer for user files; it is not made here.
    #[must_use]
    pub fn dir(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// Writes a user file, making its directories.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = self.place.join(path);
        fs::create_dir_all(path.parent().context("a path inside the peer's place")?)?;
        Ok(fs::write(path, bytes)?)
    }

    /// Reads a user file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.place.join(path))?)
    }

    /// What one of the peer's directories holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tree(&self, name: &str) -> Result<Tree> {
        Tree::read(&self.dir(name))
    }

    /// Starts the node and waits until it answers.
    ///
    /// # Errors
    /// When it ends instead, with what it printed.
    pub fn start(&mut self) -> Result<()> {
        let log = fs::File::create(self.place.join("node.out"))?;
        let child = self
            .command(&["up"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        Lab::eventually("the node answers", || {
            self.run(&["status"])?.good().map(drop)
        })
        .with_context(|| fs::read_to_string(self.place.join("node.out")).unwrap_or_default())
    }

    /// Starts the node so that it is killed at its sync point number `last`, or only counts them. Waits until
    /// it answers, or has ended by then.
    ///
    /// # Errors
    /// When it can neither be started nor watched.
    pub fn start_until(&mut self, last: Option<u64>) -> Result<SyncPoints> {
        let log = fs::File::create(self.place.join("node.out"))?;
        let (mut command, points) = SyncPoints::watch(&self.command(&["up"]), &self.place, last)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the `strace` command is missing: install strace")?;
        points.begin(i32::try_from(child.id())?);
        self.process = Some(child);
        Lab::eventually("the node answers or ends", || {
            if self.has_ended()? {
                return Ok(());
            }
            self.run(&["status"])?.good().map(drop)
        })
        .with_context(|| fs::read_to_string(self.place.join("node.out")).unwrap_or_default())?;
        Ok(points)
    }

    /// Whether the process of the node is over, by whatever.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(child) => Ok(child.try_wait()?.is_some()),
            None => Ok(true),
        }
    }

    /// Starts the process of the node and does not wait for anything; the caller owns it.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub fn spawn_up(&self) -> Result<Child> {
        self.spawn(&["up"], &[])
    }

    /// Starts a command with more in its environment, and does not wait for it; the caller owns it.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub fn spawn(&self, arguments: &[&str], environment: &[(&str, &Path)]) -> Result<Child> {
        let mut command = self.command(arguments);
        command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.spawn()?)
    }

    /// Runs one command, which starts a node in the background when none runs.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub fn run_starting(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = self.command(arguments);
        command.arg("--json").stdin(Stdio::null());
        Ok(Answer::of(&command.output()?))
    }

    /// As [`Peer::run_starting`], with one more descriptor open for whatever the command starts: the pipe of its
    /// standard output. Returns when nobody holds that pipe any more.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub fn run_handing_down(&self, arguments: &[&str]) -> Result<Answer> {
        let command = self.command(arguments);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$@\" 3>&1", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(
                name,
                value.context("nothing is taken out of the environment")?,
            );
        }
        Ok(Answer::of(&shell.stdin(Stdio::null()).output()?))
    }

    /// Runs one command against the node; never starts a node by itself.
    ///
    /// # Errors
    /// When the program cannot be run at all.
    pub fn run(&self, arguments: &[&str]) -> Result<Answer> {
        self.run_with(arguments, "")
    }

    /// As [`Peer::run`], with `input` on standard input.
    ///
    /// # Errors
    /// As [`Peer::run`].
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<Answer> {
        let mut command = self.command(arguments);
        command.args(["--no-start", "--json"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {:?}", self.program))?;
        let mut stdin = child.stdin.take().context("standard input was piped")?;
        // A command that does not read its input may close it first; its answer tells.
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if let Err(error) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
        Ok(Answer::of(&output))
    }

    /// Shares the directory `name` and returns the join code.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn share(&self, name: &str) -> Result<String> {
        let dir = self.dir(name);
        let answer = self.run(&["share", &text(&dir)])?.good()?.json()?;
        string(&answer, "/invite/code")
    }

    /// Another code for the mesh.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn invite(&self, mesh: &str, more: &[&str]) -> Result<String> {
        let arguments: Vec<&str> = ["invite", mesh].iter().chain(more).copied().collect();
        string(&self.run(&arguments)?.good()?.json()?, "/code")
    }

    /// Joins by `code` into the directory `name`; `via` gives the address of the other node when
    /// there is nothing to discover it by.
    ///
    /// # Errors
    /// When the program cannot be run; the answer may be a refusal.
    pub fn join(&self, code: &str, name: &str, via: Option<&Self>) -> Result<Answer> {
        let dir = text(&self.dir(name));
        let mut arguments = vec!["join", "--yes", "-", dir.as_str()];
        let address = via.map(Self::address).transpose()?;
        if let Some(address) = &address {
            arguments.extend(["--peer", address.as_str()]);
        }
        self.run_with(&arguments, &format!("{code}\n"))
    }

    /// An address of this node on the loopback interface or the lab's LAN.
    ///
    /// # Errors
    /// When the node does not answer or has none.
    pub fn address(&self) -> Result<String> {
        let status = self.run(&["status"])?.good()?.json()?;
        let addresses = status.pointer("/node/addresses").and_then(Value::as_array);
        let mut addresses = addresses.into_iter().flatten().filter_map(Value::as_str);
        addresses
            .next()
            .map(str::to_owned)
            .context("the node listens nowhere")
    }

    /// Waits until everything known is applied and here, with at least `members` others connected.
    ///
    /// # Errors
    /// With the node's own reasons when that does not come.
    pub fn settled(&self, members: usize) -> Result<()> {
        let members = members.to_string();
        self.run(&["wait", "--timeout", "90", "--members", &members])?
            .good()
            .map(drop)
    }

    /// Ends the node as a power cut would end its process.
    ///
    /// # Errors
    /// When it was not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the node is not running")?;
        self.signal(&child, Signal::KILL)?;
        child.wait()?;
        Ok(())
    }

    /// Asks the node to stop, waits for it, and returns its exit code.
    ///
    /// # Errors
    /// When it was not running.
    pub fn stop(&mut self) -> Result<i32> {
        let mut child = self.process.take().context("the node is not running")?;
        self.signal(&child, Signal::TERM)?;
        Ok(child.wait()?.code().unwrap_or(-1))
    }

    /// Stops the process without telling anybody, as a laptop lid does.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.signal(
            self.process.as_ref().context("the node is not running")?,
            Signal::STOP,
        )
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.signal(
            self.process.as_ref().context("the node is not running")?,
            Signal::CONT,
        )
    }

    /// Processor time that the node has used so far, in seconds, user and system together.
    ///
    /// # Errors
    /// When it is not running.
    pub fn cpu_seconds(&self) -> Result<f64> {
        meter::cpu_seconds(self.process_id()?)
    }

    /// Memory that the node holds now, in bytes.
    ///
    /// # Errors
    /// When it is not running.
    pub fn resident_bytes(&self) -> Result<u64> {
        meter::resident_bytes(self.process_id()?)
    }

    /// Bytes that left the peer's network card so far; only in a lab with a LAN.
    ///
    /// # Errors
    /// When the peer has no network card of its own.
    pub fn sent_bytes(&self) -> Result<u64> {
        let namespace = self
            .namespace
            .as_deref()
            .context("a peer on loopback has no card")?;
        let counter = "/sys/class/net/eth0/statistics/tx_bytes";
        let read = Command::new("ip")
            .args(["netns", "exec", namespace, "cat", counter])
            .output()?;
        Ok(String::from_utf8_lossy(&read.stdout).trim().parse()?)
    }

    fn process_id(&self) -> Result<u32> {
        let child = self.process.as_ref().context("the node is not running")?;
        Ok(child.id())
    }

    fn signal(&self, child: &Child, signal: Signal) -> Result<()> {
        let pid = i32::try_from(child.id())?;
        Ok(kill_process(
            Pid::from_raw(pid).context("a process has a number")?,
            signal,
        )?)
    }

    /// The command; `ip netns exec` replaces itself by the program, so signals reach the node.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", namespace])
                    .arg(&self.program);
                command
            }
            None => {
                let mut command = Command::new(&self.program);
                command
                    .env("WORMHOLE_LISTEN", "127.0.0.1")
                    .env("WORMHOLE_DISCOVERY", "off");
                command
            }
        };
        command.args(arguments).arg("--home").arg(self.home());
        command
            .env("WORMHOLE_DEVICE_NAME", &self.name)
            .env("HOME", &self.place);
        command
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // Both fail only when the process is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn string(answer: &Value, pointer: &str) -> Result<String> {
    let value = answer.pointer(pointer).and_then(Value::as_str);
    value
        .map(str::to_owned)
        .with_context(|| format!("no {pointer} in {answer}"))
}
