//! Listens on the home's socket and lets only this user in.
//!
//! The socket is in a private directory, has mode 0600, and every connection's credentials are
//! checked all the same: the first two can be undone by a careless `chmod`, the third cannot. A TCP
//! listener, with all that browsers could do to it, is deliberately absent.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Fault, FaultCode, route};
use crate::node::Node;

/// A CLI sends one request at a time, an app a few; more than this is a program gone wrong.
const MOST_REQUESTS: usize = 64;

/// The route that stops the node.
const STOP_ROUTE: &str = "/v1/shutdown";

/// Connections that may be open at once, those that are refused with an answer included.
const MOST_CONNECTIONS: usize = 4 * MOST_REQUESTS;

/// How long nothing is accepted after the system refused to.
const REST: Duration = Duration::from_millis(100);

/// How long requests that are under way may still take when the node stops.
const GRACE: Duration = Duration::from_secs(2);

/// A bound socket, not yet served.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds the socket. One that a killed node left behind is replaced: the caller holds the home's
    /// lock, so nobody answers there.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers until `stop` is cancelled, then lets requests that are under way end, for a while.
    pub(crate) async fn serve(self, node: Node, stop: CancellationToken) {
        let app = router(node);
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                stream = accept(&self.listener), if connections.len() < MOST_CONNECTIONS => stream,
            };
            connections.spawn(answer(stream, app.clone(), stop.clone()));
        }
        let all_end = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(GRACE, all_end).await.is_err() {
            tracing::warn!("requests were cut off because the node stops");
            connections.shutdown().await;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Serves one connection; when the node stops, no more than the request that is under way.
async fn answer(stream: UnixStream, app: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client of the local API left in the middle");
    }
}

/// A request that panics costs its own connection only.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request failed: this is a fault of the program");
    }
}

fn router(node: Node) -> Router {
    let places = Arc::new(Semaphore::new(MOST_REQUESTS));
    route::all()
        .fallback(|| async { Fault::new(FaultCode::NotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            Fault::new(FaultCode::BadRequest, "the route does not take this method")
        })
        .layer(middleware::from_fn_with_state(places, bounded))
        .with_state(node)
}

/// Refuses what is over [`MOST_REQUESTS`]. An answer keeps its place until its last byte: events and
/// the content of files go on for long after their headers. Only stopping the node is never refused.
async fn bounded(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    if request.uri().path() == STOP_ROUTE {
        return next.run(request).await;
    }
    let Ok(place) = places.try_acquire_owned() else {
        return Fault::new(FaultCode::Busy, "too many requests at once").into_response();
    };
    let answer = next.run(request).await;
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // The place goes with the body that owns this closure.
            let _held = &place;
            frame
        }))
    })
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.code.status())
            .expect("every code has a valid status");
        (status, axum::Json(self)).into_response()
    }
}

/// The next connection of the user that the node runs as, or of root.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most likely too many files are open: what is open must be closed first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if may_enter(peer.uid()) => return stream,
            Ok(peer) => tracing::warn!(uid = peer.uid(), "refused another user's connection"),
            Err(error) => tracing::warn!(%error, "refused a connection of an unknown user"),
        }
    }
}

fn may_enter(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}
