//! What a path costs: one process serves bytes from memory, another counts them, over the real network.
//!
//! ```text
//! cargo run --release -p wormhole-mesh --example throughput -- serve        # prints an address and a link
//! cargo run --release -p wormhole-mesh --example throughput -- pull ADDR LINK [GIB]
//! ```
//!
//! Both print their CPU seconds per GiB. It is also the shortest complete use of this crate: make a mesh,
//! invite, join, attach.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::{env, error::Error, time::Duration};

use tokio_util::sync::CancellationToken;
use wormhole_crdt::{DeviceId, NewMesh, Replica, Role, Timestamp};
use wormhole_mesh::{
    AttachedMesh, Identity, InviteOffer, MeshSecret, Network, NetworkConfig, PeerAddr, Ticket,
};
use wormhole_store::{ContentKey, Store, StoreOptions};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve().await,
        ["pull", addr, link] => pull(addr.parse()?, &link.parse()?, 1).await,
        ["pull", addr, link, gib] => pull(addr.parse()?, &link.parse()?, gib.parse()?).await,
        _ => Err("usage: throughput serve | pull ADDR LINK [GIB]".into()),
    }
}

async fn serve() -> Result<()> {
    let mut rng = rand::rng();
    let identity = Identity::generate(&mut rng);
    let home = tempfile::tempdir()?;
    let key = ContentKey::from_bytes([7; 32]);
    let store = Store::open(&home.path().join("store"), key, StoreOptions::default())?;
    let mesh = NewMesh {
        name: "throughput".into(),
        device_name: "server".into(),
        key: identity.device_key(),
    };
    let replica = Replica::create(memory()?, &mesh, Timestamp(0), &mut rng)?;
    let id = replica.mesh_id();

    let network = Network::bind(identity, NetworkConfig::loopback()).await?;
    network.attach(AttachedMesh {
        secret: MeshSecret::random(&mut rng),
        replica,
        store,
    });
    let offer = InviteOffer {
        role: Role::Writer,
        ttl: Duration::from_secs(600),
    };
    let invite = network.invite(id, offer)?;
    let addr = network
        .listen_addrs()
        .first()
        .copied()
        .ok_or("no address")?;
    println!("{addr} {}", *invite.link.reveal());

    let joined = peer(&network).await;
    while network
        .peers()
        .iter()
        .any(|peer| peer.device == joined && peer.connected)
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("server: {:.2} CPU s", cpu_seconds());
    network.shutdown().await;
    Ok(())
}

async fn pull(addr: PeerAddr, ticket: &Ticket, gib: u64) -> Result<()> {
    let mut rng = rand::rng();
    let identity = Identity::generate(&mut rng);
    let home = tempfile::tempdir()?;
    let network = Network::bind(identity.clone(), NetworkConfig::loopback()).await?;
    let joined = network
        .join(ticket, &[addr], &CancellationToken::new())
        .await?;
    let store = Store::open(
        &home.path().join("store"),
        joined.content_key,
        StoreOptions::default(),
    )?;
    let replica = Replica::join(memory()?, &joined.welcome, identity.device_key(), &mut rng)?;
    network.attach(AttachedMesh {
        secret: joined.secret,
        replica,
        store,
    });
    let server = peer(&network).await;

    let before = cpu_seconds();
    let probed = network.probe(server, gib << 30).await?;
    let rate = (probed.bytes >> 20) as f64 / probed.elapsed.as_secs_f64();
    println!(
        "{rate:.0} MiB/s; client: {:.2} CPU s for {gib} GiB",
        cpu_seconds() - before
    );
    network.shutdown().await;
    Ok(())
}

/// Waits for somebody with whom we share a mesh.
async fn peer(network: &Network) -> DeviceId {
    loop {
        let shared = network
            .peers()
            .into_iter()
            .find(|peer| !peer.meshes.is_empty());
        if let Some(peer) = shared {
            return peer.device;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn memory() -> Result<redb::Database> {
    Ok(redb::Builder::new().create_with_backend(redb::backends::InMemoryBackend::new())?)
}

/// User and system time of this process so far, where `/proc` tells (in ticks of 10 ms); else 0.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15; the second one may contain spaces, and ends with the last bracket.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}
