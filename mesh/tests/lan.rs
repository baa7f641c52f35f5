//! Discovery between two network namespaces joined by a cable: the real mDNS and the real beacon.
//!
//! Needs Linux, root and the `ip` command, and says so when it lacks one. The test starts itself once in each
//! namespace (`WORMHOLE_LAN` says which way of discovery to use); each side must see the other, connect to it at
//! a discovered address, and be shown as LAN.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the sides talk to the test through their output"
)]

use std::{
    env,
    io::{self, BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::time::sleep;
use wormhole_mesh::{Discovery, Identity, Neighbour, Network, NetworkConfig, PathKind};

/// What a person would wait for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a side looks whom discovery sees: what it sees is a state, without events.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a side prints when it is connected.
const MET: &str = "met the other side";

const METHOD: &str = "WORMHOLE_LAN";
const SEED: &str = "WORMHOLE_LAN_SEED";

#[test]
fn devices_on_one_lan_find_each_other_by_mdns() {
    meet_by("mdns");
}

#[test]
fn devices_on_one_lan_find_each_other_by_beacon() {
    meet_by("beacon");
}

/// One side of the meeting; does nothing unless started by the tests above.
#[test]
fn one_side() {
    let Ok(method) = env::var(METHOD) else { return };
    let seed: u8 = env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, meet(&method, seed))
            .await
            .expect("nobody was found");
    });
}

async fn meet(method: &str, seed: u8) {
    let way = |name| {
        if method == name {
            Discovery::On
        } else {
            Discovery::Off
        }
    };
    let config = NetworkConfig {
        mdns: way("mdns"),
        beacon: way("beacon"),
        ..NetworkConfig::default()
    };
    let network = Network::bind(Identity::from_bytes(&[seed; 32]).unwrap(), config)
        .await
        .unwrap();
    let other = Identity::from_bytes(&[3 - seed; 32]).unwrap().device_id();
    let found = |seen: Neighbour| (seen.device == other).then(|| seen.addrs.first().copied());
    let addr = loop {
        let seen = network.neighbours().into_iter().find_map(found);
        if let Some(addr) = seen.flatten() {
            break addr;
        }
        sleep(LOOK_AGAIN).await;
    };
    assert_eq!(network.dial(&addr).await.unwrap(), other);
    let on_lan = || {
        network
            .peers()
            .iter()
            .any(|peer| peer.path == Some(PathKind::Lan))
    };
    while !on_lan() {
        sleep(LOOK_AGAIN).await;
    }
    // Both stay until both have met: the test says when.
    println!("{MET}");
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()))
        .await
        .unwrap()
        .unwrap();
    network.shutdown().await;
}

fn meet_by(method: &str) {
    let lan = Lan::new(method);
    let mut sides = [lan.start(1), lan.start(2)];
    // Held until the sides are done: they go on printing.
    let _said = sides.each_mut().map(|side| {
        let mut said = BufReader::new(side.stdout.take().unwrap()).lines();
        assert!(
            said.any(|line| line.unwrap().contains(MET)),
            "one side found nobody"
        );
        said
    });
    for mut side in sides {
        drop(side.stdin.take());
        assert!(side.wait().unwrap().success());
    }
}

/// Two namespaces and a cable; gone with the value.
struct Lan {
    method: &'static str,
    names: [String; 2],
}

impl Lan {
    fn new(method: &str) -> Self {
        let method = if method == "mdns" { "mdns" } else { "beacon" };
        let id = std::process::id();
        let names = [1, 2].map(|n| format!("wh-{method}-{id}-{n}"));
        let lan = Self { method, names };
        for name in &lan.names {
            run(&format!("ip netns add {name}"));
            run(&format!("ip -n {name} link set lo up"));
        }
        let [a, b] = &lan.names;
        run(&format!(
            "ip -n {a} link add cable type veth peer name cable netns {b}"
        ));
        for (n, name) in (1..).zip(&lan.names) {
            run(&format!(
                "ip -n {name} addr add 10.213.7.{n}/24 brd + dev cable"
            ));
            run(&format!("ip -n {name} link set cable up"));
        }
        lan
    }

    fn start(&self, seed: u8) -> Child {
        let name = &self.names[usize::from(seed) - 1];
        Command::new("ip")
            .args(["netns", "exec", name])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "one_side", "--nocapture"])
            .env(METHOD, self.method)
            .env(SEED, seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            // Perhaps the test has failed already; what it says is worth more than this.
            if let Err(status) = try_run(&format!("ip netns del {name}")) {
                eprintln!("the namespace {name} is left behind: {status:?}");
            }
        }
    }
}

fn try_run(command: &str) -> Result<(), io::Result<ExitStatus>> {
    let mut words = command.split(' ');
    match Command::new(words.next().unwrap()).args(words).status() {
        Ok(status) if status.success() => Ok(()),
        status => Err(status),
    }
}

fn run(command: &str) {
    let done = try_run(command);
    assert!(
        done.is_ok(),
        "`{command}` failed ({done:?}): this test needs Linux, root (CAP_NET_ADMIN and \
         CAP_SYS_ADMIN) and the `ip` command (apt install iproute2)"
    );
}
