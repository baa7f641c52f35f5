//! Removing a device from a mesh and giving it another role: what it sees, and what the others see.

use super::device::{Device, eventually, fault, members, status, tree};
use crate::api::*;
use crate::client::ClientError;

async fn revoke(device: &Device, who: &str) -> Result<MemberReply, ClientError> {
    let request = RevokeRequest {
        mesh: None,
        device: who.to_owned(),
    };
    device.client.post("/v1/revoke", &request).await
}

async fn role(device: &Device, who: &str, role: RoleName) -> Result<MemberReply, ClientError> {
    let request = RoleRequest {
        mesh: Some("Designs".to_owned()),
        device: who.to_owned(),
        role,
    };
    device.client.post("/v1/role", &request).await
}

/// Three devices in one mesh; the first is its admin.
async fn three() -> [Device; 3] {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    let tablet = Device::start("tablet").await;
    let code = laptop.invite("Designs").await.code;
    tablet.join(&code, "Third", &laptop).await;
    tablet.dial(&desktop).await;
    for device in [&laptop, &desktop, &tablet] {
        device.settled_with(&laptop).await;
    }
    [laptop, desktop, tablet]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_device_gets_and_spreads_nothing_and_keeps_its_files() {
    let [laptop, mut desktop, tablet] = three().await;
    let removed = revoke(&laptop, "desktop").await.unwrap();
    assert_eq!(
        (removed.name.as_str(), removed.role),
        ("desktop", RoleName::Writer)
    );
    assert_eq!(members(&laptop).await.len(), 2);
    eventually("it hears of it", async || {
        status(&desktop).await.removed.is_some()
    })
    .await;
    let told = status(&desktop).await.removed.unwrap();
    assert_eq!(told.by_name, "laptop");

    laptop.write("Designs/new.txt", b"new");
    desktop.write("Copy/late.txt", b"late");
    desktop.stop().await;
    desktop.restart().await;
    desktop.dial(&laptop).await;
    eventually("the others go on", async || {
        tree(&tablet.path("Third")).contains_key("new.txt")
    })
    .await;
    assert!(!laptop.path("Designs/late.txt").exists());
    assert!(!tablet.path("Third/late.txt").exists());
    let kept = tree(&desktop.path("Copy"));
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["a.txt", "late.txt"]);
    assert!(
        status(&desktop).await.removed.is_some(),
        "after a restart, too"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_change_and_only_admins_change_them() {
    let [laptop, desktop, tablet] = three().await;
    let refused = fault(role(&desktop, "tablet", RoleName::Reader).await);
    assert_eq!(refused.code, FaultCode::NotAllowed);
    let refused = fault(role(&laptop, "laptop", RoleName::Writer).await);
    assert_eq!(refused.code, FaultCode::NotAllowed, "the only admin");
    let refused = fault(revoke(&laptop, "nobody").await);
    assert_eq!(refused.code, FaultCode::NotFound);
    assert!(refused.hint.unwrap().contains("tablet"));
    let refused = fault(revoke(&laptop, "laptop").await);
    assert!(refused.hint.unwrap().contains("wormhole leave"));

    role(&laptop, "desktop", RoleName::Admin).await.unwrap();
    eventually("it is told", async || {
        status(&desktop).await.role == RoleName::Admin
    })
    .await;
    // The founder is lost; another admin removes it, for good.
    revoke(&desktop, "laptop").await.unwrap();
    eventually("everybody knows", async || {
        members(&tablet).await.len() == 2
    })
    .await;
    eventually("the founder, too", async || {
        status(&laptop).await.removed.is_some()
    })
    .await;
    let refused = fault(revoke(&laptop, "desktop").await);
    assert_eq!(refused.code, FaultCode::NotAllowed);
    let request = LeaveRequest {
        mesh: "Designs".to_owned(),
        confirmed: false,
    };
    let left: Result<LeaveReply, _> = laptop.client.post("/v1/leave", &request).await;
    left.unwrap();
    assert_eq!(laptop.read("Designs/a.txt"), b"a");
}
