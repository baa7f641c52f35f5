//! Many devices edit one tree apart, exchange envelopes in any order, and must agree.
//!
//! A seeded generator ([`World`]) drives peers through random operations, partial exchanges, partitions
//! and restarts. After every step it asserts the laws: what a device's user does changes exactly what
//! it would change on a plain disk (`disk`); the tree has no cycle and no orphan; each entry is shown
//! once and folded names are unique; the index equals the full derivation. In the end all peers show
//! the same tree, and every content that no user saw and replaced is in it.
//!
//! The peers are registers in memory (`memory`), or whole replicas with their sessions (`replicas`). In `epochs`
//! devices come, leave and are removed meanwhile.
//! `SIMULATION_SEEDS` and `SIMULATION_STEPS` ask for more, `SIMULATION_SEED` for one.

use std::collections::BTreeMap;

use crate::edit::{Edit, TreeError};
use crate::entry::{Entry, EntryChange, EntryKey};
use crate::id::EntryId;

mod disk;
mod epochs;
mod hostile;
mod memory;
mod replicas;
mod world;

use world::World;

/// A device in the simulation.
trait Peer: Sized {
    /// The devices of one mesh.
    fn mesh(count: usize, rng: &mut dyn rand::Rng) -> Vec<Self>;
    fn fresh_id(&mut self, parent: EntryId, rng: &mut dyn rand::Rng) -> EntryId;
    /// Performs one operation, or nothing.
    fn edit(&mut self, edits: &[Edit]) -> Result<Vec<EntryChange>, TreeError>;
    /// Everything that is shown.
    fn entries(&mut self) -> BTreeMap<EntryKey, Entry>;
    /// Asserts that the index is what it would be if it were derived anew.
    fn assert_derived(&mut self);
    /// Takes some of what `from` has and this one lacks, in some order.
    fn pull(&mut self, from: &mut Self, rng: &mut dyn rand::Rng);
    /// A new device, which gets all or some of what `from` has, in another way than the others; `None` when
    /// there cannot be one.
    fn join(from: &mut Self, number: usize, rng: &mut dyn rand::Rng) -> Option<Self>;
    /// Asserts that two that have met hold the same beside what they show.
    fn assert_settled(&mut self, other: &mut Self);
    /// Takes all of it.
    fn pull_all(&mut self, from: &mut Self, rng: &mut dyn rand::Rng);
    /// Keeps a copy of itself as it is now.
    fn back_up(&mut self);
    /// Goes back to that copy, when there is one and `witness` has everything that is lost by that.
    fn restore(&mut self, witness: &mut Self) -> bool;
    /// Dies in the middle of an operation and starts again.
    fn crash(&mut self, edits: &[Edit]);
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

fn run<P: Peer>(default_seeds: u64, default_steps: u64) {
    let steps = from_env("SIMULATION_STEPS", default_steps);
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        World::<P>::new(seed.parse().expect("a number")).run(steps);
        return;
    }
    let seeds = from_env("SIMULATION_SEEDS", default_seeds);
    let threads = 2;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (thread..seeds).step_by(threads as usize) {
                    World::<P>::new(seed).run(steps);
                }
            });
        }
    });
}

#[test]
fn devices_that_saw_the_same_changes_show_the_same_tree() {
    run::<memory::Peer>(1000, 150);
}

#[test]
fn replicas_that_met_show_the_same_tree() {
    run::<replicas::Peer>(16, 100);
}
