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
            self.history.push((number, "joins", Vec::new()));
        }
    }

    /// A device goes back to its backup, works there, and then meets one who knows what was lost. Were it to meet
    /// somebody else first, that one would have another history of it for ever.
    pub(super) fn restore(&mut self, peer: usize) {
        let witness = self.rng.random_range(0..self.peers.len());
        if witness == peer {
            return;
        }
        let (one, two) = pair(&mut self.peers, peer, witness);
        one.pull_all(two, &mut self.rng);
        if !one.restore(two) {
            return;
        }
        self.history.push((peer, "is restored", Vec::new()));
        self.handles[peer].clear();
        for _ in 0..self.rng.random_range(0..4) {
            self.operate(peer);
        }
        let (one, two) = pair(&mut self.peers, peer, witness);
        one.pull_all(two, &mut self.rng);
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
    }
}
