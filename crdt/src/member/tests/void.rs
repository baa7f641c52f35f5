//! What somebody wrote who took a record to count that does not.

use crate::lab::{Disk, NOW, create, key, listing, mesh, rng, sync};
use crate::member::Role;
use crate::replica::Replica;

/// One admin removes another, which had let somebody in, apart. A writer had heard of that, and wrote: what it wrote names
/// a record that does not count. Whoever heard of the removal first was never told that record, and waited for it for ever.
#[test]
fn what_was_written_on_a_void_record_is_read_by_everybody_and_by_newcomers() {
    let replicas = mesh(&[Role::Admin, Role::Writer, Role::Reader]);
    let [removed, admin, writer, late] = [0, 1, 2, 3].map(|at| &replicas[at]);
    removed
        .admit(key(40).device_id(), "void", Role::Reader, NOW)
        .unwrap();
    sync(removed, writer);
    create(writer, "plan", 1, 1);
    admin.revoke(removed.device(), NOW).unwrap();
    sync(admin, writer);
    assert_eq!(admin.role_of(&key(40).device_id()), None);
    assert_eq!(listing(admin), ["plan 1"]);
    // It knows neither, and hears of both from somebody to whom the record is void.
    sync(admin, late);
    assert_eq!(listing(late), ["plan 1"]);
    let newcomer = key(9);
    admin
        .admit(newcomer.device_id(), "new", Role::Writer, NOW)
        .unwrap();
    let disk = Disk::default();
    let newcomer = Replica::join(disk.database(), &admin.welcome(), newcomer, &mut rng(9)).unwrap();
    sync(&newcomer, late);
    assert_eq!(listing(&newcomer), ["plan 1"]);
}
