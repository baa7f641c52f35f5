//! Invites from both sides: what is shown, who has to agree, who waits, and who is told.

use super::device::{Device, fault};
use crate::api::*;
use crate::client::ClientError;
use crate::event::EventKind;

async fn propose(device: &Device, code: &str, inviter: &Device) -> ProposeReply {
    let request = ProposeRequest {
        ticket: code.to_owned(),
        peers: inviter.node().addresses(),
    };
    let mut ignore = |_: &Progress| {};
    let reply = device.client.steps("/v1/propose", &request, &mut ignore);
    reply.await.unwrap()
}

async fn join_if(
    device: &Device,
    code: &str,
    inviter: &Device,
    agreed: Agreement,
) -> Result<JoinReply, ClientError> {
    let request = JoinRequest {
        ticket: code.to_owned(),
        dir: Some(device.path("Copy")),
        keep: Keep::Folder,
        peers: inviter.node().addresses(),
        agreed,
    };
    let mut ignore = |_: &Progress| {};
    let reply = device.client.steps("/v1/join", &request, &mut ignore);
    reply.await
}

async fn status(device: &Device) -> StatusReply {
    let query = MeshQuery::default();
    device.client.get("/v1/status", &query).await.unwrap()
}

async fn invite(device: &Device, ask: Option<bool>, role: RoleName) -> InviteReply {
    let request = InviteRequest {
        mesh: "Designs".to_owned(),
        role: Some(role),
        ttl_seconds: None,
        ask,
    };
    device.client.post("/v1/invites", &request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_code_leads_to_is_shown_before_anything_is_joined() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let code = laptop.share("Designs").await.invite.code;
    let phone = Device::start("phone").await;
    let proposal = propose(&phone, &code, &laptop).await;
    assert_eq!(proposal.mesh.name, "Designs");
    assert_eq!(
        (proposal.from.as_str(), proposal.role),
        ("laptop", RoleName::Writer)
    );
    assert!(!proposal.ask);
    assert_eq!(proposal.from_words.split(' ').count(), 6);
    assert!(phone.meshes().await.is_empty());

    let to = |role| Agreement::To {
        mesh: proposal.mesh.id.clone(),
        role,
        from_device: proposal.from_device.clone(),
    };
    let refused = fault(join_if(&phone, &code, &laptop, to(RoleName::Reader)).await);
    assert_eq!(refused.code, FaultCode::AgreementNeeded);
    assert!(phone.meshes().await.is_empty());
    let joined = join_if(&phone, &code, &laptop, to(RoleName::Writer)).await;
    assert_eq!(joined.unwrap().mesh.name, "Designs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_stands_in_the_status_until_it_was_seen_also_after_a_restart() {
    let mut laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let code = laptop.share("Designs").await.invite.code;
    let phone = Device::start("phone").await;
    phone.join(&code, "Copy", &laptop).await;
    phone.settled_with(&laptop).await;
    let newcomers = loop {
        let newcomers = status(&laptop).await.newcomers;
        if !newcomers.is_empty() {
            break newcomers;
        }
    };
    let [newcomer] = newcomers.as_slice() else {
        panic!("{newcomers:?}");
    };
    assert_eq!(
        (newcomer.name.as_str(), newcomer.role),
        ("phone", RoleName::Writer)
    );
    assert_eq!(
        status(&phone).await.newcomers,
        [],
        "who was there before is no news"
    );

    laptop.stop().await;
    laptop.restart().await;
    assert_eq!(status(&laptop).await.newcomers, newcomers);
    let request = SeenRequest { newcomers };
    let _seen: Empty = laptop.client.post("/v1/seen", &request).await.unwrap();
    assert_eq!(status(&laptop).await.newcomers, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admins_invite_waits_for_a_person_who_admits_or_refuses() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    for admit in [true, false] {
        let code = invite(&laptop, None, RoleName::Admin).await;
        assert!(code.ask, "an admin can do everything");
        let phone = Device::start("phone").await;
        let mut events = laptop.client.events().await.unwrap();
        let deciding = async {
            let asked = loop {
                let event = events.next().await.unwrap().expect("the node runs");
                if let EventKind::JoinAsked { device, words, .. } = event.kind {
                    break (device, words);
                }
            };
            let asking = status(&laptop).await.asking;
            assert_eq!((&asking[0].device, &asking[0].words), (&asked.0, &asked.1));
            let nobody = DecideRequest {
                device: "tablet".to_owned(),
                admit,
            };
            let refused = laptop
                .client
                .post::<_, DecideReply>("/v1/decide", &nobody)
                .await;
            assert_eq!(fault(refused).code, FaultCode::NotFound);
            let request = DecideRequest {
                device: "phone".to_owned(),
                admit,
            };
            let decided: DecideReply = laptop.client.post("/v1/decide", &request).await.unwrap();
            assert_eq!((decided.device.device, decided.admitted), (asked.0, admit));
        };
        let joining = join_if(&phone, &code.code, &laptop, Agreement::Anything);
        let (joined, ()) = tokio::join!(joining, deciding);
        if admit {
            assert_eq!(joined.unwrap().role, RoleName::Admin);
        } else {
            assert_eq!(fault(joined).code, FaultCode::TicketRefused);
        }
        assert_eq!(status(&laptop).await.asking, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_invites_are_listed_with_their_codes() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let shared = laptop.share("Designs").await.invite;
    let second = invite(&laptop, Some(true), RoleName::Reader).await;
    let open: InvitesReply = laptop.client.get("/v1/invites", &()).await.unwrap();
    assert_eq!(open.invites, [shared.clone(), second.clone()]);
    assert_eq!((shared.ask, second.ask), (false, true));
    let phone = Device::start("phone").await;
    phone.join(&shared.code, "Copy", &laptop).await;
    let open: InvitesReply = laptop.client.get("/v1/invites", &()).await.unwrap();
    assert_eq!(open.invites, [second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_nobody_follows_any_more_ends_while_it_waits() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let code = invite(&laptop, Some(true), RoleName::Writer).await.code;
    let phone = Device::start("phone").await;
    let mut events = laptop.client.events().await.unwrap();
    let request = JoinRequest {
        ticket: code.clone(),
        dir: Some(phone.path("Copy")),
        keep: Keep::Folder,
        peers: laptop.node().addresses(),
        agreed: Agreement::Anything,
    };
    let (reporter, lines) = Reporter::new();
    let leaving = async move {
        loop {
            let event = events.next().await.unwrap().expect("the node runs");
            if matches!(event.kind, EventKind::JoinAsked { .. }) {
                break;
            }
        }
        drop(lines); // as when Ctrl-C ends the command
    };
    let (joined, ()) = tokio::join!(phone.node().join_mesh(request, &reporter), leaving);
    assert!(joined.is_err(), "{joined:?}");
    assert!(phone.meshes().await.is_empty());
    let request = DecideRequest {
        device: "phone".to_owned(),
        admit: true,
    };
    let _decided: DecideReply = laptop.client.post("/v1/decide", &request).await.unwrap();
    // Its place was kept: the same code brings it in.
    let joined = loop {
        match join_if(&phone, &code, &laptop, Agreement::Anything).await {
            // The conversation that ended may have been granted it first.
            Err(ClientError::Refused(fault)) if fault.code == FaultCode::Busy => {}
            joined => break joined,
        }
    };
    assert_eq!(joined.unwrap().mesh.name, "Designs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_too_long_is_refused_in_words() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    let request = ShareRequest {
        dir: laptop.path("Designs"),
        name: Some("n".repeat(129)),
        role: None,
        ttl_seconds: None,
        ask: None,
    };
    let refused = fault(laptop.try_share(&request).await);
    assert_eq!(refused.code, FaultCode::BadRequest);
    assert!(refused.message.contains("1 to 128 bytes"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_shared_directory_again_is_told_of_invite() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.share("Designs").await;
    let request = ShareRequest {
        dir: laptop.path("Designs"),
        name: None,
        role: None,
        ttl_seconds: None,
        ask: None,
    };
    let refused = fault(laptop.try_share(&request).await);
    assert_eq!(refused.code, FaultCode::DirectoryTaken);
    assert!(refused.hint.unwrap().contains("wormhole invite"));
}
