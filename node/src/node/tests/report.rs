//! What "in sync" means: applied there, too; and who says why it is not.

use std::fs;

use super::device::{Device, eventually, members, status};
use crate::api::*;

async fn joined_as(role: RoleName) -> (Device, Device) {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let request = InviteRequest {
        mesh: "Designs".to_owned(),
        role: Some(role),
        ttl_seconds: None,
        ask: None,
    };
    let invite: InviteReply = laptop.client.post("/v1/invites", &request).await.unwrap();
    let desktop = Device::start("desktop").await;
    desktop.join(&invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    laptop.settled_with(&desktop).await;
    (laptop, desktop)
}

/// What a short wait gives as reasons.
async fn reasons(device: &Device) -> Vec<String> {
    let reply = device.wait(Some(1), 0).await;
    assert!(!reply.done);
    let reasons = reply.waiting_for.into_iter();
    reasons.map(|waiting| waiting.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_on_a_removed_device_ends_and_does_not_end_well() {
    let (laptop, desktop) = joined_as(RoleName::Writer).await;
    let request = RevokeRequest {
        mesh: None,
        device: "desktop".to_owned(),
    };
    let reply: Result<MemberReply, _> = laptop.client.post("/v1/revoke", &request).await;
    reply.unwrap();
    eventually("it hears", async || {
        status(&desktop).await.removed.is_some()
    })
    .await;
    // Nothing comes any more: it does not wait for that, though nobody said how long it may.
    let reply = desktop.wait(None, 0).await;
    assert!(!reply.done);
    let [waiting] = reply.waiting_for.as_slice() else {
        panic!("{reply:?}");
    };
    assert!(
        waiting.reason.contains("removed from it by laptop")
            && waiting.reason.contains("files stay"),
        "{waiting:?}"
    );
    laptop.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reader_changed_keeps_it_and_the_others_from_being_in_sync() {
    let (laptop, reader) = joined_as(RoleName::Reader).await;
    reader.write("Copy/a.txt", b"mine");
    eventually("both say why", async || {
        let here = reader.wait(Some(1), 0).await.waiting_for;
        let there = laptop.wait(Some(1), 0).await.waiting_for;
        let names = |list: &[Waiting], text: &str| {
            let mut reasons = list.iter().map(|waiting| &waiting.reason);
            reasons.any(|reason| reason.contains(text))
        };
        names(&here, "read-only member") && names(&there, "desktop cannot apply everything")
    })
    .await;
    let seen = status(&laptop).await;
    assert_eq!((seen.connected, seen.in_sync), (1, 0));
    let hindrance = &seen.hindered[0].hindrances[0];
    assert_eq!(
        (hindrance.hindrance, hindrance.count),
        (HindranceName::OwnEdits, 1)
    );
    let peers: PeersReply = laptop.client.get("/v1/peers", &()).await.unwrap();
    assert_eq!(peers.peers[0].hindered, seen.hindered);
    let desktop = members(&laptop).await.pop().unwrap();
    assert_eq!(desktop.in_sync, Some(false));
    assert_eq!(desktop.hindrances, seen.hindered[0].hindrances);

    reader.write("Copy/a.txt", b"a");
    reader.settled_with(&laptop).await;
    laptop.settled_with(&reader).await;
    assert_eq!(status(&laptop).await.hindered, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_folder_is_stopped_is_named_by_the_others() {
    let (laptop, desktop) = joined_as(RoleName::Writer).await;
    fs::rename(desktop.path("Copy"), desktop.path("Away")).unwrap();
    laptop.write("Designs/b.txt", b"b");
    eventually("it is named", async || {
        let reasons = reasons(&laptop).await;
        reasons
            .iter()
            .any(|reason| reason.contains("desktop") && reason.contains("stopped"))
    })
    .await;
    fs::rename(desktop.path("Away"), desktop.path("Copy")).unwrap();
    laptop.settled_with(&desktop).await;
    assert_eq!(desktop.read("Copy/b.txt"), b"b");
}
