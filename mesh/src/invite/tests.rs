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
    ask: false,
};

fn invite(node: &Node, mesh: &Replica) -> Invite {
    node.protocols
        .invite(mesh.mesh_id(), OFFER, Vec::new())
        .unwrap()
}

async fn join(lab: &Lab, node: &Node, ticket: Ticket) -> Result<Joined, JoinError> {
    join_if(lab, node, &ticket, Consent::Anything).await
}

async fn join_if(
    lab: &Lab,
    node: &Node,
    ticket: &Ticket,
    consent: Consent,
) -> Result<Joined, JoinError> {
    lab.memory.discover();
    let wish = wish(ticket, consent);
    node.protocols.join(&wish, &CancellationToken::new()).await
}

fn wish(ticket: &Ticket, consent: Consent) -> Wish<'_> {
    Wish {
        ticket,
        peers: &[],
        consent,
        waiting: &|_| (),
    }
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
    assert_eq!(joined.welcome.epochs, at_a.epoch_secrets());
    assert_eq!(joined.content_key.expose(), a.store.key().expose());
    assert_eq!(at_a.role_of(&b.id), Some(Role::Writer));
    assert_eq!(at_a.role_of(&bystander.id), None);
    let at_b = b.start(&joined.welcome);
    a.sees(&b, at_b.mesh_id()).await;
    let event = a.events.recv().await.unwrap();
    assert!(matches!(event, NetworkEvent::InviteUsed { device, .. } if device == b.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_wrong_codes_end_the_tries_of_a_device_and_the_invite_stays_good_for_others() {
    let mut lab = Lab::new();
    let (a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    for left in [2, 1] {
        let wrong = join(&lab, &b, guess(&invite.code, left)).await.unwrap_err();
        let left = u8::try_from(left).unwrap();
        assert!(matches!(wrong, JoinError::WrongCode { tries_left: Some(n) } if n == left));
    }
    let third = join(&lab, &b, guess(&invite.code, 0)).await.unwrap_err();
    assert!(matches!(third, JoinError::Burnt), "{third}");
    let code = || Ticket::Code(invite.code.clone());
    let right = join(&lab, &b, code()).await.unwrap_err();
    assert!(matches!(right, JoinError::Burnt), "{right}");
    let link = join(&lab, &b, Ticket::Link(invite.link.clone())).await;
    assert!(matches!(link, Err(JoinError::Burnt)), "{link:?}");
    assert_eq!(at_a.role_of(&b.id), None);
    join(&lab, &c, code()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_codes_from_everywhere_burn_the_invite_and_its_owner_is_told() {
    let mut lab = Lab::new();
    let mut a = lab.node(1);
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let mut last = None;
    for seed in 2..20 {
        let guesser = lab.node(seed);
        let stream = guesser.streams.open(a.id, PROTOCOL).await.unwrap();
        let Ticket::Code(code) = guess(&invite.code, u64::from(seed)) else {
            unreachable!("a guess is a code");
        };
        last = converse(stream, &guesser, a.id, &code).await.err();
    }
    let burnt = ExchangeError::Refused(Refusal::Burnt);
    assert_eq!(last.unwrap().to_string(), burnt.to_string());
    let event = a.events.recv().await.unwrap();
    assert!(matches!(event, NetworkEvent::InviteBurnt { mesh } if mesh == at_a.mesh_id()));
    assert!(a.events.try_recv().is_err(), "it is told once");
}

/// Says that every invite is burnt, as anybody on a network can.
struct Liar;

impl Handler for Liar {
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

    fn accept(&self, mut stream: Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let ours = crate::version::OURS;
            crate::version::write_preamble(&mut stream, ours)
                .await
                .unwrap();
            let burnt = message::Challenge::Refused(Refusal::Burnt);
            crate::frame::write(&mut stream, &burnt, 4096)
                .await
                .unwrap();
            std::future::pending::<()>().await;
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_lies_about_an_invite_keeps_nobody_from_joining() {
    let mut lab = Lab::new();
    let (a, b, liar) = (lab.node(1), lab.node(2), lab.node(3));
    lab.memory.serve(liar.id, Arc::new(Liar));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let shown = [invite.code.nameplate().to_string()].into();
    liar.streams.set_advertised_nameplates(shown);
    lab.memory.busy(a.id, PROTOCOL, 1);
    let alone = join(&lab, &b, Ticket::Code(invite.code.clone())).await;
    assert!(
        alone.is_err(),
        "the inviter had no room, the liar lied: {alone:?}"
    );
    join(&lab, &b, Ticket::Code(invite.code)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_is_shown_what_it_joins_before_it_is_admitted_and_the_invite_waits() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let ticket = Ticket::Code(invite.code);
    let undecided = join_if(&lab, &b, &ticket, Consent::Nothing).await;
    let Err(JoinError::Undecided { proposal }) = undecided else {
        panic!("{undecided:?}");
    };
    assert_eq!(proposal.mesh, at_a.mesh_id());
    assert_eq!(proposal.mesh_name, "Designs");
    assert_eq!(
        (proposal.inviter, proposal.inviter_name.as_str()),
        (a.id, "node 1")
    );
    assert_eq!((proposal.role, proposal.ask), (Role::Writer, false));
    assert_eq!(at_a.role_of(&b.id), None);
    // Who agreed to something else agreed to nothing of this.
    let other = Proposal {
        role: Role::Admin,
        ..(*proposal).clone()
    };
    let agreed = join_if(&lab, &b, &ticket, Consent::to(&other)).await;
    assert!(
        matches!(agreed, Err(JoinError::Undecided { .. })),
        "{agreed:?}"
    );
    join_if(&lab, &b, &ticket, Consent::to(&proposal))
        .await
        .unwrap();
    assert_eq!(at_a.role_of(&b.id), Some(Role::Writer));
}

/// An invite whose device a person has to admit.
fn invite_and_ask(node: &Node, mesh: &Replica) -> Invite {
    let offer = InviteOffer { ask: true, ..OFFER };
    node.protocols
        .invite(mesh.mesh_id(), offer, Vec::new())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_device_that_has_to_be_admitted_waits_over_broken_connections_and_then_comes_in() {
    let mut lab = Lab::new();
    let (mut a, b, c) = (lab.node(1), lab.node(2), lab.node(3));
    let at_a = lab.found(&a);
    let mesh = at_a.mesh_id();
    let ticket = Ticket::Code(invite_and_ask(&a, &at_a).code);
    lab.memory.discover();
    let told = Arc::new(Mutex::new(0));
    let waits = Arc::clone(&told);
    let wish = Wish {
        waiting: &move |proposal| {
            assert!(proposal.ask);
            *waits.lock().unwrap() += 1;
        },
        ..wish(&ticket, Consent::Anything)
    };
    let cancel = CancellationToken::new();
    let watching = async {
        loop {
            if let NetworkEvent::JoinAsked { device, name, .. } = a.events.recv().await.unwrap() {
                assert_eq!((device, name.as_str()), (b.id, "node 2"));
                break;
            }
        }
        // Its conversations end and begin; nobody else gets the place, and it is asked for once.
        tokio::time::sleep(Duration::from_secs(100)).await;
        let other = join(&lab, &c, ticket.clone()).await;
        assert!(matches!(other, Err(JoinError::Taken)), "{other:?}");
        assert_eq!(at_a.role_of(&b.id), None);
        lab.memory.cut(b.id, false);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let asking = a.protocols.asking();
        assert_eq!((asking.len(), asking[0].device), (1, b.id));
        assert!(a.protocols.decide(mesh, b.id, true));
        lab.memory.cut(b.id, true);
        lab.memory.discover();
    };
    let (joined, ()) = tokio::join!(b.protocols.join(&wish, &cancel), watching);
    joined.unwrap();
    assert_eq!(*told.lock().unwrap(), 1);
    assert_eq!(at_a.role_of(&b.id), Some(Role::Writer));
    assert!(a.protocols.asking().is_empty());
    let asked = std::iter::from_fn(|| a.events.try_recv().ok());
    let again = asked.filter(|event| matches!(event, NetworkEvent::JoinAsked { .. }));
    assert_eq!(again.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_refused_hears_so_at_once() {
    let mut lab = Lab::new();
    let (mut a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let ticket = Ticket::Code(invite_and_ask(&a, &at_a).code);
    let refusing = async {
        while !matches!(
            a.events.recv().await.unwrap(),
            NetworkEvent::JoinAsked { .. }
        ) {}
        assert!(a.protocols.decide(at_a.mesh_id(), b.id, false));
    };
    let (refused, ()) = tokio::join!(join(&lab, &b, ticket), refusing);
    assert!(matches!(refused, Err(JoinError::Declined)), "{refused:?}");
    assert_eq!(at_a.role_of(&b.id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_invite_can_be_handed_out_again() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(1), lab.node(2));
    let at_a = lab.found(&a);
    let invite = invite(&a, &at_a);
    let [again] = &a.protocols.invites(&[])[..] else {
        panic!("one invite is open");
    };
    assert_eq!(again.code.reveal(), invite.code.reveal());
    assert_eq!(again.link.reveal(), invite.link.reveal());
    join(&lab, &b, Ticket::Code(again.code.clone()))
        .await
        .unwrap();
    assert!(a.protocols.invites(&[]).is_empty());
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
    let wish = wish(&ticket, Consent::Anything);
    let cancelled = b.protocols.join(&wish, &cancel).await.unwrap_err();
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
        consent: &Consent::Anything,
        offered: &|_| (),
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
