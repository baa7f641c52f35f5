//! A device that knows a mesh's secret and is in no membership log: removed, or never admitted.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use wormhole_crdt::{NewMesh, Replica, Role, Timestamp};
use wormhole_store::{ContentKey, Store, StoreOptions};

use super::*;
use crate::lab::{database, eventually};

fn carry(network: &Network, replica: &Replica, dir: &tempfile::TempDir) {
    let key = ContentKey::from_bytes([7; 32]);
    network.attach(AttachedMesh {
        replica: replica.clone(),
        store: Store::open(dir.path(), key, StoreOptions::default()).unwrap(),
        limits: RateLimits::default(),
        paused: false,
    });
}

#[tokio::test]
async fn who_knows_the_secret_and_is_no_member_has_a_strangers_standing() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (a, b) = (network(1).await, network(2).await);
    let mesh = NewMesh {
        name: "Designs".into(),
        device_name: "founder".into(),
        key: identity(2).device_key(),
    };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let at_b = Replica::create(database(), &mesh, Timestamp(1), &mut rng).unwrap();
    // It was a member once, and has all that it was given then.
    at_b.admit(a.device_id(), "early", Role::Writer, Timestamp(2))
        .unwrap();
    let key = identity(1).device_key();
    let at_a = Replica::join(database(), &at_b.welcome(), key, &mut rng).unwrap();
    at_b.revoke(a.device_id(), Timestamp(3)).unwrap();
    carry(&b, &at_b, &dirs[1]);
    carry(&a, &at_a, &dirs[0]);
    a.dial(&b.on(Wire::Quic)).await.unwrap();
    // What a hello brings is shown when everything else that follows from it has been done.
    let greeted = || {
        let peers = b.peers();
        let mut a = peers.iter().filter(|peer| peer.device == a.device_id());
        a.any(|peer| !peer.meshes.is_empty())
    };
    eventually("both have said hello", greeted).await;

    let open = async || a.inner.streams.open(b.device_id(), ECHO).await;
    let held = open().await.unwrap();
    let refused = open().await.unwrap_err();
    assert!(matches!(refused, OpenError::PeerQuota { .. }), "{refused}");
    let written_down = || {
        !b.inner
            .book
            .lock()
            .unwrap()
            .addrs(&a.device_id())
            .is_empty()
    };
    assert!(!written_down(), "the book is for members");

    at_b.admit(a.device_id(), "late", Role::Writer, Timestamp(4))
        .unwrap();
    eventually("a member is written down", written_down).await;
    drop((held, open().await.unwrap()));
    a.shutdown().await;
    b.shutdown().await;
}
