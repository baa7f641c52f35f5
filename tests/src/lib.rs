//! Proofs: a lab in which whole nodes run as real processes, with networks and faults of its own.
//!
//! A [`Lab`] owns a directory and, when asked, a switch of network namespaces; a [`Peer`] in it is
//! one `wormhole` process with its own home. The lab only speaks to a node as a person would: the
//! command line, its `--json`, files on disk and signals. The cases that use it are in `cases/`.

pub mod fuzz;
pub mod lab;
mod meter;
pub mod peer;
pub mod switch;
mod sync_point;
pub mod tree;

pub use lab::Lab;
pub use peer::{Answer, Peer};
pub use sync_point::SyncPoints;
pub use tree::Tree;
