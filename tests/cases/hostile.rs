//! Strangers on the ports: whatever they send, or do not send, members go on syncing.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use wormhole_tests::{Lab, Peer};

/// What a node may hold in memory while it is attacked: many times what it needs, far below what an
/// unbounded queue would take.
const MOST_MEMORY: u64 = 1 << 30;

/// Connections that say nothing.
const SILENT: usize = 300;

fn address(peer: &Peer) -> Result<SocketAddr> {
    let address = peer.address()?;
    let address = address.rsplit('/').next().context("an address")?;
    Ok(address.parse()?)
}

/// Connects, sends noise until the node has had enough, and begins again.
fn babble(at: SocketAddr, seed: u64, done: &AtomicBool) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut noise = vec![0; 64 << 10];
    while !done.load(Ordering::Relaxed) {
        rng.fill_bytes(&mut noise);
        if let Ok(mut stream) = TcpStream::connect(at) {
            // A frame of the largest length that can be said comes first, then nonsense.
            let greeting = stream.write_all(&[0xff; 8]);
            while greeting.is_ok() && !done.load(Ordering::Relaxed) {
                if stream.write_all(&noise).is_err() {
                    break;
                }
            }
        } else {
            std::thread::yield_now();
        }
    }
}

/// Sends datagrams of noise, half of them with the first byte of a QUIC handshake.
fn flood(at: SocketAddr, seed: u64, done: &AtomicBool) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut datagram = [0; 1200];
    while !done.load(Ordering::Relaxed) {
        rng.fill_bytes(&mut datagram);
        if rng.next_u32() % 2 == 0 {
            let [first, version @ ..] = &mut datagram;
            *first = 0xc3;
            if let Some(version) = version.first_chunk_mut() {
                *version = 1_u32.to_be_bytes();
            }
        }
        // A full queue of the system is as good as a full queue of the node.
        drop(socket.send_to(&datagram, at));
    }
    Ok(())
}

#[test]
fn strangers_who_babble_flood_or_say_nothing_do_not_stop_members() -> Result<()> {
    let lab = Lab::on_loopback()?;
    let alice = lab.started("alice")?;
    alice.write("work/first.txt", "first")?;
    let bob = lab.started("bob")?;
    bob.join(&alice.share("work")?, "work", Some(&alice))?
        .good()?;
    bob.settled(1)?;
    let places = [address(&alice)?, address(&bob)?];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        for (seed, at) in (0..).zip(places) {
            let done = &done;
            scope.spawn(move || babble(at, seed, done));
            scope.spawn(move || flood(at, seed, done));
        }
        let synced = under_fire(&alice, &bob, places);
        done.store(true, Ordering::Relaxed);
        synced
    })
}

fn under_fire(alice: &Peer, bob: &Peer, places: [SocketAddr; 2]) -> Result<()> {
    let mut silent = Vec::new();
    for n in 0..SILENT {
        let at = places.get(n % 2).context("two places")?;
        if let Ok(stream) = TcpStream::connect_timeout(at, Duration::from_secs(1)) {
            silent.push(stream);
        }
    }
    for n in 0..40 {
        alice.write(&format!("work/a/{n}.txt"), format!("alice {n}"))?;
        bob.write(&format!("work/b/{n}.txt"), format!("bob {n}"))?;
    }
    alice.write("work/big.bin", vec![7; 4 << 20])?;
    Lab::eventually("both have everything, whoever else is at the door", || {
        let (left, right) = (alice.tree("work")?, bob.tree("work")?);
        left.must_equal(&right)?;
        ensure!(left.files() == 82, "{} files", left.files());
        Ok(())
    })?;
    for peer in [alice, bob] {
        let held = peer.resident_bytes()?;
        ensure!(held < MOST_MEMORY, "{} holds {held} bytes", peer.name());
        peer.run(&["status"])?.good()?;
    }
    Ok(())
}
