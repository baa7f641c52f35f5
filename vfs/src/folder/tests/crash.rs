//! A crash between any two steps on disk is repaired by starting again.

use crate::folder::scan::Walk;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wormhole_crdt::Role;

use super::device::{Device, converge, sync};
use super::fault::Crash;
use super::kind::pair;

/// Changes of every kind on one device, applied on the other with the power cut at the n-th crash point.
fn crashed_at(point: u32) -> bool {
    let mut devices = pair();
    devices[0].write("edited", "before");
    devices[0].write("removed", "x");
    devices[0].write("old/name", "stays");
    devices[0].write("old place/file", "moves away");
    devices[0].write("whole/directory", "goes");
    converge(&mut devices);
    devices[0].write("edited", "after");
    devices[0].write("fresh/file", "new");
    std::fs::remove_file(devices[0].path("removed")).unwrap();
    std::fs::rename(devices[0].path("old"), devices[0].path("new")).unwrap();
    std::fs::rename(devices[0].path("old place/file"), devices[0].path("moved")).unwrap();
    std::fs::remove_dir_all(devices[0].path("whole")).unwrap();
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    let expected = devices[0].tree();
    let store = devices[0].store.clone();
    devices[1].engine().fault.after = Some(point);
    let outcome = catch_unwind(AssertUnwindSafe(|| devices[1].settle(&[&store])));
    let crashed = match outcome {
        Ok(()) => false,
        Err(payload) => {
            let crash = payload.downcast::<Crash>().expect("a test crash");
            println!("crashed at point {point}: {}", crash.0);
            true
        }
    };
    restart_after_crash(&mut devices[1]);
    converge(&mut devices);
    assert_eq!(devices[0].tree(), expected, "crash point {point}");
    crashed
}

/// A program has a file open, and writes into it just when another version takes its place or it is removed; the power is
/// cut at the n-th crash point.
fn cut_off_while_somebody_writes(at: &'static str, point: u32) -> bool {
    let mut devices = pair();
    devices[0].write("edited", "before");
    devices[0].write("removed", "before");
    converge(&mut devices);
    devices[0].write("edited", "from there");
    std::fs::remove_file(devices[0].path("removed")).unwrap();
    devices[0].settle(&[]);
    sync(&devices[0], &devices[1]);
    let name = if at == "swapped" { "edited" } else { "removed" };
    let file = std::fs::File::options()
        .write(true)
        .open(devices[1].path(name))
        .unwrap();
    // By its number, because its name changes meanwhile.
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let store = devices[0].store.clone();
    let engine = devices[1].engine();
    engine.fault.meanwhile = Some((at, open.into(), |path| {
        std::fs::write(path, "written at the last moment").unwrap();
    }));
    engine.fault.after = Some(point);
    let outcome = catch_unwind(AssertUnwindSafe(|| devices[1].settle(&[&store])));
    let written = devices[1].engine().fault.meanwhile.take().is_none();
    restart_after_crash(&mut devices[1]);
    converge(&mut devices);
    let kept = devices[0].tree();
    let kept = kept
        .values()
        .any(|text| text == "written at the last moment");
    assert_eq!(kept, written, "crash point {point}");
    outcome.is_err()
}

#[test]
fn what_is_written_as_a_file_is_replaced_or_removed_outlives_a_crash() {
    quiet_crashes();
    for at in ["swapped", "taken out"] {
        let mut points = 0;
        while cut_off_while_somebody_writes(at, points) {
            points += 1;
        }
        assert!(points > 0);
    }
}

fn restart_after_crash(device: &mut Device) {
    device.engine().fault.after = None;
    device.restart();
}

/// Changes of every kind recorded with the power cut at the n-th crash point; the databases keep only what they had made
/// durable by then.
fn cut_off_at(point: u32) -> bool {
    let one = Device::found_on_disk();
    let other = one.join(1, Role::Writer);
    let mut devices = [one, other];
    devices[0].write("edited", "before");
    devices[0].write("removed", "x");
    devices[0].write("old/name", "stays");
    devices[0].write("moved from/file", "moves");
    converge(&mut devices);
    devices[0].write("edited", "after");
    devices[0].write("fresh/file", "new");
    std::fs::remove_file(devices[0].path("removed")).unwrap();
    std::fs::rename(devices[0].path("old"), devices[0].path("new")).unwrap();
    std::fs::rename(devices[0].path("moved from/file"), devices[0].path("moved")).unwrap();
    let expected = devices[0].tree();
    devices[0].engine().fault.after = Some(point);
    let outcome = catch_unwind(AssertUnwindSafe(|| devices[0].settle(&[])));
    let crashed = match outcome {
        Ok(()) => false,
        Err(payload) => {
            let crash = payload.downcast::<Crash>().expect("a test crash");
            println!("cut off at point {point}: {}", crash.0);
            true
        }
    };
    devices[0].cut_power();
    converge(&mut devices);
    assert_eq!(devices[0].tree(), expected, "crash point {point}");
    crashed
}

/// Saves recorded with the power cut at the n-th crash point, and the files saved again before the next start.
fn saved_again_after(point: u32) -> bool {
    let one = Device::found_on_disk();
    let other = one.join(1, Role::Writer);
    let mut devices = [one, other];
    devices[0].write("edited", "first");
    converge(&mut devices);
    devices[0].write("edited", "edited second");
    devices[0].write("new", "new second");
    devices[0].engine().fault.after = Some(point);
    let outcome = catch_unwind(AssertUnwindSafe(|| devices[0].check(&["edited", "new"])));
    devices[0].cut_power();
    // Nobody ever had the second ones, but their names may be in the mesh.
    devices[0].write("edited", "the third");
    devices[0].write("new", "the third");
    converge(&mut devices);
    let expected = ["edited", "new"].map(|name| (name.to_owned(), "the third".to_owned()));
    for device in &devices {
        assert_eq!(
            device.tree(),
            expected.clone().into(),
            "crash point {point}"
        );
        assert!(!device.is_waiting(), "crash point {point}");
        assert!(device.replica.conflicts().unwrap().is_empty());
    }
    outcome.is_err()
}

#[test]
fn what_is_saved_again_after_a_crash_replaces_what_was_saved_before() {
    quiet_crashes();
    // The first two come between telling the mesh and remembering it.
    for point in 0..4 {
        assert!(
            saved_again_after(point),
            "crash point {point} was not reached"
        );
    }
}

#[test]
fn a_crash_at_any_point_of_recording_loses_nothing() {
    quiet_crashes();
    let mut points = 0;
    while cut_off_at(points) {
        points += 1;
    }
    assert!(points >= 6, "only {points} crash points were reached");
}

/// A crash that a test asked for is no news.
fn quiet_crashes() {
    std::panic::set_hook(Box::new(|info| {
        if !info.payload().is::<Crash>() {
            eprintln!("{info}");
        }
    }));
}

#[test]
fn a_crash_at_any_point_of_applying_is_repaired() {
    quiet_crashes();
    let mut points = 0;
    while crashed_at(points) {
        points += 1;
    }
    assert!(points >= 8, "only {points} crash points were reached");
}

#[test]
fn a_memory_that_outlives_the_metadata_removes_nothing() {
    let one = Device::found_on_disk();
    let other = one.join(1, Role::Writer);
    let mut devices = [one, other];
    devices[0].write("first", "1");
    converge(&mut devices);
    devices[0].write("second", "2");
    // Not saved a moment ago: found by comparing, and made durable with all else that is found.
    let path = devices[0].path("second");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    // Until its stamp is old enough to be believed.
    let changed = std::time::Instant::now();
    while changed.elapsed() < std::time::Duration::from_millis(50) {
        std::thread::yield_now();
    }
    devices[0].engine().scan(&mut Walk::whole()).unwrap();
    devices[0].lose_metadata();
    converge(&mut devices);
    for device in &devices {
        assert_eq!(
            (device.read("first"), device.read("second")),
            ("1".into(), "2".into())
        );
    }
}
