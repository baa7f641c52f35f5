//! Whole nodes over a network in memory: they find one another's meshes and bring their metadata together.

use std::time::Duration;

use tokio::sync::broadcast::error::TryRecvError;
use wormhole_crdt::{DeviceId, EntryId, MeshId, Role};
use wormhole_store::Content;

use crate::{
    NetworkEvent,
    lab::{Lab, Node, create_file, eventually},
};

fn names(replica: &wormhole_crdt::Replica) -> Vec<String> {
    let children = replica.children(EntryId::ROOT).unwrap();
    children
        .into_iter()
        .map(|entry| entry.name.as_str().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_every_member_through_whoever_is_connected() {
    let mut lab = Lab::new();
    let (a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let at_b = lab.admit(&at_a, &b, Role::Writer);
    let at_c = lab.admit(&at_a, &c, Role::Reader);
    create_file(&at_a, "from a", Content::EMPTY);
    create_file(&at_b, "from b", Content::EMPTY);
    for replica in [&at_a, &at_b, &at_c] {
        eventually("all see both files", || {
            names(replica) == ["from a", "from b"]
        })
        .await;
    }
    let in_sync = || a.protocols.sync_state(at_a.mesh_id());
    eventually("a is in sync with both", || {
        in_sync().len() == 2 && in_sync().iter().all(|exchange| exchange.in_sync)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_were_apart_catch_up_when_they_meet_again() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let at_b = lab.admit(&at_a, &b, Role::Writer);
    a.sees(&b, at_a.mesh_id()).await;
    lab.memory.cut(b.id, false);
    eventually("a notices", || a.protocols.shared(&b.id).is_empty()).await;
    for n in 0..50 {
        create_file(&at_a, &format!("a{n:02}"), Content::EMPTY);
        create_file(&at_b, &format!("b{n:02}"), Content::EMPTY);
    }
    assert_eq!(names(&at_b).len(), 50);
    lab.memory.cut(b.id, true);
    for replica in [&at_a, &at_b] {
        eventually("both have all", || names(replica).len() == 100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_mesh_rests_on_either_side_and_goes_on() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let at_b = lab.admit(&at_a, &b, Role::Writer);
    let mesh = at_a.mesh_id();
    create_file(&at_a, "0", Content::EMPTY);
    eventually("b follows", || names(&at_b).len() == 1).await;
    for (round, node) in (1..).zip([&a, &b]) {
        node.protocols.pause(mesh);
        eventually("exchanges end", || {
            a.protocols.sync_state(mesh).is_empty() && b.protocols.sync_state(mesh).is_empty()
        })
        .await;
        create_file(&at_a, &round.to_string(), Content::EMPTY);
        assert_eq!(names(&at_b).len(), round);
        node.protocols.resume(mesh);
        eventually("b catches up", || names(&at_b).len() == round + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_mesh_is_shared_no_more_and_can_come_back() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let at_b = lab.admit(&at_a, &b, Role::Writer);
    let mesh = at_a.mesh_id();
    a.sees(&b, mesh).await;
    b.protocols.detach(mesh);
    eventually("a notices", || a.protocols.sync_state(mesh).is_empty()).await;
    create_file(&at_a, "meanwhile", Content::EMPTY);
    b.attach(&at_b);
    eventually("b catches up", || names(&at_b).len() == 1).await;
}

/// The one of two devices that opens exchanges asks again soon after one ended, and waits some seconds for the answer.
#[tokio::test(start_paused = true)]
async fn a_mesh_that_comes_back_while_it_is_asked_for_is_shared_again() {
    for seeds in [(1, 2), (2, 1)] {
        let mut lab = Lab::new();
        let (a, b) = (lab.node(seeds.0), lab.node(seeds.1));
        let at_a = lab.found(&a);
        let at_b = lab.admit(&at_a, &b, Role::Writer);
        let mesh = at_a.mesh_id();
        a.sees(&b, mesh).await;
        b.protocols.detach(mesh);
        eventually("a notices", || a.protocols.sync_state(mesh).is_empty()).await;
        // By the clock of this test, which runs only while nobody has anything to do.
        tokio::time::sleep(Duration::from_secs(1)).await;
        create_file(&at_a, "meanwhile", Content::EMPTY);
        b.attach(&at_b);
        eventually("b catches up", || names(&at_b).len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_shares_nothing() {
    let mut lab = Lab::new();
    let (a, b, stranger) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    lab.admit(&at_a, &b, Role::Writer);
    a.sees(&b, at_a.mesh_id()).await;
    assert!(stranger.protocols.shared(&a.id).is_empty());
    assert!(a.protocols.shared(&stranger.id).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_that_still_knows_the_secret_gets_nothing_more() {
    let mut lab = Lab::new();
    let (a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let at_b = lab.admit(&at_a, &b, Role::Writer);
    create_file(&at_a, "before", Content::EMPTY);
    eventually("b follows", || names(&at_b).len() == 1).await;
    at_a.revoke(b.id, lab.now()).unwrap();
    eventually("the exchange ends", || {
        a.protocols.sync_state(at_a.mesh_id()).is_empty()
    })
    .await;
    create_file(&at_a, "after", Content::EMPTY);
    // Attaching again makes both say hello and try once more; meanwhile the others go on.
    b.attach(&at_b);
    let at_c = lab.admit(&at_a, &c, Role::Writer);
    eventually("c follows", || names(&at_c) == ["after", "before"]).await;
    assert_eq!(names(&at_b), ["before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_back_at_once_is_greeted_anew_and_followed() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let at_b = lab.admit(&at_a, &b, Role::Writer);
    for round in 1..=10 {
        // Too quick for anybody to notice the absence between two looks.
        lab.memory.cut(b.id, false);
        lab.memory.cut(b.id, true);
        create_file(&at_a, &round.to_string(), Content::EMPTY);
        eventually("b follows", || names(&at_b).len() == round).await;
    }
}

/// The next member that the node is told of.
async fn present(node: &mut Node) -> (MeshId, DeviceId) {
    loop {
        if let NetworkEvent::MemberPresent { mesh, device } = node.events.recv().await.unwrap() {
            return (mesh, device);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_told_of_when_it_comes_and_when_it_goes_on_after_a_pause() {
    let mut lab = Lab::new();
    let (mut a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let mesh = at_a.mesh_id();
    let _at_b = lab.admit(&at_a, &b, Role::Writer);
    assert_eq!(present(&mut a).await, (mesh, b.id));
    b.protocols.pause(mesh);
    while !matches!(a.events.try_recv(), Err(TryRecvError::Empty)) {}
    b.protocols.resume(mesh);
    assert_eq!(present(&mut a).await, (mesh, b.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_the_secret_is_told_of_once_it_is_known_to_be_a_member() {
    let mut lab = Lab::new();
    let (mut a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let mesh = at_a.mesh_id();
    // It has the secret and was never admitted, or is no member any more.
    a.protocols
        .registry()
        .get(mesh)
        .unwrap()
        .arrived(b.id, crate::lab::TERMS);
    let _at_c = lab.admit(&at_a, &c, Role::Writer);
    assert_eq!(present(&mut a).await, (mesh, c.id));
    at_a.admit(b.id, "late", Role::Writer, lab.now()).unwrap();
    while present(&mut a).await != (mesh, b.id) {}
}
