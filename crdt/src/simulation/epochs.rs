//! Devices come, leave and are removed while others write apart: everybody who stays reads everything, and nobody
//! who went knows what is sealed with in the end.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::from_env;
use crate::epoch::EpochSecret;
use crate::id::{DeviceId, EpochId};
use crate::lab::{Disk, Link, NOW, create, key, listing, mesh_on};
use crate::member::Role;
use crate::replica::Replica;

const ROLES: [Role; 3] = [Role::Admin, Role::Writer, Role::Reader];

struct Device {
    disk: Disk,
    replica: Replica,
    number: u8,
}

struct Mesh {
    rng: ChaCha8Rng,
    devices: Vec<Device>,
    files: u8,
}

impl Mesh {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let disks: Vec<Disk> = (0..4).map(|_| Disk::default()).collect();
        let replicas = mesh_on(&disks, &[Role::Admin, Role::Writer, Role::Reader]);
        let devices = disks.into_iter().zip(replicas).zip(1..);
        let devices = devices.map(|((disk, replica), number)| Device {
            disk,
            replica,
            number,
        });
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            devices: devices.collect(),
            files: 0,
        }
    }

    fn one(&mut self) -> usize {
        self.rng.random_range(0..self.devices.len())
    }

    fn meet(&mut self, one: usize, other: usize) {
        if one == other {
            return;
        }
        let [one, other] = [one, other].map(|at| &self.devices[at].replica);
        let ended = Link::new(one, other, self.rng.random()).run();
        if let Err(error) = ended {
            assert!(!error.is_peer_fault(), "{error:?}");
        }
    }

    fn step(&mut self) {
        let (one, other) = (self.one(), self.one());
        let replica = self.devices[one].replica.clone();
        let device = self.devices[other].replica.device();
        match self.rng.random_range(0..100) {
            0..50 => self.meet(one, other),
            50..75 => {
                let role = replica.role_of(&replica.device());
                if role.is_some_and(Role::can_write) {
                    self.files += 1;
                    let seed = self.rng.random();
                    create(&replica, &format!("f{}", self.files), self.files, seed);
                }
            }
            // Whether it may is not decided here: what is refused changes nothing.
            75..81 => drop(replica.revoke(device, NOW)),
            81..85 => drop(replica.leave(NOW)),
            85..90 => drop(replica.rotate_if_needed(NOW)),
            90..93 => {
                // To one that writes: what a cut takes back is not what this is about.
                let role = ROLES[self.rng.random_range(0..2)];
                drop(replica.set_role(device, role, NOW));
            }
            93..97 => self.admit(&replica),
            _ => {
                let device = &mut self.devices[one];
                device.disk = device.disk.crash();
                let database = device.disk.database();
                device.replica = Replica::open(database, key(device.number)).unwrap();
            }
        }
    }

    /// A new device.
    fn admit(&mut self, by: &Replica) {
        let role = ROLES[self.rng.random_range(0..ROLES.len())];
        let number = u8::try_from(self.devices.len() + 1).unwrap();
        let device = key(number).device_id();
        if self.devices.len() > 8 || by.admit(device, "new", role, NOW).is_err() {
            return;
        }
        let disk = Disk::default();
        let welcome = by.welcome();
        let replica = Replica::join(disk.database(), &welcome, key(number), &mut self.rng).unwrap();
        self.devices.push(Device {
            disk,
            replica,
            number,
        });
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            for one in 0..self.devices.len() {
                for other in 0..self.devices.len() {
                    self.meet(one, other);
                }
            }
            for device in &self.devices {
                device.replica.flush().unwrap();
                drop(device.replica.rotate_if_needed(NOW));
            }
        }
    }

    fn judge(&self) {
        let admin = self.devices.iter().find(|device| {
            let replica = &device.replica;
            let members = replica.members();
            // Whoever was removed may not know it: of what it believes nothing follows.
            self.devices.iter().all(|other| {
                !members
                    .iter()
                    .any(|member| member.device == other.replica.device())
                    || other.replica.members() == members
            }) && replica.role_of(&replica.device()) == Some(Role::Admin)
        });
        let Some(admin) = admin else {
            return; // they removed one another
        };
        let members: BTreeSet<DeviceId> = admin
            .replica
            .members()
            .iter()
            .map(|member| member.device)
            .collect();
        let current = first(&admin.replica);
        assert!(!admin.replica.needs_rotation());
        for Device { replica, .. } in &self.devices {
            if members.contains(&replica.device()) {
                assert_eq!(listing(replica), listing(&admin.replica));
                assert_eq!(replica.digest().unwrap(), admin.replica.digest().unwrap());
                assert_eq!(first(replica), current);
            } else {
                assert!(
                    !known(replica).any(|id| id == current),
                    "who is no member knows the current secret"
                );
            }
        }
    }
}

fn known(replica: &Replica) -> impl Iterator<Item = EpochId> {
    replica
        .epoch_secrets()
        .into_iter()
        .map(|secret| EpochSecret::id(&secret))
}

fn first(replica: &Replica) -> EpochId {
    known(replica).next().unwrap()
}

#[test]
fn who_stays_reads_everything_and_nobody_who_went_knows_the_current_secret() {
    let steps = from_env("SIMULATION_STEPS", 80);
    let only = std::env::var("SIMULATION_SEED").ok();
    let seeds = match only {
        Some(seed) => {
            let seed: u64 = seed.parse().expect("a number");
            seed..seed + 1
        }
        None => 0..from_env("SIMULATION_SEEDS", 12),
    };
    for seed in seeds {
        let mut mesh = Mesh::new(seed);
        for _ in 0..steps {
            mesh.step();
        }
        mesh.settle();
        mesh.judge();
    }
}
