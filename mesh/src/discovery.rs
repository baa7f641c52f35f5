//! Finding devices without a server: multicast DNS, a UDP beacon where multicast is dropped, and a book
//! of addresses that worked before.
//!
//! `mdns` and `beacon` each run as one task and report [`Sighting`]s; `roster` keeps them for a while;
//! `book` keeps addresses of known devices for months. Nothing that is found here is believed: whoever
//! answers at an address must prove its key.

mod beacon;
mod book;
mod interface;
mod mdns;
mod roster;
mod sighting;

use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    book::Book,
    roster::Roster,
    sighting::{Presence, Sighting},
};
use crate::config::{Discovery, NetworkConfig};

/// Starts what the configuration asks for. The tasks end when `cancel` does.
pub(crate) fn start(
    config: &NetworkConfig,
    presence: &Presence,
    sightings: &mpsc::Sender<Sighting>,
    tasks: &mut JoinSet<()>,
    cancel: &CancellationToken,
) {
    let scope = interface::Scope::new(config);
    if config.mdns == Discovery::On {
        let run = mdns::run(
            scope.clone(),
            presence.clone(),
            sightings.clone(),
            cancel.clone(),
        );
        tasks.spawn(run);
    }
    if config.beacon == Discovery::On {
        tasks.spawn(beacon::run(
            scope,
            presence.clone(),
            sightings.clone(),
            cancel.clone(),
        ));
    }
}
