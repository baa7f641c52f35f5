//! Peers: who they are, where they are, how to reach them, and what is said to them.
//!
//! The lower half moves bytes between two authenticated devices: [`Identity`] says who we are,
//! [`PeerAddr`] where somebody is, `discovery` finds devices without a server, `transport` brings QUIC
//! and TCP, `streams` opens and accepts byte streams on whatever connection is best. The upper half
//! speaks over those streams: `hello` proves membership, `sync` exchanges metadata, `serve` and `fetch`
//! exchange chunks, `invite` lets a device join.
//!
//! Everything outside uses [`Network`]. No libp2p or quinn type leaves this crate.

mod actor;
mod address;
mod attachment;
mod behaviour;
#[cfg(test)]
#[path = "../../tests/bend.rs"]
mod bend;
mod config;
mod discovery;
mod error;
mod fetch;
mod frame;
mod hello;
mod identity;
mod invite;
#[cfg(test)]
mod lab;
mod limit;
mod network;
mod peer;
mod protocol;
mod rate;
mod report;
mod serve;
mod streams;
mod sync;
mod transport;
mod version;

pub use address::{AddrError, PeerAddr, Wire};
pub use attachment::{AttachedMesh, Exchange};
pub use config::{Discovery, NetworkConfig};
pub use error::{BindError, DialError};
pub use fetch::{FetchError, Transfer};
pub use identity::{Identity, IdentityError, words};
pub use invite::{
    Asking, Code, CodeError, Consent, DEFAULT_TTL, Invite, InviteError, InviteOffer, JoinError,
    Joined, Link, LinkError, MAX_TTL, Nameplate, Proposal, Ticket, TicketError, Wish,
};
pub use limit::RateLimits;
pub use network::Network;
pub use peer::{Misbehaviour, Neighbour, NetworkEvent, PathKind, PeerStatus};
pub use report::{Hindrance, Report};
pub use serve::Upload;
pub use version::{VersionMismatch, VersionRange};
