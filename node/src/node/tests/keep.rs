//! What is kept when something ends: a folder of a seed, a node that was still looking through what it shares.

use super::device::Device;
use crate::api::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_keeps_what_only_its_folder_held_when_that_is_unbound() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/photo.jpg", &vec![7; 300_000]);
    let shared = laptop.share("Designs").await;
    let seed = Device::start("seed").await;
    let code = &shared.invite.code;
    seed.join_as(code, Keep::Seed, None, &laptop).await.unwrap();
    seed.settled_with(&laptop).await;
    let sync = SyncRequest {
        mesh: "Designs".to_owned(),
        path: String::new(),
        dir: seed.path("Shown"),
    };
    drop::<SyncReply>(seed.client.post("/v1/sync", &sync).await.unwrap());
    seed.settled_with(&laptop).await;
    drop(laptop.stopped().await);
    // The folder has it, so the copies in packs go.
    let mesh = seed.node().local_meshes().remove(0);
    let mut live = Vec::new();
    let mut add = |content: &wormhole_store::Content| live.push(*content);
    mesh.replica().contents(&mut add).unwrap();
    for _ in 0..2 {
        let mut go_on = || std::ops::ControlFlow::Continue(());
        let mut live = live.iter().copied();
        mesh.store().sweep(&mut live, &mut go_on).unwrap();
    }
    let unbind = UnbindRequest {
        dir: seed.path("Shown"),
    };
    drop::<UnbindReply>(seed.client.post("/v1/unbind", &unbind).await.unwrap());
    std::fs::remove_dir_all(seed.path("Shown")).unwrap();
    assert_eq!(
        seed.cat("Designs", "photo.jpg").await.unwrap(),
        vec![7; 300_000]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_while_it_shares_goes_on_with_the_mesh_at_the_next_start() {
    let mut laptop = Device::start("laptop").await;
    for n in 0..3000 {
        laptop.write(&format!("Designs/{n}.txt"), n.to_string().as_bytes());
    }
    let client = laptop.client.clone();
    let request = ShareRequest {
        dir: laptop.path("Designs"),
        name: None,
        role: None,
        ttl_seconds: None,
        ask: None,
    };
    let mut heard = |_: &Progress| {};
    let sharing = client.steps::<_, ShareReply>("/v1/share", &request, &mut heard);
    let stopping = async {
        while laptop.node().local_meshes().is_empty() {
            tokio::task::yield_now().await;
        }
        laptop.stop().await;
    };
    // Whether it was told that all was shared, or that the node stops, is chance.
    let (_told, ()) = tokio::join!(sharing, stopping);
    laptop.restart().await;
    assert_eq!(
        laptop.node().local_meshes().len(),
        1,
        "whatever the first look had come to"
    );
}
