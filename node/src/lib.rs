//! The conductor: the only room that knows all the others.
//!
//! A node is one running Wormhole on one device. This crate opens its [home], reads its [config],
//! opens the replica and the store of every mesh, runs folders and network, and offers all of it as
//! a local [api]. The `wormhole` binary beside it is a client of that API, and the program that
//! starts a node.

pub mod api;
#[cfg(test)]
#[path = "../../tests/bend.rs"]
mod bend;
pub mod binding;
mod change;
pub mod client;
pub mod config;
pub mod error;
pub mod event;
mod follow;
pub mod home;
mod inbound;
pub mod log;
pub mod node;
mod outbound;
mod policy;
pub mod recovery;
mod rotation;
mod source;
mod status;
pub mod tasks;
mod upkeep;

pub use node::{Ended, Node};
