//! Every rule of binding, first without a disk, then with one.

use std::os::unix::fs::symlink;

use super::*;

fn around(dir: &str, found: Found) -> Surroundings {
    Surroundings {
        dir: PathBuf::from(dir),
        found,
        marker: Marker::Absent,
        nested: None,
        moved_from: None,
        asker: Asker {
            home: PathBuf::from("/home/ann/.local/share/wormhole"),
            cache: Some(PathBuf::from("/var/cache/wormhole")),
            ..asker("/home/ann/Designs")
        },
        mounts: vec![PathBuf::from("/mnt/team")],
        system: None,
    }
}

/// This device, with one directory bound.
fn asker(bound: impl Into<PathBuf>) -> Asker {
    Asker {
        device: DeviceId::from_bytes([1; 32]),
        home: "/x".into(),
        cache: None,
        bound: vec![BoundDir {
            id: RootId::from_bytes([1; 16]),
            dir: bound.into(),
        }],
    }
}

/// Makes a directory the folder of a binding of a device.
fn mark(dir: &Path, id: u8, device: u8) {
    fs::create_dir_all(dir.join(".wormhole")).unwrap();
    let (id, device) = (
        RootId::from_bytes([id; 16]),
        DeviceId::from_bytes([device; 32]),
    );
    let text = format!("wormhole folder {id}\ndevice {device}\ntoken 0\n");
    fs::write(dir.join(".wormhole/folder"), text).unwrap();
}

fn look_and_check(dir: &Path, asker: Asker) -> Result<(), BindingError> {
    check(&Surroundings::look(dir, asker)?, Contents::Welcome)
}

fn verdict(dir: &str) -> Result<(), BindingError> {
    check(&around(dir, Found::Filled), Contents::Welcome)
}

#[test]
fn a_directory_beside_everything_else_is_fine() {
    assert_eq!(verdict("/home/ann/Music"), Ok(()));
    assert_eq!(
        verdict("/home/ann/Designs2"),
        Ok(()),
        "a longer name is not inside"
    );
}

#[test]
fn a_directory_that_overlaps_another_binding_is_refused() {
    for dir in [
        "/home/ann/Designs",
        "/home/ann/Designs/2026",
        "/home/ann",
        "/home",
    ] {
        let error = check(
            &Surroundings {
                asker: asker("/home/ann/Designs"),
                ..around(dir, Found::Filled)
            },
            Contents::Welcome,
        );
        assert!(
            matches!(error, Err(BindingError::Taken { .. })),
            "{dir}: {error:?}"
        );
    }
}

#[test]
fn a_directory_that_overlaps_the_home_or_the_cache_is_refused() {
    for dir in [
        "/home/ann/.local/share/wormhole",
        "/home/ann/.local/share/wormhole/meshes",
        "/home/ann/.local",
        "/var/cache",
        "/var/cache/wormhole/x",
    ] {
        assert!(
            matches!(verdict(dir), Err(BindingError::Home { .. })),
            "{dir}"
        );
    }
}

#[test]
fn a_directory_of_the_system_is_refused() {
    let around = Surroundings {
        system: Some("the system's devices"),
        ..around("/dev", Found::Filled)
    };
    let error = check(&around, Contents::Welcome);
    assert!(
        matches!(error, Err(BindingError::System { .. })),
        "{error:?}"
    );
}

#[test]
fn a_directory_that_overlaps_a_mount_of_ours_is_refused() {
    for dir in ["/mnt/team", "/mnt/team/a", "/mnt"] {
        assert!(
            matches!(verdict(dir), Err(BindingError::Mount { .. })),
            "{dir}"
        );
    }
}

#[test]
fn what_is_no_plain_writable_directory_is_refused() {
    type Expected = fn(&BindingError) -> bool;
    let cases: [(Found, Expected); 4] = [
        (Found::NoDirectory, |e| {
            matches!(e, BindingError::NotADirectory { .. })
        }),
        (Found::Symlink, |e| {
            matches!(e, BindingError::Symlink { .. })
        }),
        (Found::NotWritable, |e| {
            matches!(e, BindingError::NotWritable { .. })
        }),
        (Found::NoParent, |e| {
            matches!(e, BindingError::NoParent { .. })
        }),
    ];
    for (found, expected) in cases {
        let error = check(&around("/home/ann/x", found), Contents::Welcome).unwrap_err();
        assert!(expected(&error), "{found:?}: {error}");
    }
    assert!(matches!(
        verdict("relative/x"),
        Err(BindingError::Relative { .. })
    ));
    assert!(matches!(verdict("/"), Err(BindingError::Root { .. })));
}

#[test]
fn files_are_merged_only_into_a_directory_that_the_user_named() {
    let filled = around("/home/ann/x", Found::Filled);
    assert_eq!(check(&filled, Contents::Welcome), Ok(()));
    let error = check(&filled, Contents::Unwelcome).unwrap_err();
    assert_eq!(
        error,
        BindingError::NotEmpty {
            dir: PathBuf::from("/home/ann/x")
        }
    );
    for found in [Found::Empty, Found::Nothing] {
        assert_eq!(
            check(&around("/home/ann/x", found), Contents::Unwelcome),
            Ok(())
        );
    }
}

#[test]
fn a_directory_that_another_binding_has_marked_is_refused() {
    let of = |device| {
        Marker::Of(Owner {
            id: RootId::from_bytes([7; 16]),
            device,
        })
    };
    let other = Some(DeviceId::from_bytes([2; 32]));
    for marker in [of(other), of(None), Marker::Nameless] {
        let marked = Surroundings {
            marker,
            ..around("/home/ann/x", Found::Filled)
        };
        let error = check(&marked, Contents::Welcome).unwrap_err();
        assert!(matches!(error, BindingError::Marked { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("remove /home/ann/x/.wormhole/folder")
        );
    }
}

#[test]
fn looking_at_the_disk_finds_what_is_there() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let look = |name: &str| {
        Surroundings::look(&root.join(name), asker("/y"))
            .unwrap()
            .found
    };
    fs::create_dir_all(root.join("filled/empty")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    symlink("filled", root.join("link")).unwrap();
    assert_eq!(look("filled"), Found::Filled);
    assert_eq!(look("filled/empty"), Found::Empty);
    assert_eq!(look("file"), Found::NoDirectory);
    assert_eq!(look("link"), Found::Symlink);
    assert_eq!(look("new"), Found::Nothing);
    assert_eq!(look("no/parent"), Found::NoParent);
    assert_eq!(look("file/below"), Found::NoParent);
}

#[test]
fn a_link_in_the_way_cannot_hide_an_overlap() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("real/inner")).unwrap();
    symlink("real", root.join("link")).unwrap();
    let bound = asker(root.join("real/inner"));
    assert!(matches!(
        look_and_check(&root.join("link/inner"), bound),
        Err(BindingError::Taken { .. })
    ));
}

#[test]
fn a_directory_in_or_around_another_nodes_folder_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let folder = root.join("outer/theirs");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    fs::create_dir_all(root.join("outer/beside")).unwrap();
    mark(&folder, 7, 2);
    for dir in ["outer/theirs/deep/er", "outer/theirs/new"] {
        let error = look_and_check(&root.join(dir), asker("/y")).unwrap_err();
        assert!(matches!(error, BindingError::Inside { .. }), "{error}");
    }
    for dir in ["", "outer"] {
        let error = look_and_check(&root.join(dir), asker("/y")).unwrap_err();
        assert!(matches!(error, BindingError::Surrounds { .. }), "{error}");
    }
    assert_eq!(
        look_and_check(&root.join("outer/beside"), asker("/y")),
        Ok(())
    );
    // What a binding of this node left there is nobody's.
    mark(&folder, 7, 1);
    for dir in ["", "outer/theirs", "outer/theirs/deep"] {
        assert_eq!(
            look_and_check(&root.join(dir), asker("/y")),
            Ok(()),
            "{dir}"
        );
    }
}

#[test]
fn a_folder_that_was_moved_is_told_from_a_copy_of_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let (here, there) = (root.join("here"), root.join("there"));
    mark(&there, 1, 1);
    let error = look_and_check(&there, asker(&here)).unwrap_err();
    assert!(matches!(error, BindingError::Moved { .. }), "{error}");
    assert!(error.to_string().contains("wormhole move"), "{error}");
    mark(&here, 1, 1);
    assert_eq!(look_and_check(&there, asker(&here)), Ok(()), "a copy");
}

#[test]
fn our_mounts_are_told_from_others() {
    let table = "proc /proc proc rw 0 0\nwormhole /mnt/my\\040team fuse.wormhole rw 0 0\n\
                 x /mnt/y fuse.sshfs rw 0 0\n";
    assert_eq!(mounts_in(table), [PathBuf::from("/mnt/my team")]);
}
