//! What a user may type: the commands and their arguments, nothing of what they do.
//!
//! The texts here are the help, the manual page and the completions at once. docs/cli.md says the
//! same at more length; a test in `manual` holds the two together.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use wormhole_node::api::{Rate, RoleName};
use wormhole_node::config::ByteCount;

/// Your folders on all your devices, directly, with no server in between
#[derive(Debug, Parser)]
#[command(
    name = "wormhole",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not in sync in time (wait), \
    4 no node is running (--no-start), 5 the home is in use by another process"
)]
pub(crate) struct Line {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Arguments that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory with this node's keys, settings and data [default: the platform's data directory]
    #[arg(long, global = true, value_name = "DIR", env = "WORMHOLE_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Fail with exit code 4 when no node is running, instead of starting one
    #[arg(long, global = true)]
    pub(crate) no_start: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run this device's node until Ctrl-C
    Up(Up),
    /// Stop the node that runs in this home
    Down,
    /// Show what this device shares and how far it is, or why a file is not synced
    Status {
        /// A file or directory of a synced folder: why is it, or is it not, synced?
        path: Option<PathBuf>,
    },
    /// Follow what happens, one JSON object a line
    Events,
    /// Make a new mesh from a directory and invite a first device
    Share(Share),
    /// Invite another device, or list the invites that are still good
    Invite(Invite),
    /// Let a device in that waits for it, or list those that wait
    Admit {
        /// Its name, or the beginning of its id [default: list the devices that wait]
        device: Option<String>,
    },
    /// Turn a device away that waits to be let in
    Refuse {
        /// Its name, or the beginning of its id
        device: String,
    },
    /// Join a mesh by a code or a link, and sync it into a directory
    Join(Join),
    /// Sync a mesh, or a directory of it, into one more directory
    Sync {
        /// What to sync
        #[arg(value_name = "MESH[:PATH]")]
        place: Place,
        /// Where to; made when it does not exist
        dir: PathBuf,
    },
    /// Stop syncing a directory; its files stay
    Unbind {
        /// The directory of a synced folder
        dir: PathBuf,
    },
    /// Move a synced folder, or tell where one is that was moved already
    Move {
        /// The directory of a synced folder, where it is or was
        dir: PathBuf,
        /// Where it goes, or is now
        #[arg(value_name = "NEWDIR")]
        to: PathBuf,
    },
    /// Leave a mesh and forget it on this device; the files of its folders stay
    Leave(Leave),
    /// Remove another device from a mesh: it gets nothing new any more
    Revoke(Revoke),
    /// Make a phrase for the paper that brings a mesh back when its admins are lost
    Recovery {
        /// The mesh, by name or by the beginning of its id
        mesh: String,
    },
    /// Make this device admin of a mesh by its recovery phrase
    Recover {
        /// The mesh, by name or by the beginning of its id
        mesh: String,
    },
    /// Give a device of a mesh another role
    Role {
        /// The device, by name, by the beginning of its id, or by its words
        device: String,
        /// What it may do from now on
        #[arg(value_parser = role)]
        role: RoleName,
        /// The mesh, by name or by the beginning of its id [default: the only one with such a device]
        #[arg(long)]
        mesh: Option<String>,
    },
    /// List a directory of a mesh
    Ls {
        /// What to list
        #[arg(value_name = "MESH[:PATH]")]
        place: Place,
    },
    /// Write a file of a mesh to the standard output
    Cat {
        /// The file
        #[arg(value_name = "MESH:PATH")]
        place: Place,
    },
    /// List what was changed on two devices apart; both versions are kept
    Conflicts {
        /// Only of this mesh
        mesh: Option<String>,
    },
    /// End a conflict on every device: keep one version, or both
    Resolve {
        /// A conflict copy or the file beside it: a path here, or MESH:PATH
        path: PathBuf,
        /// The named version, the other one (it gets the plain name), or both as they are named
        #[arg(long, value_enum, value_name = "this|other|both")]
        keep: KeptWord,
    },
    /// List the meshes that this device is in
    Meshes,
    /// List the devices of a mesh
    Members {
        /// The mesh, by name or by the beginning of its id
        mesh: String,
    },
    /// List other devices: how they are connected, how fast
    Peers,
    /// List what is being sent and received
    Transfers,
    /// Read everything that is stored here and heal, or name, what is damaged
    Check {
        /// Only this mesh
        mesh: Option<String>,
    },
    /// Stop syncing a mesh, or all, until `resume`
    Pause {
        /// Only this mesh
        mesh: Option<String>,
    },
    /// Go on syncing
    Resume {
        /// Only this mesh
        mesh: Option<String>,
    },
    /// Show or set how much bandwidth may be used
    Limit(Limit),
    /// Wait until everything known is applied and here (exit code 3 when it is not in time)
    Wait(Wait),
    /// Connect to a device by its address and remember it
    Dial {
        /// For example 192.168.1.4:4711 or [fe80::1%eth0]:4711
        #[arg(value_name = "ADDR")]
        peer: String,
    },
    /// Look through a synced folder now instead of waiting for the system to report changes
    Rescan {
        /// The directory of a synced folder
        dir: PathBuf,
    },
    /// Pass on the deletions that wait because very much vanished at once, or have it all back
    ConfirmDeletions {
        /// The directory of a synced folder
        dir: PathBuf,
        /// Bring back what vanished
        #[arg(long)]
        undo: bool,
    },
    /// List what others removed or replaced in synced folders, and what is kept of it
    Trash {
        /// Only of this synced folder
        dir: Option<PathBuf>,
    },
    /// Bring a file or directory back from the trash to where it stood
    // Its own `--version` is another.
    #[command(disable_version_flag = true)]
    Restore {
        /// Where it stood
        path: PathBuf,
        /// 1 for the last that stood there, 2 for the one before
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        version: u64,
    },
    /// Show all of it on this machine: three nodes, one folder, some mischief
    Demo(Demo),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page (`wormhole man | man -l -`)
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Run in the background and return when the node is ready
    #[arg(long)]
    pub(crate) detach: bool,
    /// UDP and TCP port (0: any free one)
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Listen on this address only (may be repeated)
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Vec<IpAddr>,
    /// The name that other devices see
    #[arg(long, value_name = "NAME")]
    pub(crate) device_name: Option<String>,
    /// Look for devices on the local network, or do not
    #[arg(long, value_enum, value_name = "on|off")]
    pub(crate) discovery: Option<OnOff>,
    /// How much to log: error, warn, info, debug, trace, or tracing directives
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// What a start in the background hands to the process it makes
    #[arg(long, hide = true)]
    pub(crate) own_session: bool,
    /// End as soon as the standard input, a pipe, does: for programs that run nodes of their own
    #[arg(long, hide = true, conflicts_with_all = ["detach", "own_session"])]
    pub(crate) until_stdin_ends: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnOff {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeptWord {
    This,
    Other,
    Both,
}

/// What an invite gives, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Offer {
    /// What the new device may do
    #[arg(long, value_parser = role, value_name = "ROLE", default_value = "writer")]
    pub(crate) role: RoleName,
    /// How long the code is good for, for example 15m or 24h
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "15m")]
    pub(crate) ttl: Duration,
    /// Who comes with it has to be let in by `wormhole admit` [default: for admins, and for codes that are good for
    /// longer than an hour]
    #[arg(long, overrides_with = "no_ask")]
    pub(crate) ask: bool,
    /// Who comes with it is let in at once
    #[arg(long, overrides_with = "ask")]
    pub(crate) no_ask: bool,
    /// Stay until a device has joined, and say who
    #[arg(long)]
    pub(crate) wait: bool,
}

impl Offer {
    /// Whether somebody has to let the device in, if the user said.
    pub(crate) fn asks(&self) -> Option<bool> {
        match (self.ask, self.no_ask) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// The mesh, by name or by the beginning of its id
    #[arg(required_unless_present = "list")]
    pub(crate) mesh: Option<String>,
    /// List the invites that are still good, with their codes
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) offer: Offer,
}

#[derive(Debug, Args)]
pub(crate) struct Share {
    /// The directory; nothing in it is copied or moved
    pub(crate) dir: PathBuf,
    /// Name of the mesh [default: the directory's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) offer: Offer,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// A code or link, or `-` to read it from the standard input; asked for when absent
    ///
    /// While a command runs, other users of this machine can see its arguments: typing the code
    /// when asked for it is safer.
    #[arg(value_name = "CODE|LINK|-")]
    pub(crate) ticket: Option<String>,
    /// Where to sync the mesh [default: its name, in your home directory]
    pub(crate) dir: Option<PathBuf>,
    /// Keep all content for the others, with no folder on this device
    #[arg(long, conflicts_with = "dir")]
    pub(crate) seed: bool,
    /// Try this address, too (may be repeated)
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer: Vec<String>,
    /// Join whatever the code leads to, without being asked
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Stay until all content is here [default: when on a terminal]
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,
    /// Return as soon as the mesh is joined
    #[arg(long, overrides_with = "wait")]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The device, by name, by the beginning of its id, or by its words
    pub(crate) device: String,
    /// The mesh, by name or by the beginning of its id [default: the only one with such a device]
    #[arg(long)]
    pub(crate) mesh: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// The mesh, by name or by the beginning of its id
    pub(crate) mesh: String,
    /// Also when no connected device is known to have all that this one has
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Limit {
    /// Those of this mesh, within those of the node [default: those of the node]
    pub(crate) mesh: Option<String>,
    /// For sending: bytes a second such as 2MiB, or `off`
    #[arg(long, value_parser = rate, value_name = "RATE")]
    pub(crate) up: Option<Rate>,
    /// For receiving: bytes a second such as 500KB, or `off`
    #[arg(long, value_parser = rate, value_name = "RATE")]
    pub(crate) down: Option<Rate>,
    /// Forget what was set: the limits of the settings count again, and a mesh has none of its own
    #[arg(long, conflicts_with_all = ["up", "down"])]
    pub(crate) reset: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Only for this mesh
    pub(crate) mesh: Option<String>,
    /// Give up after so many seconds, with exit code 3 and the reasons
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Count only once so many other members are connected
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) members: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Share a copy of this directory instead of a made-up sample
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Leave the three folders and homes in place to look at
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `MESH` or `MESH:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) mesh: String,
    pub(crate) path: String,
}

impl std::str::FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mesh, path) = text.split_once(':').unwrap_or((text, ""));
        if mesh.is_empty() {
            return Err(BadPlace);
        }
        let path = path.trim_matches('/').to_owned();
        Ok(Self {
            mesh: mesh.to_owned(),
            path,
        })
    }
}

/// The mesh is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("name the mesh before the colon, for example Designs:drafts/plan.md")]
pub(crate) struct BadPlace;

fn role(text: &str) -> Result<RoleName, &'static str> {
    match text {
        "admin" => Ok(RoleName::Admin),
        "writer" => Ok(RoleName::Writer),
        "reader" => Ok(RoleName::Reader),
        "seed" => Ok(RoleName::Seed),
        _ => Err("a role is admin, writer, reader or seed"),
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a time is a number and s, m, h or d, for example 90s, 15m or 24h";
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| FORM)?;
    let unit = match text.strip_prefix(digits) {
        Some("s" | "") => 1,
        Some("m") => 60,
        Some("h") => 60 * 60,
        Some("d") => 24 * 60 * 60,
        Some(_) | None => return Err(FORM),
    };
    let seconds = number
        .checked_mul(unit)
        .filter(|seconds| *seconds > 0)
        .ok_or(FORM)?;
    Ok(Duration::from_secs(seconds))
}

fn rate(text: &str) -> Result<Rate, String> {
    if matches!(text, "off" | "unlimited") {
        return Ok(Rate::Unlimited);
    }
    let amount: ByteCount = text
        .trim_end_matches("/s")
        .parse()
        .map_err(|error| format!("{error}"))?;
    Ok(Rate::BytesPerSecond(amount.bytes()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Line::command().debug_assert();
    }

    #[test]
    fn a_place_names_a_mesh_and_perhaps_a_path() {
        let place = |mesh: &str, path: &str| Place {
            mesh: mesh.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!("Designs".parse(), Ok(place("Designs", "")));
        assert_eq!("Designs:/a/b:c/".parse(), Ok(place("Designs", "a/b:c")));
        assert_eq!(":a".parse::<Place>(), Err(BadPlace));
    }

    #[test]
    fn times_have_units_and_are_never_zero() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        for wrong in [
            "",
            "m",
            "0s",
            "5y",
            "-1s",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_command_takes_home_json_and_no_start() {
        let line = ["wormhole", "meshes", "--json", "--home", "/h", "--no-start"];
        let line = Line::try_parse_from(line).unwrap();
        assert!(line.global.json && line.global.no_start);
        assert_eq!(line.global.home, Some(PathBuf::from("/h")));
    }
}
