//! What this device knows about another: the path to it, its rates, and the events people may follow.
//!
//! Plain data for status pages and logs. Kept by the actor, read through [`Network`](crate::Network).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use wormhole_crdt::{DeviceId, MeshId, Role};

use crate::address::{PeerAddr, Wire};

/// How the bytes travel between this device and a peer, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Another node on this machine.
    Local,
    /// A private or link-local address: the same network.
    Lan,
    /// A public address, with nobody in between.
    Direct,
    /// Through a third device.
    Relayed,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "this machine, direct",
            Self::Lan => "LAN, direct",
            Self::Direct => "internet, direct",
            Self::Relayed => "relayed",
        })
    }
}

/// One connected (or lately connected) peer, as shown to people.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The device.
    pub device: DeviceId,
    /// The name it gave itself; `None` until it said hello.
    pub name: Option<String>,
    /// Whether a connection is up now.
    pub connected: bool,
    /// How it is reached; `None` while it is not.
    pub path: Option<PathKind>,
    /// QUIC or TCP; `None` while it is not connected.
    pub wire: Option<Wire>,
    /// The address in use, or the last one that worked.
    pub addr: Option<PeerAddr>,
    /// The meshes that both devices are in and have proved to one another.
    pub meshes: Vec<MeshId>,
    /// Round trip of the last ping.
    pub rtt: Option<Duration>,
    /// Bytes sent per second, over the last seconds.
    pub up_rate: u64,
    /// Bytes received per second, over the last seconds.
    pub down_rate: u64,
    /// The version of the program over there; `None` until it said hello.
    pub version: Option<String>,
    /// The version of the protocol that both speak; `None` until it said hello.
    pub protocol: Option<u16>,
    /// Why the last attempt to reach it, or the last exchange with it, failed.
    pub last_error: Option<String>,
}

/// A device that discovery sees, which may or may not be who it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Who it says it is.
    pub device: DeviceId,
    /// Where it says it listens.
    pub addrs: Vec<PeerAddr>,
}

/// Something that happened on the network. A follower that is too slow misses events, never state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NetworkEvent {
    /// A first connection to a member of one of our meshes is up, or whom we are connected to became one.
    PeerUp {
        /// The device.
        device: DeviceId,
        /// How it is reached.
        path: PathKind,
    },
    /// The last connection to a device that was told of is gone.
    PeerDown {
        /// The device.
        device: DeviceId,
    },
    /// A member can be fetched from: it has proved the mesh, and is ready for it. Told again with each of
    /// its hellos, which it also says when it goes on after a pause.
    MemberPresent {
        /// The mesh.
        mesh: MeshId,
        /// The member.
        device: DeviceId,
    },
    /// A member broke a protocol; it was cut off for a while. Of strangers nothing is told.
    PeerMisbehaved {
        /// The device.
        device: DeviceId,
        /// What it did.
        reason: Misbehaviour,
    },
    /// Another node says, with a valid signature, that it is this device. Told again for as long as it is heard.
    SameKey {
        /// Where it says it listens.
        addr: PeerAddr,
    },
    /// An invite was used: the device is a member now.
    InviteUsed {
        /// The mesh it joined.
        mesh: MeshId,
        /// The new member.
        device: DeviceId,
    },
    /// A device with an invite waits for a person here to admit it.
    JoinAsked {
        /// Into which mesh.
        mesh: MeshId,
        /// Who.
        device: DeviceId,
        /// What it calls itself. Untrusted text.
        name: String,
        /// What it would be.
        role: Role,
    },
    /// An invite was destroyed by wrong codes.
    InviteBurnt {
        /// The mesh it was for.
        mesh: MeshId,
    },
    /// Nobody used an invite in its time.
    InviteExpired {
        /// The mesh it was for.
        mesh: MeshId,
    },
}

/// What a peer did that no honest program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// It sent a frame above the limit, or one that does not decode.
    BadFrame,
    /// It sent bytes that do not have the id they were asked by.
    BadChunk,
    /// It sent metadata that the rules of the mesh refuse.
    BadMetadata,
    /// It asked for more than any honest peer needs.
    Flood,
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadFrame => "it sent a message that breaks the protocol",
            Self::BadChunk => "it sent content that does not match its id",
            Self::BadMetadata => "it sent metadata that the rules refuse",
            Self::Flood => "it asked for too much at once",
        })
    }
}

impl PeerStatus {
    /// A device of which nothing is known but its name.
    pub(crate) fn unconnected(device: DeviceId) -> Self {
        Self {
            device,
            name: None,
            connected: false,
            path: None,
            wire: None,
            addr: None,
            meshes: Vec::new(),
            rtt: None,
            up_rate: 0,
            down_rate: 0,
            version: None,
            protocol: None,
            last_error: None,
        }
    }
}
