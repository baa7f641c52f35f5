//! Hello over pipes: members, strangers, replays, liars.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use tokio::io::DuplexStream;

use super::*;
use crate::bend::{Budget, bend};

const ALICE: DeviceId = DeviceId::from_bytes([1; 32]);
const BOB: DeviceId = DeviceId::from_bytes([2; 32]);
/// Bytes of a statement.
const STATEMENT: usize = 12 + NONCE + 8;

const MALLORY: DeviceId = DeviceId::from_bytes([3; 32]);

fn key(mesh: u8, epoch: u8) -> EpochKey {
    let mut bytes = [mesh ^ 0xff; 32];
    bytes[0] = epoch;
    EpochKey::of(&wormhole_crdt::EpochSecret::from_bytes(bytes))
}

/// A mesh by somebody who knows these epochs, the current one first.
fn known(mesh: u8, epochs: &[u8]) -> Known {
    Known {
        mesh: MeshId::from_bytes([mesh; 32]),
        keys: epochs.iter().map(|epoch| key(mesh, *epoch)).collect(),
    }
}

fn mesh(n: u8) -> (MeshId, EpochKey) {
    (MeshId::from_bytes([n; 32]), key(n, 0))
}

fn introduction(name: &str) -> Introduction {
    Introduction {
        name: name.into(),
        program: "1.0".into(),
    }
}

fn local<'a>(device: DeviceId, introduction: &'a Introduction, meshes: &[u8]) -> Local<'a> {
    Local {
        device,
        introduction,
        meshes: meshes.iter().map(|n| known(*n, &[0])).collect(),
    }
}

/// Alice opens to Bob; both are members of what they are given.
async fn greet(alice: &[u8], bob: &[u8]) -> (Greeted, Greeted) {
    let (mut a, mut b) = tokio::io::duplex(64);
    let (about_alice, about_bob) = (introduction("alice"), introduction("bob"));
    let (mut rng_a, mut rng_b) = (ChaCha20Rng::seed_from_u64(1), ChaCha20Rng::seed_from_u64(2));
    let mut recognised = None;
    let (alice, bob) = tokio::join!(
        open(&mut a, BOB, local(ALICE, &about_alice, alice), &mut rng_a),
        accept(
            &mut b,
            ALICE,
            local(BOB, &about_bob, bob),
            &mut rng_b,
            |meshes, _| {
                recognised = Some(meshes.to_vec());
            }
        ),
    );
    let (alice, bob) = (alice.unwrap(), bob.unwrap());
    assert_eq!(recognised.as_ref(), Some(&bob.shared));
    (alice, bob)
}

#[tokio::test]
async fn both_sides_learn_exactly_the_meshes_they_share() {
    let (alice, bob) = greet(&[5, 6, 7], &[7, 8, 5]).await;
    assert_eq!(alice.shared, [mesh(5).0, mesh(7).0]);
    assert_eq!(bob.shared, [mesh(7).0, mesh(5).0]);
    assert_eq!(alice.about, Some(introduction("bob")));
    assert_eq!(bob.about, Some(introduction("alice")));
}

/// What each of two devices with these epochs of one mesh learns, whoever opens.
async fn epochs(one: &[u8], other: &[u8]) -> bool {
    let mut found = Vec::new();
    for (a, b) in [(one, other), (other, one)] {
        let (mut to_bob, mut to_alice) = tokio::io::duplex(64);
        let about = introduction("somebody");
        let mut alice = local(ALICE, &about, &[]);
        let mut bob = local(BOB, &about, &[]);
        alice.meshes = vec![known(5, a)];
        bob.meshes = vec![known(6, &[0]), known(5, b)];
        let mut rngs = [1, 2].map(ChaCha20Rng::seed_from_u64);
        let [rng_a, rng_b] = &mut rngs;
        let (alice, bob) = tokio::join!(
            open(&mut to_bob, BOB, alice, rng_a),
            accept(&mut to_alice, ALICE, bob, rng_b, |_, _| {}),
        );
        found.extend([alice.unwrap().shared, bob.unwrap().shared]);
    }
    assert!(found.iter().all(|shared| *shared == found[0]), "{found:?}");
    found[0] == [mesh(5).0]
}

#[tokio::test]
async fn any_epoch_that_both_were_in_is_enough_to_recognise_one_another() {
    let many: Vec<u8> = [200, 0].into_iter().chain((1..200).rev()).collect();
    assert!(epochs(&[0], &[0]).await);
    assert!(epochs(&[3, 0, 2, 1], &[1, 0]).await, "one was away");
    assert!(epochs(&[2, 0], &[1, 0]).await, "rotations made apart");
    assert!(
        epochs(&many, &[0]).await,
        "whoever missed more than there is room for"
    );
    assert!(!epochs(&[1], &[2]).await);
}

#[tokio::test]
async fn strangers_learn_neither_meshes_nor_names() {
    let (alice, bob) = greet(&[5, 6], &[7]).await;
    assert_eq!(
        alice,
        Greeted {
            shared: vec![],
            about: None,
            terms: TERMS,
        }
    );
    assert_eq!(
        bob,
        Greeted {
            shared: vec![],
            about: None,
            terms: TERMS,
        }
    );
}

#[tokio::test]
async fn more_meshes_than_proofs_are_no_error() {
    let many: Vec<u8> = (0..=255).collect();
    let (alice, _) = greet(&many, &many).await;
    assert_eq!(alice.shared.len(), MESHES);
}

const TERMS: Terms = Terms {
    version: 1,
    capabilities: Capabilities::OURS,
};

/// Carries `bytes` of a statement and what follows, after changing one byte.
async fn tamper(from: &mut DuplexStream, to: &mut DuplexStream, at: usize) {
    let mut statement = [0; STATEMENT];
    from.read_exact(&mut statement).await.unwrap();
    statement[at] ^= 2;
    to.write_all(&statement).await.unwrap();
}

#[tokio::test]
async fn who_changes_what_the_devices_stated_has_them_share_nothing() {
    // The greatest version; the first and the last byte of the capabilities; and, to be fair, nothing.
    for at in [10, STATEMENT - 8, STATEMENT - 1] {
        let ((mut a, mut near), (mut far, mut b)) =
            (tokio::io::duplex(8192), tokio::io::duplex(8192));
        let (about_alice, about_bob) = (introduction("alice"), introduction("bob"));
        let (mut rng_a, mut rng_b) = (ChaCha20Rng::seed_from_u64(1), ChaCha20Rng::seed_from_u64(2));
        let relay = async {
            tamper(&mut near, &mut far, at).await;
            tokio::io::copy_bidirectional(&mut near, &mut far)
                .await
                .unwrap();
        };
        let alice = async {
            let said = open(&mut a, BOB, local(ALICE, &about_alice, &[5]), &mut rng_a).await;
            drop(a);
            said.unwrap()
        };
        let bob = async {
            let local = local(BOB, &about_bob, &[5]);
            let said = accept(&mut b, ALICE, local, &mut rng_b, |_, _| {}).await;
            drop(b);
            said.unwrap()
        };
        let (alice, bob, ()) = tokio::join!(alice, bob, relay);
        assert!(
            alice.shared.is_empty() && bob.shared.is_empty(),
            "byte {at}"
        );
        assert!(alice.about.is_none() && bob.about.is_none(), "byte {at}");
    }
}

#[tokio::test]
async fn both_sides_know_what_they_speak() {
    let (alice, bob) = greet(&[5], &[5]).await;
    assert_eq!((alice.terms, bob.terms), (TERMS, TERMS));
}

/// Everything that `device` says when it opens to a stranger that only listens.
async fn overhear(meshes: &[u8], seed: u64) -> Vec<u8> {
    let (mut a, mut b) = tokio::io::duplex(8192);
    let about = introduction("alice");
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let stranger = async {
        version::write_preamble(&mut b, version::OURS)
            .await
            .unwrap();
        b.write_all(&[0; NONCE + 8]).await.unwrap();
        b.write_all(&[0; PROOFS * PROOF]).await.unwrap();
        let mut heard = Vec::new();
        b.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let alice = async {
        let greeted = open(&mut a, MALLORY, local(ALICE, &about, meshes), &mut rng).await;
        drop(a);
        greeted
    };
    let (greeted, heard) = tokio::join!(alice, stranger);
    assert!(greeted.unwrap().shared.is_empty());
    heard
}

#[tokio::test]
async fn the_bytes_that_a_stranger_hears_hold_no_mesh_secret_name_or_number_of_meshes() {
    let heard = overhear(&[5, 6], 1).await;
    let contains = |part: &[u8]| heard.windows(part.len()).any(|window| window == part);
    assert!(!contains(mesh(5).0.as_bytes()));
    assert!(!contains(mesh(5).1.expose()));
    assert!(!contains(b"alice"));
    assert_eq!(heard.len(), overhear(&[], 2).await.len());
    assert_ne!(
        heard,
        overhear(&[5, 6], 3).await,
        "nothing to recognise the device by"
    );
}

#[tokio::test]
async fn a_replayed_or_reflected_proof_proves_nothing() {
    // Mallory talks to Bob, and sends back whatever Bob proves, and what Alice once proved to it.
    let recorded = overhear(&[5], 1).await;
    let (mut m, mut b) = tokio::io::duplex(8192);
    let about = introduction("bob");
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let bob = accept(
        &mut b,
        MALLORY,
        local(BOB, &about, &[5]),
        &mut rng,
        |_, _| {},
    );
    let mallory = replay(&mut m, &recorded);
    let (greeted, ()) = tokio::join!(bob, mallory);
    assert!(greeted.unwrap().shared.is_empty());
}

async fn replay(stream: &mut DuplexStream, recorded: &[u8]) {
    stream.write_all(recorded).await.unwrap();
    let mut answer = vec![0; STATEMENT + PROOFS * PROOF];
    stream.read_exact(&mut answer).await.unwrap();
}

#[tokio::test]
async fn an_end_before_the_introduction_is_a_broken_connection_and_no_offence() {
    let (mut a, mut b) = tokio::io::duplex(64 * 1024);
    let (about_alice, about_bob) = (introduction("alice"), introduction("bob"));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let bob = async {
        let ours = begin(&mut b, &mut rng).await.unwrap();
        let theirs = Statement::read(&mut b).await.unwrap();
        let proofs = Proofs {
            opener: ALICE,
            acceptor: BOB,
            statements: (theirs, ours),
        };
        let meshes = local(BOB, &about_bob, &[5]).meshes;
        receive_proofs(&mut b, &proofs, Speaker::Opener, &meshes)
            .await
            .unwrap();
        let keys = key::offered(&meshes, PROOFS);
        send_proofs(&mut b, &proofs, Speaker::Acceptor, &keys, &mut rng)
            .await
            .unwrap();
        b.shutdown().await.unwrap();
    };
    let mut rng_a = ChaCha20Rng::seed_from_u64(2);
    let alice = open(&mut a, BOB, local(ALICE, &about_alice, &[5]), &mut rng_a);
    let (greeted, ()) = tokio::join!(alice, bob);
    let error = greeted.unwrap_err();
    assert!(matches!(error, HelloError::Io(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silence_and_garbage_end_the_conversation() {
    let about = introduction("bob");
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (_silent, mut b) = tokio::io::duplex(64);
    let error = accept(&mut b, ALICE, local(BOB, &about, &[]), &mut rng, |_, _| {})
        .await
        .unwrap_err();
    assert!(matches!(error, HelloError::Deadline), "{error}");

    let (mut garbage, mut b) = tokio::io::duplex(64);
    garbage.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let error = accept(&mut b, ALICE, local(BOB, &about, &[]), &mut rng, |_, _| {})
        .await
        .unwrap_err();
    assert!(matches!(error, HelloError::Malformed), "{error}");
}

#[tokio::test]
async fn another_version_is_told_which_side_to_update() {
    let about = introduction("bob");
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (mut newer, mut b) = tokio::io::duplex(64);
    let range = VersionRange {
        least: 7,
        greatest: 9,
    };
    version::write_preamble(&mut newer, range).await.unwrap();
    let error = accept(&mut b, ALICE, local(BOB, &about, &[]), &mut rng, |_, _| {})
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("update wormhole on this device"),
        "{error}"
    );
}

/// What Alice says to Bob, who begins with this chance, when both are in these meshes.
async fn said(meshes: &[u8], chance: u64) -> Vec<u8> {
    let rng = || ChaCha20Rng::seed_from_u64(chance);
    let bob = begin(&mut tokio::io::sink(), &mut rng()).await.unwrap();
    let alice = Statement {
        nonce: [9; NONCE],
        ..bob
    };
    let proofs = Proofs {
        opener: ALICE,
        acceptor: BOB,
        statements: (alice, bob),
    };
    let mut wire = Vec::new();
    alice.write(&mut wire).await.unwrap();
    let keys: Vec<EpochKey> = meshes.iter().map(|n| mesh(*n).1).collect();
    let keys: Vec<&EpochKey> = keys.iter().collect();
    send_proofs(&mut wire, &proofs, Speaker::Opener, &keys, &mut rng())
        .await
        .unwrap();
    frame::write(&mut wire, &introduction("alice"), MAX_ABOUT)
        .await
        .unwrap();
    wire
}

#[test]
fn bent_hellos_do_no_harm() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let answer = |bytes: &[u8]| {
        let mut stream = tokio::io::join(bytes, tokio::io::sink());
        let about = introduction("bob");
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let bob = local(BOB, &about, &[1, 2]);
        let accepted = accept(&mut stream, ALICE, bob, &mut rng, |_, _| {});
        runtime.block_on(accepted)
    };
    let right = [
        runtime.block_on(said(&[2, 7], 3)),
        runtime.block_on(said(&[], 3)),
    ];
    let greeted = answer(&right[0]).unwrap();
    assert_eq!(
        greeted.shared,
        [mesh(2).0],
        "it is a hello before it is bent"
    );
    let budget = Budget {
        fixed: 256 << 10,
        per_byte: 8,
    };
    bend("hellos", &right, "", budget, |bytes| drop(answer(bytes)));
}
