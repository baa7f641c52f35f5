//! Whole nodes in one process, on loopback, asked through their real sockets.
//!
//! What only several processes can show (kill -9, namespaces) is in the `tests` crate.

mod device;
mod folder;
mod invite;
mod keep;
mod leave;
mod member;
mod report;

use crate::api::*;
use crate::event::EventKind;
use device::{Device, fault, tree};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_on_one_device_is_on_the_other() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/plan.txt", b"first");
    laptop.write("Designs/deep/er/big.bin", &vec![7; 300_000]);
    let shared = laptop.share("Designs").await;
    assert_eq!((shared.files, shared.bytes), (2, 300_005));
    assert_eq!(shared.mesh.name, "Designs");

    let desktop = Device::start("desktop").await;
    let joined = desktop.join(&shared.invite.code, "Copy", &laptop).await;
    assert_eq!(joined.from, "laptop");
    assert_eq!(joined.path, PathName::Local);
    desktop.settled_with(&laptop).await;
    assert_eq!(tree(&desktop.path("Copy")), tree(&laptop.path("Designs")));

    desktop.write("Copy/answer.txt", b"from the desktop");
    laptop.write("Designs/plan.txt", b"second");
    laptop.settled_with(&desktop).await;
    desktop.settled_with(&laptop).await;
    assert_eq!(laptop.read("Designs/answer.txt"), b"from the desktop");
    assert_eq!(desktop.read("Copy/plan.txt"), b"second");
    assert_eq!(tree(&desktop.path("Copy")), tree(&laptop.path("Designs")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing() {
    let mut laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let mut desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;

    laptop.stop().await;
    laptop.write("Designs/while-off.txt", b"written while the node was off");
    desktop.stop().await;
    laptop.restart().await;
    desktop.restart().await;
    desktop.dial(&laptop).await;
    laptop.settled_with(&desktop).await;
    desktop.settled_with(&laptop).await;
    assert_eq!(tree(&desktop.path("Copy")), tree(&laptop.path("Designs")));
    assert_eq!(tree(&desktop.path("Copy")).len(), 2);
    let meshes = desktop.meshes().await;
    assert_eq!(meshes[0].dirs, [desktop.path("Copy")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_used_codes_are_refused_and_leave_nothing() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;

    let typo = fault(
        desktop
            .try_join("7-coper-violin-harvest-lantern", "Copy", &laptop)
            .await,
    );
    assert_eq!(typo.code, FaultCode::BadTicket, "{typo:?}");
    let nameplate = shared.invite.code.split('-').next().unwrap();
    let words = ["abandon"; 4].join("-");
    let wrong = format!("{nameplate}-{words}");
    let wrong = fault(desktop.try_join(&wrong, "Copy", &laptop).await);
    assert_eq!(wrong.code, FaultCode::TicketRefused, "{wrong:?}");
    assert!(!desktop.path("Copy").exists());
    assert_eq!(desktop.meshes().await, []);
    assert_eq!(desktop.meshes_on_disk(), 0);

    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    let third = Device::start("third").await;
    let used = fault(third.try_join(&shared.invite.code, "Copy", &laptop).await);
    let gone = [
        FaultCode::TicketExpired,
        FaultCode::TicketRefused,
        FaultCode::NobodyFound,
    ];
    assert!(gone.contains(&used.code), "{used:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_is_joined_once() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;

    let again = laptop.invite("Designs").await;
    let fault = fault(desktop.try_join(&again.code, "Other", &laptop).await);
    assert_eq!(fault.code, FaultCode::AlreadyMember, "{fault:?}");
    assert!(!desktop.path("Other").exists());
    assert_eq!(desktop.meshes().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unbinding_keeps_the_files_and_the_membership() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let dir = laptop.path("Designs");
    let request = UnbindRequest { dir: dir.clone() };
    drop::<UnbindReply>(laptop.client.post("/v1/unbind", &request).await.unwrap());
    assert_eq!(laptop.read("Designs/a.txt"), b"a");
    assert!(
        !dir.join(".wormhole").exists(),
        "the marker goes with the binding"
    );
    assert_eq!(
        laptop.meshes().await[0].dirs,
        Vec::<std::path::PathBuf>::new()
    );
    let again: Result<UnbindReply, _> = laptop.client.post("/v1/unbind", &request).await;
    assert_eq!(fault(again).code, FaultCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_held_deletions_nothing_is_confirmed() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let dir = laptop.path("Designs");
    let reply: Result<ConfirmReply, _> = laptop
        .client
        .post(
            "/v1/confirm-deletions",
            &ConfirmRequest { dir, undo: false },
        )
        .await;
    assert_eq!(reply.unwrap().entries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_mesh_can_be_synced_elsewhere() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/sub/inner.txt", b"inner");
    laptop.write("Designs/outer.txt", b"outer");
    laptop.share("Designs").await;
    let sync = |dir| SyncRequest {
        mesh: "Designs".to_owned(),
        path: "sub".to_owned(),
        dir: laptop.path(dir),
    };
    drop::<SyncReply>(laptop.client.post("/v1/sync", &sync("Part")).await.unwrap());
    laptop.settled().await;
    assert_eq!(
        tree(&laptop.path("Part")).keys().collect::<Vec<_>>(),
        ["inner.txt"]
    );

    let inside: Result<SyncReply, _> = laptop.client.post("/v1/sync", &sync("Designs/sub")).await;
    assert_eq!(fault(inside).code, FaultCode::DirectoryTaken);
    let home: Result<SyncReply, _> = laptop.client.post("/v1/sync", &sync("home/x")).await;
    assert_eq!(fault(home).code, FaultCode::BadDirectory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_mesh_stands_still_and_then_catches_up() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;

    let all = PauseRequest { mesh: None };
    let reply: PauseReply = desktop.client.post("/v1/pause", &all).await.unwrap();
    assert!(reply.meshes.iter().all(|mesh| mesh.paused));
    laptop.write("Designs/b.txt", b"b");
    laptop.settled().await;
    let waiting = desktop.wait(Some(0), 0).await;
    assert!(
        waiting
            .waiting_for
            .iter()
            .any(|waiting| waiting.reason.contains("paused"))
    );
    assert!(!desktop.path("Copy/b.txt").exists());

    drop::<PauseReply>(desktop.client.post("/v1/resume", &all).await.unwrap());
    desktop.settled_with(&laptop).await;
    assert_eq!(desktop.read("Copy/b.txt"), b"b");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_in_vain_is_told_why() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    assert!(laptop.wait(Some(60), 0).await.done);
    let reply = laptop.wait(Some(0), 1).await;
    assert!(!reply.done);
    assert!(reply.waiting_for[0].reason.contains("0 of 1"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_may_be_as_long_as_a_number_can_say() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    assert!(laptop.wait(Some(u64::MAX), 0).await.done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_another_node_syncs_is_left_to_it() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await;
    let other = Device::start("other").await;
    let request = ShareRequest {
        dir: laptop.path("Designs"),
        name: None,
        role: None,
        ttl_seconds: None,
        ask: None,
    };
    let refused = fault(other.try_share(&request).await);
    assert_eq!(refused.code, FaultCode::DirectoryTaken, "{refused:?}");
    assert!(refused.message.contains(".wormhole/folder"), "{refused:?}");
    let dir = Some(laptop.path("Designs"));
    let refused = other
        .join_as(&shared.invite.code, Keep::Folder, dir, &laptop)
        .await;
    assert_eq!(fault(refused).code, FaultCode::DirectoryTaken);
    assert!(laptop.path("Designs/.wormhole/folder").exists());
    // The refusal came before the code was used.
    other.join(&shared.invite.code, "Copy", &laptop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_with_a_dangerous_name_gets_no_directory_by_itself() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let request = ShareRequest {
        dir: laptop.path("Designs"),
        name: Some(".ssh".to_owned()),
        role: None,
        ttl_seconds: None,
        ask: None,
    };
    let shared = laptop.try_share(&request).await.unwrap();
    let desktop = Device::start("desktop").await;
    let joined = desktop
        .join_as(&shared.invite.code, Keep::Folder, None, &laptop)
        .await;
    let refused = fault(joined);
    assert_eq!(refused.code, FaultCode::BadDirectory, "{refused:?}");
    assert!(refused.message.contains("name a directory"), "{refused:?}");
    assert!(refused.hint.unwrap().contains("wormhole sync"));
    let meshes = desktop.meshes().await;
    assert_eq!(meshes.len(), 1, "a member all the same");
    assert!(meshes[0].dirs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_waits_while_a_join_searches() {
    let far = Device::start("far").await;
    far.write("Music/a.txt", b"a");
    let far = far.share("Music").await;
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;

    // Nobody tells where the other device is, so the search goes on for a while.
    let request = JoinRequest {
        ticket: far.invite.code,
        dir: Some(laptop.path("Music")),
        keep: Keep::Folder,
        peers: Vec::new(),
        agreed: Agreement::Anything,
    };
    let searching = tokio::sync::Notify::new();
    let mut report = |_: &Progress| searching.notify_one();
    let client = laptop.client.clone();
    let join = client.steps::<_, JoinReply>("/v1/join", &request, &mut report);
    tokio::pin!(join);
    tokio::select! {
        reply = &mut join => panic!("it cannot be found: {reply:?}"),
        () = searching.notified() => {}
    }
    let others = async {
        let all = PauseRequest { mesh: None };
        drop::<PauseReply>(client.post("/v1/pause", &all).await.unwrap());
        let limit = LimitRequest::default();
        let _limits: LimitReply = client.post("/v1/limit", &limit).await.unwrap();
        let (mesh, dir) = ("Designs".to_owned(), laptop.path("More"));
        let path = String::new();
        let sync = SyncRequest { mesh, path, dir };
        let synced: SyncReply = client.post("/v1/sync", &sync).await.unwrap();
        let unbind = UnbindRequest { dir: synced.dir };
        drop::<UnbindReply>(client.post("/v1/unbind", &unbind).await.unwrap());
        drop::<PauseReply>(client.post("/v1/resume", &all).await.unwrap());
    };
    tokio::select! {
        biased;
        () = others => {}
        reply = &mut join => panic!("the others waited for it: {reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_tells_when_it_begins_and_when_it_has_everything() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/big.bin", &vec![3; 300_000]);
    let shared = laptop.share("Designs").await;
    let seed = Device::start("seed").await;
    let mut events = seed.client.events().await.unwrap();
    seed.join_as(&shared.invite.code, Keep::Seed, None, &laptop)
        .await
        .unwrap();
    seed.settled_with(&laptop).await;
    let mut phases = Vec::new();
    while !phases.ends_with(&[Phase::Syncing, Phase::UpToDate]) {
        let event = events.next().await.unwrap().expect("the node runs");
        if let EventKind::FolderPhase {
            dir: None, phase, ..
        } = event.kind
        {
            phases.push(phase);
        }
    }
    let all = PauseRequest { mesh: None };
    drop::<PauseReply>(seed.client.post("/v1/pause", &all).await.unwrap());
    while phases.last() != Some(&Phase::Paused) {
        let event = events.next().await.unwrap().expect("the node runs");
        if let EventKind::FolderPhase {
            dir: None, phase, ..
        } = event.kind
        {
            phases.push(phase);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_holds_everything_without_a_folder() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/small.txt", b"small");
    let big: Vec<u8> = (0..600_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    laptop.write("Designs/big.bin", &big);
    let shared = laptop.share("Designs").await;
    let seed = Device::start("seed").await;
    let joined = seed
        .join_as(&shared.invite.code, Keep::Seed, None, &laptop)
        .await
        .unwrap();
    assert_eq!(joined.dir, None);
    seed.settled_with(&laptop).await;
    drop(laptop.stopped().await);
    assert!(seed.cat("Designs", "big.bin").await.unwrap() == big);
    assert_eq!(seed.cat("Designs", "small.txt").await.unwrap(), b"small");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_can_be_looked_at_without_a_folder() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/sub/inner.txt", b"inner");
    laptop.share("Designs").await;
    let names = |reply: EntriesReply| {
        reply
            .entries
            .into_iter()
            .map(|entry| (entry.path, entry.kind))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(laptop.ls("").await.unwrap()),
        [("sub".to_owned(), KindName::Directory)]
    );
    let inner = ("sub/inner.txt".to_owned(), KindName::File);
    assert_eq!(names(laptop.ls("/sub/").await.unwrap()), [inner]);
    assert_eq!(
        laptop.cat("Designs", "sub/inner.txt").await.unwrap(),
        b"inner"
    );
    assert_eq!(fault(laptop.ls("nowhere").await).code, FaultCode::NotFound);
    assert_eq!(fault(laptop.ls("a/../b").await).code, FaultCode::BadRequest);
    assert_eq!(
        fault(laptop.cat("Designs", "sub").await).code,
        FaultCode::BadRequest
    );
    assert_eq!(
        fault(laptop.cat("Designz", "sub").await).code,
        FaultCode::UnknownMesh
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_fails_leaves_nothing_behind() {
    let laptop = Device::start("laptop").await;
    let request = ShareRequest {
        dir: laptop.path("New"),
        name: Some("x".repeat(500)),
        role: None,
        ttl_seconds: None,
        ask: None,
    };
    let refused = laptop.try_share(&request).await;
    assert_eq!(fault(refused).code, FaultCode::BadRequest);
    assert!(!laptop.path("New").exists());
    assert_eq!(laptop.meshes_on_disk(), 0);

    let request = ShareRequest {
        name: None,
        ttl_seconds: Some(1),
        ..request
    };
    assert_eq!(
        fault(laptop.try_share(&request).await).code,
        FaultCode::BadRequest
    );
    let request = ShareRequest {
        dir: laptop.path("home"),
        ttl_seconds: None,
        ..request
    };
    assert_eq!(
        fault(laptop.try_share(&request).await).code,
        FaultCode::BadDirectory
    );
    assert_eq!(laptop.meshes_on_disk(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_outlast_a_restart() {
    let mut laptop = Device::start("laptop").await;
    let up = Rate::BytesPerSecond(1 << 20);
    let request = LimitRequest {
        up: Some(up),
        ..LimitRequest::default()
    };
    let reply: LimitReply = laptop.client.post("/v1/limit", &request).await.unwrap();
    assert_eq!(
        reply,
        LimitReply {
            up,
            down: Rate::Unlimited,
            meshes: Vec::new(),
        }
    );
    laptop.stop().await;
    laptop.restart().await;
    assert_eq!(
        laptop
            .client
            .get::<_, LimitReply>("/v1/limit", &())
            .await
            .unwrap(),
        reply
    );
    let reset: LimitReply = laptop.client.delete("/v1/limit").await.unwrap();
    assert_eq!(reset.up, Rate::Unlimited, "the settings count again");
    laptop.stop().await;
    laptop.restart().await;
    let limits: LimitReply = laptop.client.get("/v1/limit", &()).await.unwrap();
    assert_eq!(limits.up, Rate::Unlimited);
    let tiny = LimitRequest {
        up: Some(Rate::BytesPerSecond(1)),
        ..LimitRequest::default()
    };
    let refused: Result<LimitReply, _> = laptop.client.post("/v1/limit", &tiny).await;
    assert_eq!(fault(refused).code, FaultCode::BadRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_mesh_outlast_a_restart_and_leave_the_others_alone() {
    let mut laptop = Device::start("laptop").await;
    for name in ["Designs", "Music"] {
        laptop.write(&format!("{name}/a.txt"), b"a");
        laptop.share(name).await;
    }
    let limit = |mesh: &str, up, down| LimitRequest {
        mesh: Some(mesh.to_owned()),
        up,
        down,
    };
    let (slow, slower) = (Rate::BytesPerSecond(1 << 20), Rate::BytesPerSecond(1 << 10));
    for (up, down) in [(Some(slow), None), (None, Some(slower))] {
        let request = limit("Designs", up, down);
        let _limits: LimitReply = laptop.client.post("/v1/limit", &request).await.unwrap();
    }
    laptop.stop().await;
    laptop.restart().await;
    let limits: LimitReply = laptop.client.get("/v1/limit", &()).await.unwrap();
    assert_eq!((limits.up, limits.down), (Rate::Unlimited, Rate::Unlimited));
    let own: Vec<_> = limits.meshes.iter().collect();
    assert!(
        matches!(own[..], [own] if own.mesh.name == "Designs" && own.up == slow && own.down == slower),
        "{own:?}"
    );
    let off = limit("Designs", Some(Rate::Unlimited), Some(Rate::Unlimited));
    let reply: LimitReply = laptop.client.post("/v1/limit", &off).await.unwrap();
    assert_eq!(reply.meshes, []);
    let unknown = limit("Films", Some(slow), None);
    let refused: Result<LimitReply, _> = laptop.client.post("/v1/limit", &unknown).await;
    assert_eq!(fault(refused).code, FaultCode::UnknownMesh);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_every_task_and_every_follower() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let mut events = laptop.client.events().await.unwrap();
    let _: Empty = laptop.client.post("/v1/shutdown", &Empty {}).await.unwrap();
    let node = laptop.node();
    assert_eq!(node.join().await, super::Ended::Asked);
    node.clone().shutdown().await;
    assert!(node.tasks().is_empty());
    let mut last = None;
    while let Some(event) = events.next().await.unwrap() {
        last = Some(event.kind);
    }
    assert_eq!(last, Some(EventKind::NodeStopping));
    assert!(!laptop.client.socket().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_count_as_requests_until_they_leave() {
    let laptop = Device::start("laptop").await;
    let mut followers = Vec::new();
    let refused = loop {
        match laptop.client.events().await {
            Ok(follower) => followers.push(follower),
            Err(error) => break fault::<Empty>(Err(error)),
        }
        assert!(followers.len() <= 64, "the bound holds");
    };
    assert_eq!(refused.code, FaultCode::Busy);
    let stopped: Result<Empty, _> = laptop.client.post("/v1/shutdown", &Empty {}).await;
    assert!(stopped.is_ok(), "stopping is never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_get_a_fault() {
    let laptop = Device::start("laptop").await;
    let unknown: Result<Empty, _> = laptop.client.get("/v1/nowhere", &()).await;
    assert_eq!(fault(unknown).code, FaultCode::NotFound);
    let wrong: Result<Empty, _> = laptop.client.post("/v1/sync", &Empty {}).await;
    assert_eq!(fault(wrong).code, FaultCode::BadRequest);
    let method: Result<Empty, _> = laptop.client.get("/v1/sync", &()).await;
    assert_eq!(fault(method).code, FaultCode::BadRequest);
    let large = UnbindRequest {
        dir: "x".repeat(100_000).into(),
    };
    let large: Result<Empty, _> = laptop.client.post("/v1/unbind", &large).await;
    assert_eq!(fault(large).code, FaultCode::BadRequest);
    let described: serde_json::Value = laptop.client.get("/v1/openapi.json", &()).await.unwrap();
    assert!(described["paths"]["/v1/share"].is_object());
}
