//! A device for tests: a directory with a home and folders in it, a node, and a client of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use crate::api::*;
use crate::client::{Client, ClientError};
use crate::config::{Config, Overrides, Switch};
use crate::home::Home;
use crate::node::Node;

/// Longer than anything here takes; only a broken test waits so long.
const PATIENCE_SECONDS: u64 = 60;

pub(super) struct Device {
    root: TempDir,
    name: String,
    node: Option<Node>,
    pub(super) client: Client,
}

impl Device {
    pub(super) async fn start(name: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        let client = Client::of_home(&root.path().join("home")).unwrap();
        let mut device = Self {
            root,
            name: name.to_owned(),
            node: None,
            client,
        };
        device.restart().await;
        device
    }

    pub(super) async fn restart(&mut self) {
        let home = Home::open(&self.root.path().join("home")).unwrap();
        let over = Overrides {
            listen: Some(vec!["127.0.0.1".parse().unwrap()]),
            discovery: Some(Switch::Off),
            device_name: Some(self.name.clone()),
            ..Overrides::default()
        };
        let config = Config::resolve(&home.config_path(), "", &|_| None, &over).unwrap();
        self.node = Some(Node::spawn(home, config).await.unwrap());
    }

    /// How many secrets this device has seen a mesh have.
    pub(super) fn secrets(&self, mesh: &str) -> usize {
        let node = self.node.as_ref().expect("the node runs");
        let mesh = node.lookup(mesh).unwrap();
        mesh.replica().epoch_secrets().len()
    }

    pub(super) async fn stop(&mut self) {
        self.node.take().expect("the node runs").shutdown().await;
    }

    pub(super) async fn stopped(mut self) -> Self {
        self.stop().await;
        self
    }

    pub(super) fn node(&self) -> &Node {
        self.node.as_ref().expect("the node runs")
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(path)
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap()
    }

    pub(super) async fn share(&self, dir: &str) -> ShareReply {
        let dir = self.path(dir);
        let request = ShareRequest {
            dir,
            name: None,
            role: None,
            ttl_seconds: None,
            ask: None,
        };
        self.try_share(&request).await.unwrap()
    }

    pub(super) async fn try_share(
        &self,
        request: &ShareRequest,
    ) -> Result<ShareReply, ClientError> {
        self.client.steps("/v1/share", request, &mut |_| {}).await
    }

    pub(super) async fn invite(&self, mesh: &str) -> InviteReply {
        let request = InviteRequest {
            mesh: mesh.to_owned(),
            role: None,
            ttl_seconds: None,
            ask: None,
        };
        self.client.post("/v1/invites", &request).await.unwrap()
    }

    pub(super) async fn join(&self, code: &str, dir: &str, inviter: &Self) -> JoinReply {
        self.try_join(code, dir, inviter).await.unwrap()
    }

    pub(super) async fn try_join(
        &self,
        code: &str,
        dir: &str,
        inviter: &Self,
    ) -> Result<JoinReply, ClientError> {
        self.join_as(code, Keep::Folder, Some(self.path(dir)), inviter)
            .await
    }

    pub(super) async fn join_as(
        &self,
        code: &str,
        keep: Keep,
        dir: Option<PathBuf>,
        inviter: &Self,
    ) -> Result<JoinReply, ClientError> {
        let peers = inviter.node().addresses();
        let request = JoinRequest {
            ticket: code.to_owned(),
            dir,
            keep,
            peers,
            agreed: Agreement::Anything,
        };
        self.client.steps("/v1/join", &request, &mut |_| {}).await
    }

    pub(super) async fn dial(&self, other: &Self) {
        for peer in other.node().addresses() {
            drop::<DialReply>(
                self.client
                    .post("/v1/dial", &DialRequest { peer })
                    .await
                    .unwrap(),
            );
        }
    }

    pub(super) async fn meshes(&self) -> Vec<MeshSummary> {
        self.client
            .get::<_, MeshesReply>("/v1/meshes", &())
            .await
            .unwrap()
            .meshes
    }

    pub(super) fn meshes_on_disk(&self) -> usize {
        fs::read_dir(self.path("home/meshes")).unwrap().count()
    }

    pub(super) async fn ls(&self, path: &str) -> Result<EntriesReply, ClientError> {
        let query = TreeQuery {
            mesh: "Designs".to_owned(),
            path: path.to_owned(),
        };
        self.client.get("/v1/ls", &query).await
    }

    pub(super) async fn cat(&self, mesh: &str, path: &str) -> Result<Vec<u8>, ClientError> {
        let query = TreeQuery {
            mesh: mesh.to_owned(),
            path: path.to_owned(),
        };
        let mut answer = self.client.bytes("/v1/cat", &query).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.piece().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    pub(super) async fn wait(&self, timeout_seconds: Option<u64>, members: u32) -> WaitReply {
        let request = WaitRequest {
            mesh: None,
            timeout_seconds,
            members,
            until_stuck: false,
        };
        self.client.post("/v1/wait", &request).await.unwrap()
    }

    /// Everything known is applied and here.
    pub(super) async fn settled(&self) {
        self.settle(0).await;
    }

    /// The same, and the other device is connected.
    pub(super) async fn settled_with(&self, _other: &Self) {
        self.settle(1).await;
    }

    async fn settle(&self, members: u32) {
        let reply = self.wait(Some(PATIENCE_SECONDS), members).await;
        assert!(
            reply.done,
            "{} waits for {:#?}",
            self.name, reply.waiting_for
        );
    }
}

/// The members of the mesh "Designs".
pub(super) async fn members(device: &Device) -> Vec<MemberInfo> {
    let reply: Result<MembersReply, _> = device.client.get("/v1/meshes/Designs/members", &()).await;
    reply.unwrap().members
}

/// The state of the device's only mesh.
pub(super) async fn status(device: &Device) -> MeshStatus {
    let reply: StatusReply = device.client.get("/v1/status", &()).await.unwrap();
    reply.meshes.into_iter().next().expect("it is in a mesh")
}

/// Waits until `check` holds.
pub(super) async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let holds = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = Duration::from_secs(PATIENCE_SECONDS);
    let waited = tokio::time::timeout(patience, holds).await;
    waited.unwrap_or_else(|_elapsed| panic!("gave up waiting: {what}"));
}

/// The files below a directory with their bytes; Wormhole's own are left out.
pub(super) fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for item in fs::read_dir(&next).unwrap() {
            let path = item.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if name == ".wormhole" {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The fault that a request was refused with.
#[track_caller]
pub(super) fn fault<T: std::fmt::Debug + Serialize>(result: Result<T, ClientError>) -> Fault {
    match result {
        Err(ClientError::Refused(fault)) => fault,
        other => panic!("expected a fault, not {other:?}"),
    }
}
