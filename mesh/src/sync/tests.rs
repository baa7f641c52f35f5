//! One exchange over a pipe: with an honest peer, a silent one, and bad ones.

use tokio::io::{DuplexStream, duplex};
use wormhole_crdt::{EntryId, Replica, Role};
use wormhole_store::Content;

use super::*;
use crate::{
    attachment::AttachedMesh,
    lab::{Lab, Node, create_file, eventually},
};

/// Two members of a mesh, each with a registry of its own that knows the other to be there.
struct Pair {
    a: (Node, Replica, Registry),
    b: (Node, Replica, Registry),
}

impl Pair {
    fn new() -> Self {
        let mut lab = Lab::new();
        let (a, b) = (lab.node(1), lab.node(2));
        // The lab's own connection is cut: this test makes one by hand.
        lab.memory.cut(b.id, false);
        let at_a = lab.found(&a);
        let at_b = lab.admit(&at_a, &b, Role::Writer);
        let registry = |node: &Node, replica: &Replica, peer| {
            let registry = Registry::new(tokio::sync::broadcast::Sender::new(16));
            let store = node.store.clone();
            registry.attach(AttachedMesh {
                replica: replica.clone(),
                store,
                limits: crate::RateLimits::default(),
                paused: false,
            });
            registry
                .get(replica.mesh_id())
                .unwrap()
                .arrived(peer, crate::lab::TERMS);
            registry
        };
        let (of_a, of_b) = (registry(&a, &at_a, b.id), registry(&b, &at_b, a.id));
        Self {
            a: (a, at_a, of_a),
            b: (b, at_b, of_b),
        }
    }

    fn mesh(&self) -> Arc<Attachment> {
        self.a.2.get(self.a.1.mesh_id()).unwrap()
    }

    /// A opens an exchange to whatever is at the other end of the pipe.
    async fn open(&self, stream: DuplexStream) -> SyncError {
        open(stream, self.b.0.id, &self.mesh()).await.unwrap_err()
    }

    fn files(&self) -> (usize, usize) {
        let count = |replica: &Replica| replica.children(EntryId::ROOT).unwrap().len();
        (count(&self.a.1), count(&self.b.1))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_catch_up_even_when_the_pipe_is_narrow_and_both_have_much_to_say() {
    let pair = Pair::new();
    for n in 0..300 {
        create_file(&pair.a.1, &format!("a{n}"), Content::EMPTY);
        create_file(&pair.b.1, &format!("b{n}"), Content::EMPTY);
    }
    let (ours, theirs) = duplex(16);
    tokio::select! {
        error = pair.open(ours) => panic!("{error}"),
        ended = accept(theirs, pair.a.0.id, &pair.b.2) => panic!("{ended:?}"),
        () = eventually("both have all", || pair.files() == (600, 600)) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn news_is_pushed_without_being_asked_for() {
    let pair = Pair::new();
    let (ours, theirs) = duplex(64 * 1024);
    let pushing = async {
        eventually("in sync", || {
            pair.mesh()
                .sync_state()
                .iter()
                .any(|exchange| exchange.in_sync)
        })
        .await;
        for n in 1..=20 {
            create_file(&pair.a.1, &format!("{n}"), Content::EMPTY);
            eventually("b has it", || pair.files() == (n, n)).await;
        }
    };
    tokio::select! {
        error = pair.open(ours) => panic!("{error}"),
        ended = accept(theirs, pair.a.0.id, &pair.b.2) => panic!("{ended:?}"),
        () = pushing => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_exchange_lives_and_a_silent_peer_is_given_up() {
    let pair = Pair::new();
    let (ours, theirs) = duplex(64 * 1024);
    let idle = tokio::time::sleep(SILENCE * 4);
    tokio::select! {
        error = pair.open(ours) => panic!("{error}"),
        ended = accept(theirs, pair.a.0.id, &pair.b.2) => panic!("{ended:?}"),
        () = idle => {}
    }
    let (ours, mut theirs) = duplex(64 * 1024);
    let silent = async {
        frame::read::<Open, _>(&mut theirs, MAX_OPEN).await.unwrap();
        frame::write(&mut theirs, &Opened::Yes, MAX_OPEN)
            .await
            .unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        error = pair.open(ours) => assert!(matches!(error, SyncError::Silent), "{error}"),
        () = silent => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_hears_from_a_device_that_is_busy_for_long() {
    let pair = Pair::new();
    let (outbox, mut sent) = mpsc::channel(1);
    let (_, inbox) = mpsc::channel(1);
    let mut driver = Driver {
        mesh: pair.b.2.get(pair.b.1.mesh_id()).unwrap(),
        peer: pair.a.0.id,
        inbox,
        outbox,
        reports: pair.mesh().own_report(),
        queue: VecDeque::from([vec![7; 3]]),
        queue_bytes: 3,
    };
    let long = async {
        tokio::time::sleep(SILENCE * 10).await;
        Err(SyncError::Panicked)
    };
    let listening = async {
        let mut heard = Vec::new();
        while let Ok(Some(message)) = timeout(SILENCE, sent.recv()).await {
            heard.push(message);
        }
        heard
    };
    let mut heartbeat = interval(HEARTBEAT);
    let busy = async {
        let ended = driver.lively(long, &mut heartbeat).await;
        assert!(matches!(ended, Err(SyncError::Panicked)), "as the step did");
        assert_eq!((driver.queue.len(), driver.queue_bytes), (0, 0));
        drop(driver);
    };
    let ((), heard) = tokio::join!(busy, listening);
    assert_eq!(heard.first(), Some(&vec![7; 3]), "what waited goes first");
    assert!(heard.len() >= 20, "heard {} times", heard.len());
    assert!(heard.iter().skip(1).all(Vec::is_empty));
}

#[tokio::test]
async fn a_mesh_that_is_paused_or_not_shared_is_refused_with_the_reason() {
    let pair = Pair::new();
    let (ours, theirs) = duplex(1024);
    let at_b = pair.b.2.get(pair.b.1.mesh_id()).unwrap();
    at_b.pause();
    let (error, _) = tokio::join!(pair.open(ours), accept(theirs, pair.a.0.id, &pair.b.2));
    assert!(matches!(error, SyncError::Paused), "{error}");
    at_b.resume();
    pair.b.2.detach(at_b.id());
    let (ours, theirs) = duplex(1024);
    let (error, _) = tokio::join!(pair.open(ours), accept(theirs, pair.a.0.id, &pair.b.2));
    assert!(matches!(error, SyncError::NotShared), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_cannot_tell_an_unknown_mesh_from_one_that_it_has_not_proved() {
    let pair = Pair::new();
    let stranger = DeviceId::from_bytes([9; 32]);
    let mut took = Vec::new();
    for mesh in [pair.a.1.mesh_id(), MeshId::from_bytes([1; 32])] {
        let (mut ours, theirs) = duplex(1024);
        frame::write(&mut ours, &Open { mesh }, MAX_OPEN)
            .await
            .unwrap();
        let begun = Instant::now();
        let (answer, ended) = tokio::join!(
            frame::read::<Opened, _>(&mut ours, MAX_OPEN),
            accept(theirs, stranger, &pair.b.2)
        );
        assert_eq!(answer.unwrap(), Some(Opened::NotShared));
        assert!(!ended.unwrap_err().is_peer_fault());
        took.push(begun.elapsed().as_secs());
    }
    assert_eq!(took[0], took[1]);
}

#[tokio::test]
async fn garbage_is_the_peers_fault() {
    let pair = Pair::new();
    let (ours, mut theirs) = duplex(64 * 1024);
    let garbage = async {
        frame::read::<Open, _>(&mut theirs, MAX_OPEN).await.unwrap();
        frame::write(&mut theirs, &Opened::Yes, MAX_OPEN)
            .await
            .unwrap();
        frame::write_bytes(&mut theirs, &framed(SESSION, &[0xee; 100]), MAX_OPEN)
            .await
            .unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        error = pair.open(ours) => assert!(error.is_peer_fault(), "{error}"),
        () = garbage => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_says_of_itself_is_heard_and_heard_anew_when_it_changes() {
    let pair = Pair::new();
    let (ours, theirs) = duplex(64 * 1024);
    let at_b = pair.b.2.get(pair.b.1.mesh_id()).unwrap();
    let heard = || pair.mesh().sync_state().into_iter().next()?.report;
    let telling = async {
        eventually("nothing special is heard", || {
            heard() == Some(Report::default())
        })
        .await;
        for count in 1..=3 {
            let report = Report {
                hindrances: [(crate::Hindrance::DiskFull, count)].into(),
                ..Report::default()
            };
            at_b.report(report.clone());
            eventually("it is heard", || heard().as_ref() == Some(&report)).await;
        }
        assert!(pair.mesh().sync_state()[0].reports);
    };
    tokio::select! {
        error = pair.open(ours) => panic!("{error}"),
        ended = accept(theirs, pair.a.0.id, &pair.b.2) => panic!("{ended:?}"),
        () = telling => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_later_version_and_reports_that_cannot_be_read_are_passed_over() {
    let pair = Pair::new();
    let (ours, mut theirs) = duplex(64 * 1024);
    let odd = async {
        frame::read::<Open, _>(&mut theirs, MAX_OPEN).await.unwrap();
        frame::write(&mut theirs, &Opened::Yes, MAX_OPEN)
            .await
            .unwrap();
        let report = Report {
            keeps_all: true,
            ..Report::default()
        };
        for frame in [
            framed(200, b"a later version"),
            framed(REPORT, &[0xff; 100]),
            framed(REPORT, &report.encode()),
        ] {
            frame::write_bytes(&mut theirs, &frame, MAX_FRAME)
                .await
                .unwrap();
        }
        theirs.flush().await.unwrap();
        let session = {
            let mut session = Session::new(&pair.b.1, pair.a.0.id);
            session.start().unwrap()
        };
        for message in session {
            let frame = framed(SESSION, &message.into_bytes());
            frame::write_bytes(&mut theirs, &frame, MAX_FRAME)
                .await
                .unwrap();
        }
        eventually("the exchange goes on", || {
            let state = pair.mesh().sync_state();
            state
                .first()
                .is_some_and(|exchange| exchange.report.as_ref() == Some(&report))
        })
        .await;
    };
    tokio::select! {
        error = pair.open(ours) => panic!("{error}"),
        () = odd => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_ends_when_the_peer_goes_or_the_mesh_is_paused() {
    let pair = Pair::new();
    let mesh = pair.mesh();
    for stop in [
        |mesh: &Attachment, _| mesh.pause(),
        |mesh: &Attachment, peer| {
            mesh.left(peer);
        },
    ] {
        mesh.resume();
        mesh.arrived(pair.b.0.id, crate::lab::TERMS);
        let (ours, theirs) = duplex(64 * 1024);
        let stopping = async {
            eventually("it runs", || !mesh.sync_state().is_empty()).await;
            stop(&mesh, pair.b.0.id);
        };
        let (error, _, ()) = tokio::join!(
            pair.open(ours),
            accept(theirs, pair.a.0.id, &pair.b.2),
            stopping
        );
        assert!(
            matches!(error, SyncError::Paused | SyncError::Gone),
            "{error}"
        );
        assert!(mesh.sync_state().is_empty());
    }
}
