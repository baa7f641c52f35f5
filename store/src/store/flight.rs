//! Imports that are under way, whose rows a sweep must not take for garbage.
//!
//! An import takes a ticket before it writes its first row; a sweep asks for the oldest one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::index::{Index, NodeId};

/// All imports that are under way.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    next_ticket: u64,
    /// By ticket: the generation and the first free node when it began.
    tickets: BTreeMap<u64, (u32, NodeId)>,
}

/// Keeps one import registered until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    in_flight: &'a InFlight,
    number: u64,
}

impl InFlight {
    /// Registers an import; its rows from now on are safe from sweeps while the ticket lives.
    pub(crate) fn begin(&self, index: &Index) -> Ticket<'_> {
        let mut begun = self.lock();
        let number = begun.next_ticket;
        begun.next_ticket += 1;
        begun
            .tickets
            .insert(number, (index.generation(), index.node_horizon()));
        Ticket {
            in_flight: self,
            number,
        }
    }

    /// The oldest generation and node that an import under way may have written.
    pub(crate) fn oldest(&self, index: &Index) -> (u32, NodeId) {
        let begun = self.lock();
        let (mut generation, mut node) = (index.generation(), index.node_horizon());
        for ticket in begun.tickets.values() {
            generation = generation.min(ticket.0);
            node = node.min(ticket.1);
        }
        (generation, node)
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.in_flight.lock().tickets.remove(&self.number);
    }
}
