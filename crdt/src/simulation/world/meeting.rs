//! Who meets whom: devices that join later, that are restored from a backup, or just come by.

use rand::RngExt;

use super::{Peer, World, assert_sound, pair};

impl<P: Peer> World<P> {
    pub(super) fn join(&mut self, from: usize) {
        let number = self.peers.len();
        if let Some(peer) = P::join(&mut self.peers[from], number, &mut self.rng) {
            self.peers.push(peer);
            self.sides.push(self.sides[from]);
            self.handles.push(Vec::new());
            self.holding.add();
            self.fetch(number, from);
            self.history.push((number, "joins", Vec::new()));
        }
    }

    /// A whole machine goes back to its backup, works there, and meets anybody, or nobody for long. Somebody has
    /// what it lost, else it would be lost for all.
    pub(super) fn restore(&mut self, peer: usize) {
        let witness = self.rng.random_range(0..self.peers.len());
        if witness == peer {
            return;
        }
        self.pull_all(peer, witness);
        let (one, two) = pair(&mut self.peers, peer, witness);
        if !one.restore(two) {
            return;
        }
        self.history.push((peer, "is restored", Vec::new()));
        self.handles[peer].clear();
        for _ in 0..self.rng.random_range(0..4) {
            self.operate(peer);
        }
    }

    /// Two devices meet for as long as it takes.
    pub(super) fn pull_all(&mut self, peer: usize, other: usize) {
        let (one, two) = pair(&mut self.peers, peer, other);
        one.pull_all(two, &mut self.rng);
        self.fetch(peer, other);
        self.fetch(other, peer);
    }

    /// A device brings what it is shown and the other one has.
    fn fetch(&mut self, peer: usize, from: usize) {
        let entries = self.peers[peer].entries();
        self.holding
            .show(peer, &entries, &self.holding.bodies(from));
    }

    pub(super) fn meet(&mut self, peer: usize) {
        let other = self.rng.random_range(0..self.peers.len());
        if other == peer || self.sides[peer] != self.sides[other] {
            return;
        }
        let (one, two) = pair(&mut self.peers, peer, other);
        one.pull(two, &mut self.rng);
        if self.rng.random_range(0..6) == 0 {
            one.back_up();
        }
        one.assert_derived();
        assert_sound(&one.entries());
        // Perhaps they part before it has what it was told of.
        let parts = self.rng.random_range(0..4) == 0;
        self.fetch(peer, if parts { peer } else { other });
    }
}
