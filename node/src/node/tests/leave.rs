//! Leaving a mesh: what stays, what goes, what the others see, and the way back.

use super::device::{Device, eventually, fault, members, tree};
use crate::api::*;
use crate::client::ClientError;

async fn leave(device: &Device, confirmed: bool) -> Result<LeaveReply, ClientError> {
    let request = LeaveRequest {
        mesh: "Designs".to_owned(),
        confirmed,
    };
    device.client.post("/v1/leave", &request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_left_keeps_its_files_and_can_come_back() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    laptop.settled_with(&desktop).await;

    let left = leave(&desktop, false).await.unwrap();
    assert_eq!(left.dirs, [desktop.path("Copy")]);
    assert_eq!(desktop.meshes().await, []);
    assert_eq!(desktop.meshes_on_disk(), 0);
    assert_eq!(desktop.read("Copy/a.txt"), b"a");
    assert!(!desktop.path("Copy/.wormhole").exists());
    let gone = fault(leave(&desktop, false).await);
    assert_eq!(gone.code, FaultCode::UnknownMesh);

    // The others go on, and have heard of it.
    assert!(left.told);
    laptop.write("Designs/b.txt", b"b");
    laptop.settled().await;
    assert_eq!(members(&laptop).await.len(), 1);
    assert!(!desktop.path("Copy/b.txt").exists());
    eventually("there is a secret that it does not know", async || {
        laptop.secrets("Designs") == 2
    })
    .await;

    // It comes back as the same device, into the files that it kept and changed meanwhile.
    desktop.write("Copy/a.txt", b"changed while away");
    let again = laptop.invite("Designs").await;
    desktop.join(&again.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    desktop.write("Copy/c.txt", b"c");
    desktop.settled_with(&laptop).await;
    laptop.settled_with(&desktop).await;
    assert_eq!(members(&laptop).await.len(), 2);
    assert_eq!(
        (laptop.secrets("Designs"), desktop.secrets("Designs")),
        (2, 2)
    );
    let files = tree(&laptop.path("Designs"));
    assert_eq!(files, tree(&desktop.path("Copy")));
    for text in [&b"a"[..], b"b", b"c", b"changed while away"] {
        assert!(files.values().any(|bytes| bytes == text), "{files:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_nowhere_else_is_not_left_unasked() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let refused = fault(leave(&laptop, false).await);
    assert_eq!(refused.code, FaultCode::NotHandedOver, "{refused:?}");
    assert!(
        refused.message.contains("no other device is connected"),
        "{refused:?}"
    );
    assert!(refused.hint.unwrap().contains("--yes"));
    assert_eq!(laptop.meshes().await.len(), 1);
    laptop.settled().await;

    let left = leave(&laptop, true).await.unwrap();
    assert!(left.told, "there is nobody to tell");
    assert_eq!(laptop.meshes_on_disk(), 0);
    assert_eq!(laptop.read("Designs/a.txt"), b"a");
    // Nothing of it is in the way of a new beginning.
    laptop.share("Designs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_leave_as_soon_as_the_others_have_what_it_wrote() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    // Its content has just been sent, which is no reason to stay.
    desktop.write("Copy/large.bin", &vec![7; 300_000]);
    desktop.settled_with(&laptop).await;
    assert_eq!(laptop.read("Designs/large.bin").len(), 300_000);
    leave(&desktop, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_shows_a_part_only_does_not_take_over_all() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/part/a.txt", b"a");
    laptop.write("Designs/b.txt", b"b");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    let request = SyncRequest {
        mesh: "Designs".to_owned(),
        path: "part".to_owned(),
        dir: desktop.path("Part"),
    };
    drop::<SyncReply>(desktop.client.post("/v1/sync", &request).await.unwrap());
    let request = UnbindRequest {
        dir: desktop.path("Copy"),
    };
    drop::<UnbindReply>(desktop.client.post("/v1/unbind", &request).await.unwrap());
    let role = RoleRequest {
        mesh: None,
        device: "desktop".to_owned(),
        role: RoleName::Admin,
    };
    drop::<MemberReply>(laptop.client.post("/v1/role", &role).await.unwrap());
    laptop.settled_with(&desktop).await;
    assert_eq!(desktop.read("Part/a.txt"), b"a");
    let refused = fault(leave(&laptop, false).await);
    assert_eq!(refused.code, FaultCode::NotHandedOver, "{refused:?}");
    assert!(
        refused.message.contains("no connected device keeps all"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_admin_does_not_leave_the_others() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    let refused = fault(leave(&laptop, true).await);
    assert_eq!(refused.code, FaultCode::NotAllowed);
    assert!(refused.hint.unwrap().contains("wormhole role"));
    assert_eq!(laptop.meshes().await.len(), 1);

    let role = RoleRequest {
        mesh: None,
        device: "desktop".to_owned(),
        role: RoleName::Admin,
    };
    let reply: Result<MemberReply, _> = laptop.client.post("/v1/role", &role).await;
    assert_eq!(reply.unwrap().role, RoleName::Admin);
    laptop.settled_with(&desktop).await;
    assert!(leave(&laptop, true).await.unwrap().told);
    assert_eq!(members(&desktop).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_was_left_is_gone_after_a_restart() {
    let mut laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    leave(&laptop, true).await.unwrap();
    laptop.stop().await;
    laptop.restart().await;
    assert_eq!(laptop.meshes().await, []);
    let status: StatusReply = laptop.client.get("/v1/status", &()).await.unwrap();
    assert_eq!(status.meshes, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_is_asked_before_its_content_goes() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let seed = Device::start("seed").await;
    let joined = seed
        .join_as(&shared.invite.code, Keep::Seed, None, &laptop)
        .await;
    joined.unwrap();
    seed.settled_with(&laptop).await;
    let refused = fault(leave(&seed, false).await);
    assert_eq!(refused.code, FaultCode::NotHandedOver, "{refused:?}");
    assert_eq!(
        leave(&seed, true).await.unwrap().dirs,
        [""; 0].map(std::path::PathBuf::from)
    );
    assert_eq!(seed.meshes_on_disk(), 0);
}
