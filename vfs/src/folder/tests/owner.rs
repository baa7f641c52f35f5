//! Whose files are that come from elsewhere. These tests give files away: they need root.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::XattrFlags;

use super::device::converge;
use super::kind::pair;

fn attribute(path: &Path, name: &CStr) -> Option<Vec<u8>> {
    let mut value = vec![0; 1_024];
    let length = rustix::fs::getxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn set_attribute(path: &Path, name: &CStr, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// An access list: version 2, then tag, permissions and id of each entry.
fn access_list(user: u32) -> Vec<u8> {
    let nobody = u32::MAX;
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01u16, 6u16, nobody),
        (0x02, 6, user),
        (0x04, 4, nobody),
        (0x10, 6, nobody),
        (0x20, 0, nobody),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

#[test]
fn a_replaced_file_keeps_its_owner_its_group_and_what_people_noted_on_it() {
    let mut devices = pair();
    devices[0].write("plan", "first");
    converge(&mut devices);
    let plan = devices[1].path("plan");
    chown(&plan, Some(1_000), Some(1_001)).unwrap();
    std::fs::set_permissions(&plan, Permissions::from_mode(0o640)).unwrap();
    set_attribute(&plan, c"user.note", b"mine");
    let list = access_list(1_002);
    set_attribute(&plan, c"system.posix_acl_access", &list);
    set_attribute(&plan, c"trusted.label", b"of other bytes");
    devices[0].write("plan", "second");
    converge(&mut devices);
    assert_eq!(devices[1].read("plan"), "second");
    let now = plan.metadata().unwrap();
    assert_eq!((now.uid(), now.gid()), (1_000, 1_001));
    assert_eq!(attribute(&plan, c"user.note").unwrap(), b"mine");
    assert_eq!(attribute(&plan, c"system.posix_acl_access"), Some(list));
    assert_eq!(attribute(&plan, c"trusted.label"), None);
}

#[test]
fn set_user_id_is_never_put_onto_bytes_from_elsewhere() {
    let mut devices = pair();
    devices[0].write("tool", "first");
    std::fs::set_permissions(devices[0].path("tool"), Permissions::from_mode(0o755)).unwrap();
    converge(&mut devices);
    let tool = devices[1].path("tool");
    std::fs::set_permissions(&tool, Permissions::from_mode(0o6755)).unwrap();
    devices[0].write("tool", "second");
    converge(&mut devices);
    assert_eq!(devices[1].read("tool"), "second");
    assert_eq!(tool.metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_new_file_is_as_if_it_was_written_in_its_directory() {
    let mut devices = pair();
    for dir in ["team", "list", "plain"] {
        std::fs::create_dir(devices[0].path(dir)).unwrap();
    }
    converge(&mut devices);
    let (team, list) = (devices[1].path("team"), devices[1].path("list"));
    chown(&team, None, Some(1_001)).unwrap();
    std::fs::set_permissions(&team, Permissions::from_mode(0o2775)).unwrap();
    set_attribute(&list, c"system.posix_acl_default", &access_list(1_002));
    for dir in ["team", "list", "plain"] {
        devices[0].write(&format!("{dir}/new"), "x");
        File::create(devices[1].path(&format!("{dir}/by hand"))).unwrap();
    }
    converge(&mut devices);
    for dir in [team, list, devices[1].path("plain")] {
        let facts = |name: &str| {
            let (path, access) = (dir.join(name), c"system.posix_acl_access");
            let found = path.metadata().unwrap();
            (
                found.mode(),
                found.uid(),
                found.gid(),
                attribute(&path, access),
            )
        };
        assert_eq!(facts("new"), facts("by hand"), "{}", dir.display());
    }
}
