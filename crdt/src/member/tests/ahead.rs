//! A mesh in which one admin runs a program of a version to come: its records are not understood here.

use crate::error::SessionError;
use crate::lab::{Disk, Link, NOW, create, key, listing, mesh, rng, sync};
use crate::member::Role;
use crate::member::record::later::{self, News};
use crate::replica::Replica;

/// Its records reach everybody through those who do not understand them, untouched; what everybody writes goes on
/// flowing; a device is removed, and another joins. Nobody is to blame for anything, and each says what is to be updated.
#[test]
fn a_mesh_goes_on_while_one_admin_is_ahead_and_everybody_says_so() -> Result<(), SessionError> {
    for news in [News::Format, News::Action, News::Role] {
        let replicas = mesh(&[Role::Admin, Role::Writer, Role::Writer, Role::Reader]);
        let [founder, ahead, writer, removed, reader] = [0, 1, 2, 3, 4].map(|at| &replicas[at]);
        let heads = founder.shared().members.heads();
        let device = key(77).device_id();
        let record = later::sign(&key(2), founder.mesh_id(), heads, device, news);
        // The founder meets the device that is ahead, the writer only the founder, the reader only the writer.
        founder.take_members(&[&record], &mut rng(1))?;
        create(ahead, "by who is ahead", 1, 1);
        create(writer, "by who is behind", 2, 2);
        Link::new(founder, ahead, 1).run()?;
        Link::new(founder, writer, 1).run()?;
        Link::new(writer, reader, 1).run()?;
        for replica in [founder, writer, reader] {
            assert!(replica.needs_update(), "{news:?}");
            let members = &replica.shared().members;
            assert!(members.records().any(|known| known.bytes == record));
        }
        // What it decided, and they do not understand, keeps nobody from going on.
        founder.revoke(removed.device(), NOW).unwrap();
        create(founder, "afterwards", 3, 3);
        sync(founder, writer);
        sync(writer, reader);
        sync(founder, ahead);
        let newcomer = key(9);
        founder
            .admit(newcomer.device_id(), "new", Role::Writer, NOW)
            .unwrap();
        let disk = Disk::default();
        let welcome = founder.welcome();
        let newcomer = Replica::join(disk.database(), &welcome, newcomer, &mut rng(9)).unwrap();
        create(&newcomer, "by the newcomer", 4, 4);
        for replica in [ahead, founder, writer, reader] {
            sync(&newcomer, replica);
        }
        for replica in [&newcomer, ahead, founder, writer, reader] {
            assert!(replica.needs_update(), "{news:?}");
            assert_eq!(listing(replica).len(), 4, "{news:?}");
            assert_eq!(replica.digest().unwrap(), founder.digest().unwrap());
        }
    }
    Ok(())
}
