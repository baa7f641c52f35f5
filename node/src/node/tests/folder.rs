//! Folders that are moved, copied, put back from a backup, or nested.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::device::{Device, fault, tree};
use crate::api::*;
use crate::client::ClientError;

async fn move_to(device: &Device, dir: &str, to: &str) -> Result<MoveReply, ClientError> {
    let (dir, to) = (device.path(dir), device.path(to));
    device
        .client
        .post("/v1/move", &MoveRequest { dir, to })
        .await
}

async fn sync_into(device: &Device, dir: &str) -> Result<SyncReply, ClientError> {
    let request = SyncRequest {
        mesh: "Designs".to_owned(),
        path: String::new(),
        dir: device.path(dir),
    };
    device.client.post("/v1/sync", &request).await
}

/// Copies a directory as `cp -a` does.
fn copy_tree(from: &Path, to: &Path) {
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").args([from, to]).status().unwrap().success());
}

async fn names(device: &Device) -> Vec<String> {
    let shown = device.ls("").await.unwrap().entries;
    shown.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_moved_goes_on_with_its_memory() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.write("Designs/b.txt", b"b");
    laptop.share("Designs").await;
    laptop.settled().await;
    fs::rename(laptop.path("Designs"), laptop.path("moved")).unwrap();
    let refused = fault(sync_into(&laptop, "moved").await);
    assert!(refused.message.contains("wormhole move"), "{refused:?}");
    // Deleted where it is now, before anybody was told.
    fs::remove_file(laptop.path("moved/b.txt")).unwrap();
    let reply = move_to(&laptop, "Designs", "moved").await.unwrap();
    assert_eq!(reply.dir, laptop.path("moved"));
    laptop.settled().await;
    assert_eq!(
        names(&laptop).await,
        ["a.txt"],
        "the memory tells a deletion"
    );

    move_to(&laptop, "moved", "again").await.unwrap();
    assert!(!laptop.path("moved").exists());
    laptop.write("again/c.txt", b"c");
    laptop.settled().await;
    assert_eq!(names(&laptop).await, ["a.txt", "c.txt"]);
    assert_eq!(laptop.meshes().await[0].dirs, [laptop.path("again")]);

    fs::create_dir(laptop.path("other")).unwrap();
    laptop.write("other/mine", b"mine");
    let refused = fault(move_to(&laptop, "again", "other").await);
    assert_eq!(refused.code, FaultCode::BadDirectory, "{refused:?}");
    laptop.write("again/d.txt", b"d");
    laptop.settled().await;
    assert_eq!(names(&laptop).await.len(), 3, "it goes on where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_folder_that_was_unbound_is_joined_as_any_directory() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"a");
    laptop.write("two/own.txt", b"own");
    laptop.share("Designs").await;
    sync_into(&laptop, "two").await.unwrap();
    laptop.settled().await;
    fs::rename(laptop.path("two"), laptop.path("moved")).unwrap();
    let dir = laptop.path("two");
    let request = UnbindRequest { dir };
    drop::<UnbindReply>(laptop.client.post("/v1/unbind", &request).await.unwrap());
    fs::remove_file(laptop.path("moved/a.txt")).unwrap();
    sync_into(&laptop, "moved").await.unwrap();
    laptop.settled().await;
    assert_eq!(laptop.read("moved/a.txt"), b"a", "absence is no deletion");
    assert_eq!(tree(&laptop.path("moved")), tree(&laptop.path("Designs")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_that_is_put_back_while_the_node_runs_deletes_nothing() {
    let laptop = Device::start("laptop").await;
    laptop.write("Designs/a.txt", b"first");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    desktop.settled_with(&laptop).await;
    copy_tree(&laptop.path("Designs"), &laptop.path("bak"));
    // The marker of the copy is forgotten no later than a second after what is recorded next.
    laptop.write("Designs/a.txt", b"second, and longer");
    laptop.write("Designs/new.txt", b"new");
    laptop.settled().await;
    desktop.settled_with(&laptop).await;
    let renewed = || fs::read(laptop.path("Designs/.wormhole/folder")).unwrap();
    let old = fs::read(laptop.path("bak/.wormhole/folder")).unwrap();
    while renewed() == old {
        tokio::task::yield_now().await;
    }
    fs::rename(laptop.path("Designs"), laptop.path("broken")).unwrap();
    copy_tree(&laptop.path("bak"), &laptop.path("Designs"));
    laptop.settled_with(&desktop).await;
    desktop.settled_with(&laptop).await;
    for dir in [laptop.path("Designs"), desktop.path("Copy")] {
        let files = tree(&dir);
        assert_eq!(
            files["a.txt"],
            b"second, and longer",
            "{}: {files:?}",
            dir.display()
        );
        assert_eq!(files["new.txt"], b"new");
        assert_eq!(files.len(), 3, "both versions are kept: {files:?}");
    }
    let status: StatusReply = laptop.client.get("/v1/status", &()).await.unwrap();
    let told = format!("{:?}", status.meshes[0].damage);
    assert!(told.contains("a copy that was made earlier"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_or_around_the_folder_of_another_node_is_not_shared() {
    let laptop = Device::start("laptop").await;
    laptop.write("outer/Designs/sub/a.txt", b"a");
    laptop.share("outer/Designs").await;
    let other = Device::start("other").await;
    for dir in ["outer/Designs/sub", "outer"] {
        let request = ShareRequest {
            dir: laptop.path(dir),
            name: None,
            role: None,
            ttl_seconds: None,
            ask: None,
        };
        let refused = fault(other.try_share(&request).await);
        assert_eq!(refused.code, FaultCode::DirectoryTaken, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_all_that_is_left_cannot_come() {
    let laptop = Device::start("laptop").await;
    for number in 0..9 {
        laptop.write(&format!("Designs/{number}.txt"), b"text");
    }
    laptop.write("Designs/docs/x.txt", b"x");
    let shared = laptop.share("Designs").await;
    let desktop = Device::start("desktop").await;
    desktop.write("Copy/A", b"one");
    desktop.write("Copy/a", b"two");
    desktop.write("Copy/Docs/y.txt", b"y");
    let bad = PathBuf::from(OsStr::from_bytes(b"caf\xe9"));
    fs::write(desktop.path("Copy").join(bad), b"x").unwrap();
    desktop.join(&shared.invite.code, "Copy", &laptop).await;
    let request = WaitRequest {
        mesh: None,
        timeout_seconds: Some(60),
        members: 1,
        until_stuck: true,
    };
    let reply: WaitReply = desktop.client.post("/v1/wait", &request).await.unwrap();
    assert!(!reply.done);
    let named = format!("{:?}", reply.waiting_for);
    for reason in ["not valid UTF-8", "differs only in case"] {
        assert!(named.contains(reason), "{named}");
    }
    assert!(
        !named.contains("being recorded"),
        "it did not time out: {named}"
    );
    for number in 0..9 {
        assert_eq!(desktop.read(&format!("Copy/{number}.txt")), b"text");
    }
}
