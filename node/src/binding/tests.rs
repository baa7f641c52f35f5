//! Every rule of binding, first without a disk, then with one.

use std::os::unix::fs::symlink;

use super::*;

fn around(dir: &str, found: Found) -> Surroundings {
    Surroundings {
        dir: PathBuf::from(dir),
        found,
        marker: Marker::Absent,
        home: PathBuf::from("/home/ann/.local/share/wormhole"),
        cache: Some(PathBuf::from("/var/cache/wormhole")),
        bound: vec![PathBuf::from("/home/ann/Designs")],
        mounts: vec![PathBuf::from("/mnt/team")],
        system: None,
    }
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
                home: "/x".into(),
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
    use wormhole_store::RootId;
    for marker in [Marker::Of(RootId::from_bytes([7; 16])), Marker::Nameless] {
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
        Surroundings::look(&root.join(name), Path::new("/x"), None, Vec::new())
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
    let bound = vec![root.join("real/inner")];
    let around =
        Surroundings::look(&root.join("link/inner"), Path::new("/x"), None, bound).unwrap();
    assert!(matches!(
        check(&around, Contents::Welcome),
        Err(BindingError::Taken { .. })
    ));
}

#[test]
fn our_mounts_are_told_from_others() {
    let table = "proc /proc proc rw 0 0\nwormhole /mnt/my\\040team fuse.wormhole rw 0 0\n\
                 x /mnt/y fuse.sshfs rw 0 0\n";
    assert_eq!(mounts_in(table), [PathBuf::from("/mnt/my team")]);
}
