//! Errors of the lower half: binding, dialling, opening streams.
//!
//! Blame is visible in the variants: what the peer did, what the path did, what we did. The upper half's
//! errors live beside their functions.

use std::{io, net::IpAddr, path::PathBuf};

use wormhole_crdt::DeviceId;

use crate::{address::PeerAddr, streams::Protocol};

/// Why the network could not be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has the port.
    #[error("port {port} is in use on {ip}; choose another with WORMHOLE_PORT or the config file")]
    PortInUse {
        /// The address to listen on.
        ip: IpAddr,
        /// The port that was asked for.
        port: u16,
    },
    /// None of the configured addresses can be listened on.
    #[error("cannot listen on {ip}; check `listen` in the config file")]
    Listen {
        /// The last address that failed.
        ip: IpAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration names no address to listen on.
    #[error("no address to listen on; check `listen` in the config file")]
    NoAddress,
    /// The address book cannot be read or written.
    #[error("cannot open the address book {path}")]
    Book {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The device key cannot make a TLS certificate.
    #[error("cannot make a certificate for the device key")]
    Certificate,
}

/// Why a device could not be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nothing answers there.
    #[error("nothing answers at {addr}; is the other device on, and is the address right?")]
    Unreachable {
        /// The address that was tried.
        addr: PeerAddr,
    },
    /// Something answers, but it is not the device that was asked for.
    #[error("another device ({found}) answers at {addr}")]
    WrongDevice {
        /// The address that was tried.
        addr: PeerAddr,
        /// Who answered.
        found: DeviceId,
    },
    /// Something answers, but it does not speak to us.
    #[error("{addr} answers, but not as a Wormhole device")]
    Handshake {
        /// The address that was tried.
        addr: PeerAddr,
    },
    /// The device there does not let us in, or we do not let it: it is banned or has enough connections.
    #[error(
        "the connection to {addr} is refused for now; try again in a minute (after repeated trouble it takes up to an hour)"
    )]
    Refused {
        /// The address that was tried.
        addr: PeerAddr,
    },
    /// The address is this device itself.
    #[error("{addr} is this device itself")]
    Myself {
        /// The address that was tried.
        addr: PeerAddr,
    },
    /// We do not listen on an address from which that one can be reached.
    #[error("{addr} cannot be reached from the addresses this device listens on")]
    NoRoute {
        /// The address that was tried.
        addr: PeerAddr,
    },
    /// No address is known for the device.
    #[error("no address is known for device {device}; give one with --peer")]
    NoAddress {
        /// The device.
        device: DeviceId,
    },
    /// The device misbehaved and is not spoken to for a while.
    #[error("device {device} misbehaved and is banned for a while")]
    Banned {
        /// The device.
        device: DeviceId,
    },
    /// Too many dials are waiting already.
    #[error("too many connection attempts at once")]
    Busy,
    /// The network is shutting down.
    #[error("the network is stopping")]
    Stopped,
}

/// Why a stream could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// There is no connection and none could be made.
    #[error("device {peer} cannot be reached")]
    Unreachable {
        /// The device.
        peer: DeviceId,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The device does not speak this protocol, or not this version of it.
    #[error("device {peer} does not speak {protocol}; update the older of the two")]
    Unsupported {
        /// The device.
        peer: DeviceId,
        /// What was asked for.
        protocol: Protocol,
    },
    /// The device says that we have too many streams of this protocol open.
    #[error("device {peer} refuses more {protocol} streams from this device")]
    PeerQuota {
        /// The device.
        peer: DeviceId,
        /// What was asked for.
        protocol: Protocol,
    },
    /// The device serves as many streams of this protocol as it can. Try again later.
    #[error("device {peer} is too busy for {protocol}")]
    Busy {
        /// The device.
        peer: DeviceId,
        /// What was asked for.
        protocol: Protocol,
    },
    /// The device did not answer in time, or the connection went away.
    #[error("device {peer} did not answer for {protocol}")]
    Lost {
        /// The device.
        peer: DeviceId,
        /// What was asked for.
        protocol: Protocol,
    },
    /// Too many streams wait to be opened here.
    #[error("too many streams to device {peer} wait to be opened")]
    Backlog {
        /// The device.
        peer: DeviceId,
    },
    /// The network is shutting down.
    #[error("the network is stopping")]
    Stopped,
}
