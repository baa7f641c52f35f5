//! `rsync` over `ssh` on the loopback address, as what a big file is compared with.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

const PORT: &str = "22022";

/// Copies `file` with `rsync` over `ssh`, and returns the seconds that took; `None` when either
/// is not installed.
pub(crate) fn seconds(scratch: &Path, file: &Path) -> Result<Option<f64>> {
    let sshd = Path::new("/usr/sbin/sshd");
    if !sshd.exists() || Command::new("rsync").arg("--version").output().is_err() {
        return Ok(None);
    }
    let place = scratch.join("ssh");
    fs::create_dir_all(&place)?;
    fs::create_dir_all("/run/sshd")?;
    let key = place.join("key");
    if !key.exists() {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status()?;
        ensure!(made.success(), "ssh-keygen makes a key");
    }
    let _server = Server::start(sshd, &key)?;
    let shell = format!(
        "ssh -p {PORT} -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o Compression=no",
        key.display()
    );
    let target = format!("127.0.0.1:{}", place.join("copy.bin").display());
    let started = Instant::now();
    // The copy must be on disk, as ours is when we say so.
    let copied = Command::new("rsync")
        .args(["--fsync", "-e", &shell])
        .arg(file)
        .arg(&target)
        .status()?;
    ensure!(copied.success(), "rsync copies");
    Ok(Some(started.elapsed().as_secs_f64()))
}

/// An `sshd` for one copy, which lets in the key it is its own host key of.
struct Server(Child);

impl Server {
    fn start(program: &Path, key: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["-D", "-e", "-f", "/dev/null", "-p", PORT, "-h"])
            .arg(key);
        command.args(["-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no"]);
        command.args(["-o", "PermitRootLogin=yes", "-o"]);
        command.arg(format!("AuthorizedKeysFile={}.pub", key.display()));
        let server = Self(command.stderr(Stdio::null()).spawn()?);
        for _ in 0..500 {
            if std::net::TcpStream::connect(format!("127.0.0.1:{PORT}")).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the server is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
