//! Joining over a network in memory: the right way, and every wrong one.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio_util::sync::CancellationToken;
use wormhole_crdt::Replica;

use super::{
    exchange::ExchangeError,
    message::{Handle, Refusal},
    *,
};
use crate::lab::{Lab, Node, eventually};

const OFFER: InviteOffer = InviteOffer {
    role: Role::Writer,
    ttl: DEFAULT_TTL,
};

fn invite(node: &Node, mesh: &Replica) -> Invite {
    node.protocols
        .invite(mesh.mesh_id(), OFFER, Vec::new())
        .unwrap()
}

async fn join(lab: &Lab, node: &Node, ticket: Ticket) -> Result<Joined, JoinError> {
    lab.memory.discover();
    node.protocols
        .join(&ticket, &[], &CancellationToken::new())
        .await
}

/// The same nameplate with other words.
fn guess(code: &Code, n: u64) -> Ticket {
    use rand::SeedableRng as _;
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(n);
    Ticket::Code(Code::random(code.nameplate(), &mut rng))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_joins_with_the_code_and_works_in_the_mesh() {
    let mut lab = Lab::new();
    let (mut a, b, bystander) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let text = invite.code.reveal().to_uppercase();
    let joined = join(&lab, &b, text.parse().unwrap()).await.unwrap();
    assert_eq!((joined.from, joined.role), (a.id, Role::Writer));
    assert_eq!(joined.from_name, "node 1");
    assert_eq!(joined.secret.expose(), &crate::lab::SECRET);
    assert_eq!(joined.content_key.expose(), a.store.key().expose());
    assert_eq!(at_a.role_of(&b.id), Some(Role::Writer));
    assert_eq!(at_a.role_of(&bystander.id), None);
    let at_b = b.start(&joined.welcome);
    a.sees(&b, at_b.mesh_id()).await;
    let event = a.events.recv().await.unwrap();
    assert!(matches!(event, NetworkEvent::InviteUsed { device, .. } if device == b.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_codes_burn_the_invite_and_its_owner_is_told() {
    let mut lab = Lab::new();
    let (mut a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    for left in [2, 1] {
        let wrong = join(&lab, &b, guess(&invite.code, left)).await.unwrap_err();
        let left = u8::try_from(left).unwrap();
        assert!(matches!(wrong, JoinError::WrongCode { tries_left: Some(n) } if n == left));
    }
    let third = join(&lab, &b, guess(&invite.code, 0)).await.unwrap_err();
    assert!(matches!(third, JoinError::Burnt), "{third}");
    let right = join(&lab, &b, Ticket::Code(invite.code)).await.unwrap_err();
    assert!(matches!(right, JoinError::Burnt), "{right}");
    let link = join(&lab, &b, Ticket::Link(invite.link)).await.unwrap_err();
    assert!(matches!(link, JoinError::Burnt), "{link}");
    assert_eq!(at_a.role_of(&b.id), None);
    let event = a.events.recv().await.unwrap();
    assert!(matches!(event, NetworkEvent::InviteBurnt { mesh } if mesh == at_a.mesh_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_works_once_but_again_for_the_device_that_used_it() {
    let mut lab = Lab::new();
    let (a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let link = || -> Ticket { invite.link.reveal().parse().unwrap() };
    join(&lab, &b, link()).await.unwrap();
    let used = join(&lab, &c, link()).await.unwrap_err();
    assert!(matches!(used, JoinError::Used), "{used}");
    let used = join(&lab, &c, Ticket::Code(invite.code.clone()))
        .await
        .unwrap_err();
    assert!(matches!(used, JoinError::Used), "{used}");
    // B lost its answer, or asks twice.
    join(&lab, &b, link()).await.unwrap();
    assert_eq!(at_a.members().len(), 2);
    // But a device that was removed does not come back with it.
    at_a.revoke(b.id, lab.now()).unwrap();
    let used = join(&lab, &b, link()).await.unwrap_err();
    assert!(matches!(used, JoinError::Used), "{used}");
    assert_eq!(at_a.role_of(&b.id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_expires_and_says_so() {
    let mut lab = Lab::new();
    let (mut a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    lab.advance(DEFAULT_TTL);
    for ticket in [Ticket::Code(invite.code), Ticket::Link(invite.link)] {
        let expired = join(&lab, &b, ticket).await.unwrap_err();
        assert!(matches!(expired, JoinError::Expired), "{expired}");
    }
    assert_eq!(at_a.role_of(&b.id), None);
    // Its owner is told once, however many devices came too late.
    let told = std::iter::from_fn(|| a.events.try_recv().ok());
    let told: Vec<_> = told
        .filter(|event| matches!(event, NetworkEvent::InviteExpired { mesh } if *mesh == at_a.mesh_id()))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_does_not_join_twice_and_the_invite_stays_good() {
    let mut lab = Lab::new();
    let (a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    lab.admit(&at_a, &b, Role::Reader);
    let invite = invite(&a, &at_a);
    let twice = join(&lab, &b, Ticket::Code(invite.code.clone()))
        .await
        .unwrap_err();
    assert!(matches!(twice, JoinError::AlreadyMember { .. }), "{twice}");
    assert_eq!(at_a.role_of(&b.id), Some(Role::Reader));
    // The inviter may still be reading that answer.
    let ticket = || Ticket::Code(invite.code.clone());
    while let Err(busy) = join(&lab, &c, ticket()).await {
        assert!(matches!(busy, JoinError::Busy), "{busy}");
    }
    assert_eq!(at_a.role_of(&c.id), Some(Role::Writer));
}

#[tokio::test(start_paused = true)]
async fn when_nobody_answers_the_joiner_is_told_what_to_do() {
    let mut lab = Lab::new();
    let (b, other) = (lab.node(2), lab.node(3));
    let code = "7-copper-violin-harvest-ladder".parse().unwrap();
    let nobody = join(&lab, &b, Ticket::Code(code)).await.unwrap_err();
    assert!(matches!(nobody, JoinError::NobodyAnswers), "{nobody}");
    assert!(nobody.to_string().contains("--peer"));
    assert!(other.protocols.shared(&b.id).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_ends_when_it_is_cancelled() {
    let mut lab = Lab::new();
    let b = lab.node(2);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ticket = Ticket::Code("7-copper-violin-harvest-ladder".parse().unwrap());
    let cancelled = b.protocols.join(&ticket, &[], &cancel).await.unwrap_err();
    assert!(matches!(cancelled, JoinError::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_invite_and_not_for_ever() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let mesh = at_a.mesh_id();
    lab.admit(&at_a, &b, Role::Writer);
    let refused = |node: &Node, mesh, offer| node.protocols.invite(mesh, offer, Vec::new());
    assert_eq!(refused(&b, mesh, OFFER).unwrap_err(), InviteError::NotAdmin);
    let long = InviteOffer {
        ttl: MAX_TTL + Duration::from_secs(1),
        ..OFFER
    };
    assert_eq!(refused(&a, mesh, long).unwrap_err(), InviteError::TooLong);
    let other = MeshId::from_bytes([0; 32]);
    let unknown = InviteError::UnknownMesh { mesh: other };
    assert_eq!(refused(&a, other, OFFER).unwrap_err(), unknown);
}

/// Stands between joiner and inviter and passes every byte on, and keeps what the joiner said.
struct Middle {
    streams: Streams,
    inviter: DeviceId,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Handler for Middle {
    fn protocol(&self) -> Protocol {
        PROTOCOL
    }

    fn quota(&self) -> Quota {
        Quota {
            stranger: 9,
            member: 9,
            total: 9,
        }
    }

    fn accept(&self, stream: Stream) -> BoxFuture<'static, ()> {
        let (streams, inviter) = (self.streams.clone(), self.inviter);
        let heard = Arc::clone(&self.heard);
        Box::pin(async move {
            let onward = streams.open(inviter, PROTOCOL).await.unwrap();
            pass_on(stream, onward, &heard).await;
        })
    }
}

/// Passes bytes both ways until one side ends, and keeps what the joiner said.
async fn pass_on(joiner: Stream, inviter: Stream, heard: &Mutex<Vec<u8>>) {
    let (mut from_joiner, mut to_joiner) = split(joiner);
    let (mut from_inviter, mut to_inviter) = split(inviter);
    let there = async {
        let mut buffer = [0; 4096];
        while let Ok(got @ 1..) = from_joiner.read(&mut buffer).await {
            heard.lock().unwrap().extend_from_slice(&buffer[..got]);
            if to_inviter.write_all(&buffer[..got]).await.is_err() {
                break;
            }
        }
    };
    let back = tokio::io::copy(&mut from_inviter, &mut to_joiner);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}

async fn converse(
    mut stream: Stream,
    joiner: &Node,
    with: DeviceId,
    code: &Code,
) -> Result<(), ExchangeError> {
    let joiner = exchange::Joiner {
        device: joiner.id,
        name: "joiner",
        handle: Handle::Nameplate(code.nameplate()),
        password: &code.password(),
        is_member: &|_| false,
    };
    exchange::ask(&joiner, &mut stream, with).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_man_in_the_middle_gets_nobody_in_even_with_the_right_code() {
    let mut lab = Lab::new();
    let (a, b, mallory) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    lab.memory.discover();
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let streams = mallory.streams.clone();
    let middle = Middle {
        streams,
        inviter: a.id,
        heard: Arc::clone(&heard),
    };
    lab.memory.serve(mallory.id, Arc::new(middle));
    // The joiner reaches nobody else.
    let stream = b.streams.open(mallory.id, PROTOCOL).await.unwrap();
    let error = converse(stream, &b, mallory.id, &invite.code)
        .await
        .err()
        .unwrap();
    let wrong = ExchangeError::Refused(Refusal::Wrong { tries_left: 2 });
    assert_eq!(error.to_string(), wrong.to_string());
    assert_eq!(at_a.members().len(), 1);
    assert!(!heard.lock().unwrap().is_empty(), "it did stand in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_conversation_opens_nothing_when_it_is_replayed() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let onward = b.streams.open(a.id, PROTOCOL).await.unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let ours = Stream::new(ours, a.id, PathKind::Local);
    let theirs = Stream::new(theirs, b.id, PathKind::Local);
    let (said, ()) = tokio::join!(
        converse(ours, &b, a.id, &invite.code),
        pass_on(theirs, onward, &heard)
    );
    said.unwrap();
    let heard = heard.lock().unwrap().clone();
    assert_eq!(at_a.role_of(&b.id), Some(Role::Writer));
    at_a.revoke(b.id, lab.now()).unwrap();
    // The invite still answers B, so the same words are heard out; but they do not fit any more.
    let mut stream = b.streams.open(a.id, PROTOCOL).await.unwrap();
    stream.write_all(&heard).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(at_a.role_of(&b.id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nameplates_are_shown_while_their_invites_are_good() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let shown = |node: &Node| {
        lab.memory.discover();
        let seen = node.streams.discovered().borrow().clone();
        seen.iter()
            .flat_map(|seen| seen.nameplates.clone())
            .collect::<Vec<_>>()
    };
    assert!(shown(&b).is_empty());
    let invite = invite(&a, &at_a);
    assert_eq!(shown(&b), [invite.code.nameplate().to_string()]);
    join(&lab, &b, Ticket::Code(invite.code)).await.unwrap();
    eventually("it is taken off", || shown(&b).is_empty()).await;
}
