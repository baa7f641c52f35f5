//! The promises of the home: private, single, and never half made.

use wormhole_crdt::EntryId;
use wormhole_mesh::RateLimits;
use wormhole_store::RootId;

use super::*;

fn record(mesh: u8) -> MeshRecord {
    MeshRecord {
        mesh: MeshId::from_bytes([mesh; 32]),
        name: "Designs".to_owned(),
        content_key: SecretBytes([2; 32]),
        paused: false,
        limits: RateLimits::default(),
        rest: Rest::default(),
        bindings: vec![
            BindingRecord {
                id: RootId::from_bytes([3; 16]),
                target: BindingTarget::Folder {
                    dir: PathBuf::from("/home/ann/Designs"),
                    base: EntryId::ROOT,
                },
            },
            BindingRecord {
                id: RootId::from_bytes([4; 16]),
                target: BindingTarget::Seed,
            },
        ],
    }
}

#[test]
fn a_home_is_for_its_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(&dir.path().join("deep/home")).unwrap();
    let seed = home.device_seed().unwrap();
    assert_eq!(fs::metadata(home.dir()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        fs::metadata(home.dir().join(KEY_FILE)).unwrap().mode() & 0o777,
        0o600
    );
    assert_eq!(home.device_seed().unwrap(), seed, "the key stays the same");
}

#[test]
fn a_second_node_in_one_home_is_told_which_process_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = Home::open(dir.path()).unwrap();
    let error = Home::open(dir.path()).unwrap_err();
    assert!(matches!(error, HomeError::Locked { pid: Some(pid), .. } if pid == std::process::id()));
    drop(first);
    Home::open(dir.path()).unwrap();
}

#[test]
fn a_home_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Home::open(dir.path()).unwrap());
    fs::write(dir.path().join(FORMAT_FILE), "3\n").unwrap();
    let message = Home::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("written by a newer wormhole"), "{message}");
    fs::write(dir.path().join(FORMAT_FILE), "one").unwrap();
    assert!(matches!(
        Home::open(dir.path()),
        Err(HomeError::BadFormat { .. })
    ));
}

#[test]
fn a_home_of_an_earlier_format_is_refused_with_what_to_do_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Home::open(dir.path()).unwrap());
    let marker = dir.path().join(FORMAT_FILE);
    fs::write(&marker, "1\n").unwrap();
    let message = Home::open(dir.path()).unwrap_err().to_string();
    for said in ["earlier wormhole", "files stay", "leave", "join again"] {
        assert!(message.contains(said), "{message}");
    }
    assert_eq!(fs::read_to_string(&marker).unwrap(), "1\n");
}

#[test]
fn a_directory_with_other_things_does_not_become_a_home() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let error = Home::open(dir.path()).unwrap_err();
    assert!(matches!(error, HomeError::NotAHome { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let file = dir.path().join("thesis.tex");
    assert!(matches!(
        Home::open(&file),
        Err(HomeError::NotADirectory { .. })
    ));
}

#[test]
fn settings_may_be_there_before_the_home_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), "").unwrap();
    Home::open(dir.path()).unwrap();
}

#[test]
fn a_first_start_that_was_killed_at_any_moment_does_not_spoil_the_home() {
    for left in [
        &["lock"][..],
        &["lock", "format.new"],
        &["lock", "node.log", "config.toml"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        for name in left {
            fs::write(dir.path().join(name), "").unwrap();
        }
        Home::open(dir.path()).unwrap_or_else(|error| panic!("{left:?}: {error}"));
    }
}

#[test]
fn of_many_first_starts_at_once_one_has_the_home_and_the_others_are_told_so() {
    for _ in 0..20 {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("home");
        let opened: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..6).map(|_| scope.spawn(|| Home::open(&dir))).collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        assert_eq!(
            opened.iter().filter(|home| home.is_ok()).count(),
            1,
            "{opened:?}"
        );
        for error in opened.iter().filter_map(|home| home.as_ref().err()) {
            assert!(matches!(error, HomeError::Locked { .. }), "{error}");
        }
    }
}

#[test]
fn a_damaged_key_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    fs::write(dir.path().join(KEY_FILE), "short").unwrap();
    assert!(matches!(
        home.device_seed(),
        Err(HomeError::BadKey { len: 5, .. })
    ));
    assert_eq!(fs::read(dir.path().join(KEY_FILE)).unwrap(), b"short");
}

#[test]
fn a_record_comes_back_as_it_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let staged = home.stage_mesh().unwrap();
    home.adopt_mesh(&staged, &record(7)).unwrap();
    let records: Vec<_> = home
        .records()
        .unwrap()
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(records, [record(7)]);
}

#[test]
fn what_was_being_made_or_dropped_is_gone_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let staged = home.stage_mesh().unwrap();
    fs::write(staged.join("replica.redb"), "half").unwrap();
    let dropped = home.dir().join("meshes/gone-0909");
    fs::create_dir_all(dropped.join("store")).unwrap();
    drop(home);

    let home = Home::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(home.dir().join("meshes")).unwrap().count(), 0);
}

#[test]
fn a_dropped_mesh_leaves_nothing_and_can_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    for _ in 0..2 {
        let staged = home.stage_mesh().unwrap();
        let place = home.adopt_mesh(&staged, &record(7)).unwrap();
        fs::write(place.join("replica.redb"), "whole").unwrap();
        home.drop_mesh(&record(7).mesh).unwrap();
        assert_eq!(fs::read_dir(home.dir().join("meshes")).unwrap().count(), 0);
    }
    home.drop_mesh(&record(7).mesh).unwrap();
}

#[test]
fn what_a_later_version_wrote_into_a_record_stays_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.json");
    let mut written: serde_json::Value = serde_json::from_str(&record(7).to_json()).unwrap();
    written["shelf"] = serde_json::json!({"kept": ["a", 1]});
    let mount = serde_json::json!({"keep": "mount", "id": "00", "at": "/mnt"});
    written["bindings"].as_array_mut().unwrap().push(mount);
    fs::write(&path, written.to_string()).unwrap();
    let read = MeshRecord::read(&path).unwrap();
    assert_eq!(read.bindings, record(7).bindings);
    let again: serde_json::Value = serde_json::from_str(&read.to_json()).unwrap();
    assert_eq!(again, written);
    written["bindings"][0]["dir"] = serde_json::json!(7);
    fs::write(&path, written.to_string()).unwrap();
    let refused = MeshRecord::read(&path).unwrap_err();
    assert!(matches!(refused, RecordError::Damaged { .. }), "{refused}");
}

#[test]
fn a_record_that_is_lost_or_damaged_comes_from_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let staged = home.stage_mesh().unwrap();
    let place = home.adopt_mesh(&staged, &record(7)).unwrap();
    let file = place.join(MESH_FILE);
    let damage: [fn(&Path); 3] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "{\"format\": 1").unwrap(),
        |file| fs::write(file, [0xff; 300]).unwrap(),
    ];
    for damage in damage {
        damage(&file);
        let records = home.records().unwrap();
        assert!(matches!(records.as_slice(), [Ok(found)] if *found == record(7)));
        assert!(MeshRecord::read(&file).is_ok(), "it is mended, too");
    }
    assert!(
        place.join("mesh.json.damaged-2").exists(),
        "what was damaged is kept"
    );
}

#[test]
fn a_record_that_cannot_be_read_comes_from_its_copy_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let staged = home.stage_mesh().unwrap();
    let place = home.adopt_mesh(&staged, &record(7)).unwrap();
    let file = place.join(MESH_FILE);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap(); // reading it fails as a bad sector would
    let records = home.records().unwrap();
    assert!(
        matches!(records.as_slice(), [Ok(found)] if *found == record(7)),
        "{records:?}"
    );
    assert!(file.is_dir());
}

#[test]
fn a_record_that_could_not_be_saved_is_the_old_one_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let staged = home.stage_mesh().unwrap();
    let place = home.adopt_mesh(&staged, &record(7)).unwrap();
    let copy = place.join(MESH_COPY);
    fs::remove_file(&copy).unwrap();
    fs::create_dir(&copy).unwrap(); // nothing can be saved there
    let changed = MeshRecord {
        paused: true,
        ..record(7)
    };
    assert!(home.save_record(&changed).is_err());
    let records = home.records().unwrap();
    assert!(
        matches!(records.as_slice(), [Ok(found)] if *found == record(7)),
        "{records:?}"
    );
}

#[test]
fn a_mesh_without_any_record_is_kept_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path()).unwrap();
    let staged = home.stage_mesh().unwrap();
    let place = home.adopt_mesh(&staged, &record(7)).unwrap();
    fs::write(place.join("replica.redb"), "precious").unwrap();
    fs::remove_file(place.join(MESH_FILE)).unwrap();
    fs::remove_file(place.join(MESH_COPY)).unwrap();
    drop(home);
    let home = Home::open(dir.path()).unwrap();
    let records = home.records().unwrap();
    let [Err(lost)] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert!(place.ends_with(&lost.mesh));
    assert!(matches!(lost.source, RecordError::Missing { .. }));
    assert!(
        place.join("replica.redb").exists(),
        "nothing is cleared away"
    );
}

#[test]
fn a_record_of_a_newer_version_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mesh.json");
    fs::write(&path, r#"{"format": 9, "wings": true}"#).unwrap();
    assert!(matches!(
        MeshRecord::read(&path),
        Err(RecordError::Newer { found: 9, .. })
    ));
    fs::write(&path, "{").unwrap();
    assert!(matches!(
        MeshRecord::read(&path),
        Err(RecordError::Damaged { .. })
    ));
}

#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}", record(9));
    assert!(
        !text.contains("1, 1, 1") && !text.contains("0101"),
        "{text}"
    );
}

#[test]
fn a_home_with_a_long_path_has_its_socket_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("x".repeat(120));
    fs::create_dir(&home).unwrap();
    let socket = socket_path(&home).unwrap();
    assert!(socket.as_os_str().len() <= 103, "{}", socket.display());
    assert_eq!(socket, socket_path(&home).unwrap());
    assert_eq!(
        socket_path(dir.path()).unwrap().file_name().unwrap(),
        "node.sock"
    );
}
