//! The promises of the settings: who wins, and what a mistake is told.

use std::ffi::OsString;

use super::*;

fn resolve(text: &str, env: &[(&str, &str)], over: &Overrides) -> Result<Config, ConfigError> {
    let lookup = |name: &str| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| OsString::from(value))
    };
    Config::resolve(Path::new("/home/config.toml"), text, &lookup, over)
}

fn mistake(text: &str) -> String {
    resolve(text, &[], &Overrides::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn the_explained_file_is_valid_and_says_the_defaults() {
    let empty = resolve("", &[], &Overrides::default()).unwrap();
    assert_eq!(
        resolve(file::EXPLAINED, &[], &Overrides::default()).unwrap(),
        empty
    );

    // With every # taken away it must still be valid: that is how people use it.
    let mut uncommented = String::new();
    for line in file::EXPLAINED.lines() {
        let is_setting = line.starts_with('#') && !line.starts_with("# ");
        uncommented.push_str(if is_setting { &line[1..] } else { line });
        uncommented.push('\n');
    }
    let full = resolve(&uncommented, &[], &Overrides::default()).unwrap();
    assert_eq!(full.port, empty.port);
    assert_eq!(full.listen, empty.listen);
    assert_eq!(full.cache_memory, empty.cache_memory);
    assert_eq!((full.up, full.down), (None, None));
    assert_eq!(full.device_name, "laptop");
}

#[test]
fn the_trash_and_the_quiet_of_growing_files_are_settings() {
    let text = "[trash]\ndays = 7\nsize = \"1 GiB\"\n[folders]\nquiet = 5\nlongest_wait = 60\n";
    let config = resolve(text, &[], &Overrides::default()).unwrap();
    assert_eq!((config.trash.days, config.trash.bytes), (7, Some(1 << 30)));
    let seconds = (
        config.quiet.growing.as_secs(),
        config.quiet.longest.as_secs(),
    );
    assert_eq!(seconds, (5, 60));
    assert!(mistake("[folders]\nquiet = 0\n").contains(":2: folders.quiet = \"0\": expected"));
    assert!(mistake("[trash]\ndays = 99999\n").contains("from 0 to 36500"));
    assert!(mistake("[trash]\nsize = \"much\"\n").contains("expected an amount"));
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file() {
    let text = "device_name = \"file\"\n[network]\nport = 1\n[log]\nlevel = \"warn\"\n";
    let env = [("WORMHOLE_PORT", "2"), ("WORMHOLE_LOG_LEVEL", "debug")];
    let over = Overrides {
        port: Some(3),
        ..Overrides::default()
    };

    let config = resolve(text, &env, &over).unwrap();
    assert_eq!(config.port, 3);
    assert_eq!(config.log_level, "debug");
    assert_eq!(config.device_name, "file");
}

#[test]
fn one_variable_switches_all_discovery_off() {
    let env = [("WORMHOLE_DISCOVERY", "off")];
    let config = resolve("[network]\nmdns = true\n", &env, &Overrides::default()).unwrap();
    assert_eq!((config.mdns, config.beacon), (Switch::Off, Switch::Off));
}

#[test]
fn a_mistake_in_the_file_names_line_key_and_what_is_allowed() {
    let message = mistake("[network]\n\nprot = 4711\n");
    assert!(message.starts_with("/home/config.toml:3: "), "{message}");
    assert!(
        message.contains("prot") && message.contains("port"),
        "{message}"
    );

    let message = mistake("[network]\nport = 70000\n");
    assert!(message.starts_with("/home/config.toml:2: "), "{message}");

    let message = mistake("\n[limits]\nup = \"fast\"\n");
    assert_eq!(
        message,
        "/home/config.toml:3: limits.up = \"fast\": expected \"off\" or an amount a second of at \
         least 1 KiB, such as \"2 MiB\""
    );

    let message = mistake("[network]\nlisten = [\"0.0.0.0\",\n  \"everywhere\"]\n");
    assert!(
        message.starts_with("/home/config.toml:3: network.listen"),
        "{message}"
    );
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    let env = [("WORMHOLE_PORT", "abc")];
    let message = resolve("", &env, &Overrides::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        "environment variable WORMHOLE_PORT = \"abc\": expected a number from 0 (any free port) \
         to 65535"
    );
}

#[test]
fn a_device_name_that_could_fool_a_screen_is_refused() {
    let message = mistake("device_name = \"a\\u001b[2Jb\"\n");
    assert!(message.contains("control characters"), "{message}");
}

#[test]
fn a_device_name_that_no_mesh_could_list_is_refused() {
    let long = "写".repeat(43);
    let message = mistake(&format!("device_name = \"{long}\"\n"));
    assert!(message.contains("128 bytes"), "{message}");
}

#[test]
fn the_first_start_writes_an_explained_file_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    Config::load(&path, &Overrides::default()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), file::EXPLAINED);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}
