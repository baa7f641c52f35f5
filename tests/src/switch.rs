//! A LAN of network namespaces: one namespace holds a bridge, every peer has one of its own that
//! is plugged into it. Nothing of it touches the machine's real network.

use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

/// Distinguishes the switches of one process.
static SWITCHES: AtomicU32 = AtomicU32::new(0);

/// A bridge in a namespace of its own, and the namespaces plugged into it.
#[derive(Debug)]
pub struct Switch {
    prefix: String,
    plugged: AtomicU8,
}

impl Switch {
    /// Makes the bridge.
    ///
    /// # Errors
    /// When this process may not make namespaces or `ip` is not installed.
    pub fn new() -> Result<Self> {
        let number = SWITCHES.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wl{}x{number}", std::process::id());
        let switch = Self {
            prefix,
            plugged: AtomicU8::new(0),
        };
        let hub = switch.hub();
        ip(&["netns", "add", &hub])?;
        ip(&[
            "-n",
            &hub,
            "link",
            "add",
            "br0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        Ok(switch)
    }

    /// Makes a namespace for `peer`, plugs it in, and returns its name.
    ///
    /// # Errors
    /// When `ip` fails, or more than 200 peers are plugged in.
    pub fn plug(&self, peer: &str) -> Result<String> {
        let host = self.plugged.fetch_add(1, Ordering::Relaxed);
        if host >= 200 {
            bail!("a switch has 200 sockets");
        }
        let (hub, namespace) = (self.hub(), self.namespace(peer));
        let port = format!("p{host}");
        ip(&["netns", "add", &namespace])?;
        ip(&[
            "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &namespace,
        ])?;
        ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
        let address = format!("10.99.0.{}/24", u16::from(host) + 1);
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &address,
            "broadcast",
            "+",
            "dev",
            "eth0",
        ])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        ip(&[
            "-n",
            &namespace,
            "route",
            "add",
            "224.0.0.0/4",
            "dev",
            "eth0",
        ])?;
        Ok(namespace)
    }

    /// Sets the cable of `peer` `up` or `down`.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn cable(&self, peer: &str, state: &str) -> Result<()> {
        let namespace = self.namespace(peer);
        ip(&["-n", &namespace, "link", "set", "eth0", state])?;
        if state == "up" {
            // The kernel drops routes that are not the address's own when a link goes down.
            ip(&[
                "-n",
                &namespace,
                "route",
                "replace",
                "224.0.0.0/4",
                "dev",
                "eth0",
            ])?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.prefix)
    }

    fn namespace(&self, peer: &str) -> String {
        format!("{}-{peer}", self.prefix)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else {
            return;
        };
        let text = String::from_utf8_lossy(&listed.stdout);
        let ours = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        for namespace in ours.filter(|name| name.starts_with(&format!("{}-", self.prefix))) {
            // Best effort: a namespace that stays behind harms nobody and is named after us.
            drop(ip(&["netns", "delete", namespace]));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("the `ip` command is missing: install iproute2")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`ip {}` failed (root is needed): {}",
            arguments.join(" "),
            why.trim()
        );
    }
    Ok(())
}
