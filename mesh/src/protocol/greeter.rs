//! Says hello, and answers it: what came of a greeting goes into the attachments.

use std::fmt;

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use wormhole_crdt::{DeviceId, MeshId};

use super::Protocols;
use crate::{
    error::OpenError,
    hello::{self, Greeted, HelloError, Known, Local},
    peer::Misbehaviour,
    streams::{About, Handler, Protocol, Quota, Stream},
    version::Terms,
};

/// Why a hello came to nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unheard {
    /// The other device has no room for it now.
    Busy,
    /// It did not get there, or its answer did not come back.
    Lost,
}

/// Answers hellos.
pub(super) struct Greeter {
    protocols: Protocols,
}

impl Greeter {
    pub(super) fn new(protocols: Protocols) -> Self {
        Self { protocols }
    }
}

impl fmt::Debug for Greeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Greeter")
    }
}

impl Handler for Greeter {
    fn protocol(&self) -> Protocol {
        hello::PROTOCOL
    }

    fn quota(&self) -> Quota {
        // One is enough, but a device that attaches meshes one after the other says hello for each.
        Quota {
            stranger: 4,
            member: 4,
            total: 128,
        }
    }

    fn accept(&self, mut stream: Stream) -> BoxFuture<'static, ()> {
        let protocols = self.protocols.clone();
        Box::pin(async move {
            let peer = stream.peer();
            let mut rng: StdRng = rand::make_rng();
            let recognised = |shared: &[MeshId], terms| protocols.recognise(peer, shared, terms);
            let local = protocols.local();
            let said = hello::accept(&mut stream, peer, local, &mut rng, recognised).await;
            protocols.after_hello(peer, said).await;
        })
    }
}

impl Protocols {
    /// Greets a connected device. An error is worth another attempt.
    pub(super) async fn greet(&self, peer: DeviceId) -> Result<(), Unheard> {
        let mut stream = match self.inner.streams.open(peer, hello::PROTOCOL).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%peer, %error, "cannot say hello");
                return Err(match error {
                    OpenError::PeerQuota { .. } | OpenError::Busy { .. } => Unheard::Busy,
                    OpenError::Unreachable { .. }
                    | OpenError::Unsupported { .. }
                    | OpenError::Backlog { .. }
                    | OpenError::Lost { .. }
                    | OpenError::Stopped => Unheard::Lost,
                });
            }
        };
        let mut rng: StdRng = rand::make_rng();
        let said = hello::open(&mut stream, peer, self.local(), &mut rng).await;
        if let Ok(greeted) = &said {
            self.recognise(peer, &greeted.shared, greeted.terms);
        }
        let unheard = matches!(said, Err(HelloError::Io(_) | HelloError::Deadline));
        self.after_hello(peer, said).await;
        if unheard { Err(Unheard::Lost) } else { Ok(()) }
    }

    fn local(&self) -> Local<'_> {
        let meshes = self.inner.registry.all();
        Local {
            device: self.inner.local.id,
            introduction: &self.inner.introduction,
            meshes: meshes
                .values()
                .map(|mesh| Known::of(&mesh.replica))
                .collect(),
        }
    }

    /// The device has proved these meshes. Others that it proved before, it still shares: hellos may
    /// overtake one another, and what ends a sharing is the end of the connection.
    fn recognise(&self, peer: DeviceId, shared: &[MeshId], terms: Terms) {
        for mesh in shared {
            if let Some(mesh) = self.inner.registry.get(*mesh) {
                mesh.arrived(peer, terms);
            }
        }
    }

    async fn after_hello(&self, peer: DeviceId, said: Result<Greeted, HelloError>) {
        let greeted = match said {
            Ok(greeted) => greeted,
            Err(error) => {
                tracing::debug!(%peer, %error, "no hello");
                if let HelloError::Version(mismatch) = &error {
                    let problem = Some(mismatch.to_string());
                    let about = About {
                        problem,
                        ..About::default()
                    };
                    self.inner.streams.describe(peer, about).await;
                }
                if matches!(error, HelloError::Malformed) {
                    self.inner
                        .streams
                        .misbehaved(peer, Misbehaviour::BadFrame)
                        .await;
                }
                return;
            }
        };
        let Some(about) = greeted.about else { return };
        let described = About {
            name: Some(about.name),
            version: Some(about.program),
            protocol: Some(greeted.terms.version),
            meshes: self.shared(&peer),
            problem: None,
        };
        self.inner.streams.describe(peer, described).await;
        if self.inner.greeted.send(peer).await.is_err() {
            tracing::trace!("the network is stopping");
        }
    }
}
