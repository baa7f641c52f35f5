//! The serving side alone, over a pipe: who gets what, and what a bad fetcher can do.

use tokio::io::DuplexStream;
use wormhole_crdt::Role;
use wormhole_store::{Content, Holding};

use super::{message::read_reply, *};
use crate::{
    attachment::AttachedMesh,
    lab::{Lab, Node},
};

/// A node that serves its mesh to `peer` over a pipe, as if hello had succeeded.
struct Served {
    lab: Lab,
    node: Node,
    mesh: wormhole_crdt::Replica,
    registry: Registry,
}

impl Served {
    fn new() -> Self {
        let mut lab = Lab::new();
        let node = lab.node(1);
        let mesh = lab.found(&node);
        let registry = Registry::new(tokio::sync::broadcast::Sender::new(16));
        registry.attach(AttachedMesh {
            replica: mesh.clone(),
            store: node.store.clone(),
            limits: crate::RateLimits::default(),
            paused: false,
        });
        Self {
            lab,
            node,
            mesh,
            registry,
        }
    }

    fn member(&mut self, seed: u8, role: Role) -> DeviceId {
        let node = self.lab.node(seed);
        self.mesh
            .admit(node.id, "member", role, self.lab.now())
            .unwrap();
        self.present(node.id);
        node.id
    }

    fn present(&self, device: DeviceId) {
        self.registry
            .get(self.mesh.mesh_id())
            .unwrap()
            .arrived(device, crate::lab::TERMS);
    }

    /// Sends requests as `peer`, reads all replies, and says how serving ended.
    async fn ask(
        &self,
        peer: DeviceId,
        requests: &[Request],
    ) -> (Vec<Reply>, Result<(), ServeError>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let asking = async {
            let (mut reader, mut writer) = split(ours);
            let writing = async {
                let open = Open {
                    mesh: self.mesh.mesh_id(),
                };
                frame::write(&mut writer, &open, MAX_REQUEST).await.unwrap();
                for request in requests {
                    // A refusal may end the stream at any time.
                    if frame::write(&mut writer, request, 1 << 20).await.is_err() {
                        return;
                    }
                }
                let _ended = writer.shutdown().await;
            };
            let reading = read_all(&mut reader);
            tokio::join!(writing, reading).1
        };
        tokio::join!(asking, serve(theirs, peer, PathKind::Lan, &self.registry))
    }
}

async fn read_all(reader: &mut ReadHalf<DuplexStream>) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Ok(Some(reply)) = read_reply(reader, 0).await {
        replies.push(reply);
    }
    replies
}

#[tokio::test]
async fn every_role_is_served_manifests_chunks_and_holdings() {
    let mut served = Served::new();
    let content = served.node.import(1, 3 << 20);
    let slots: Vec<_> = served
        .node
        .store
        .slots(&content)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let ids: Vec<_> = slots.iter().map(|slot| slot.chunk.id).collect();
    for (seed, role) in [(2, Role::Writer), (3, Role::Reader), (4, Role::Seed)] {
        let peer = served.member(seed, role);
        let requests = [
            Request::Have(content),
            Request::Manifest(content),
            Request::Chunks(ids.clone()),
        ];
        let (replies, ended) = served.ask(peer, &requests).await;
        ended.unwrap();
        let mut replies = replies.into_iter();
        assert_eq!(replies.next(), Some(Reply::Opened));
        assert_eq!(replies.next(), Some(Reply::Held(Holding::All)));
        for expected in blobs(&served.node.store, &content).unwrap() {
            assert!(is_chunk(&served, expected, replies.next()), "{role}");
        }
        assert_eq!(replies.next(), Some(Reply::End));
        for expected in &ids {
            assert!(is_chunk(&served, *expected, replies.next()), "{role}");
        }
        assert_eq!(replies.next(), None);
    }
}

fn is_chunk(served: &Served, id: ChunkId, reply: Option<Reply>) -> bool {
    match reply {
        Some(Reply::Chunk(encoded)) => served.node.store.decode(id, &encoded).is_ok(),
        _ => false,
    }
}

#[tokio::test]
async fn strangers_removed_members_and_those_without_proof_get_nothing() {
    let mut served = Served::new();
    let content = served.node.import(1, 1000);
    let request = [Request::Chunks(vec![content.id.first_blob()])];
    let removed = served.member(2, Role::Writer);
    served.mesh.revoke(removed, served.lab.now()).unwrap();
    let stranger = served.lab.node(3).id;
    let no_member = served.lab.node(4).id;
    served.present(no_member);
    let unproved = served.lab.node(5).id;
    served
        .mesh
        .admit(unproved, "member", Role::Writer, served.lab.now())
        .unwrap();
    for peer in [removed, stranger, no_member, unproved] {
        let (replies, ended) = served.ask(peer, &request).await;
        assert_eq!(replies, [Reply::Refused(Refusal::NotMember)]);
        assert!(ended.unwrap_err().misbehaviour().is_none());
    }
}

#[tokio::test]
async fn a_paused_mesh_says_so() {
    let mut served = Served::new();
    let peer = served.member(2, Role::Writer);
    served.registry.get(served.mesh.mesh_id()).unwrap().pause();
    let (replies, _) = served.ask(peer, &[]).await;
    assert_eq!(replies, [Reply::Refused(Refusal::Paused)]);
}

#[tokio::test]
async fn what_is_not_here_is_absent_and_the_rest_is_served() {
    let mut served = Served::new();
    let peer = served.member(2, Role::Writer);
    let here = served.node.import(1, 1000);
    let missing = ChunkId::from_bytes([1; 32]);
    let unknown = Content {
        id: wormhole_store::ContentId::from_bytes([2; 32]),
        size: 1 << 30,
    };
    let requests = [
        Request::Chunks(vec![missing, here.id.first_blob()]),
        Request::Manifest(unknown),
        Request::Have(unknown),
        Request::Chunks(vec![]),
    ];
    let (replies, ended) = served.ask(peer, &requests).await;
    ended.unwrap();
    assert_eq!(replies.len(), 5, "{replies:?}");
    assert_eq!(replies[1], Reply::Absent);
    assert!(is_chunk(
        &served,
        here.id.first_blob(),
        Some(replies[2].clone())
    ));
    assert_eq!(
        replies[3..],
        [Reply::Absent, Reply::Held(Holding::NoManifest)]
    );
}

#[tokio::test]
async fn a_request_for_too_much_is_a_flood_and_garbage_is_bad() {
    let mut served = Served::new();
    let peer = served.member(2, Role::Writer);
    let ids = vec![ChunkId::from_bytes([1; 32]); MAX_IDS + 1];
    let (_, ended) = served.ask(peer, &[Request::Chunks(ids)]).await;
    assert_eq!(ended.unwrap_err().misbehaviour(), Some(Misbehaviour::Flood));
    let ids = vec![ChunkId::from_bytes([1; 32]); MAX_IDS * 2];
    let (_, ended) = served.ask(peer, &[Request::Chunks(ids)]).await;
    assert_eq!(
        ended.unwrap_err().misbehaviour(),
        Some(Misbehaviour::BadFrame)
    );
    let (mut ours, theirs) = tokio::io::duplex(1024);
    ours.write_all(&[3, 0, 0, 0, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    let ended = serve(theirs, peer, PathKind::Lan, &served.registry).await;
    assert_eq!(
        ended.unwrap_err().misbehaviour(),
        Some(Misbehaviour::BadFrame)
    );
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_that_never_reads_or_never_asks_is_given_up() {
    let mut served = Served::new();
    let peer = served.member(2, Role::Writer);
    let content = served.node.import(1, 60_000);
    let (mut ours, theirs) = tokio::io::duplex(1024);
    let open = Open {
        mesh: served.mesh.mesh_id(),
    };
    frame::write(&mut ours, &open, MAX_REQUEST).await.unwrap();
    let request = Request::Chunks(vec![content.id.first_blob(); MAX_IDS]);
    let asking = frame::write(&mut ours, &request, MAX_REQUEST);
    let serving = serve(theirs, peer, PathKind::Lan, &served.registry);
    let (asked, ended) = tokio::join!(asking, serving);
    asked.unwrap();
    assert!(matches!(ended, Err(ServeError::Stalled)), "{ended:?}");
    let (_silent, theirs) = tokio::io::duplex(1024);
    let ended = serve(theirs, peer, PathKind::Lan, &served.registry).await;
    assert!(matches!(ended, Err(ServeError::Stalled)), "{ended:?}");
}
