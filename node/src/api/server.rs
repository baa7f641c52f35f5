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
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Fault, FaultCode, route};
use crate::node::Node;

/// A CLI sends one request at a time, an app a few; more than this is a program gone wrong.
const MOST_REQUESTS: usize = 64;

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
        let stopped = stop.clone();
        let serve = axum::serve(
            SameUser {
                listener: self.listener,
            },
            app,
        )
        .with_graceful_shutdown(async move { stopped.cancelled().await });
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = serve.into_future() => match ended {
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "the local API failed"),
            },
            () = too_long => tracing::warn!("requests were cut off because the node stops"),
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
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

/// Refuses what is over [`MOST_REQUESTS`].
async fn bounded(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Fault::new(FaultCode::Busy, "too many requests at once").into_response(),
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = axum::http::StatusCode::from_u16(self.code.status())
            .expect("every code has a valid status");
        (status, axum::Json(self)).into_response()
    }
}

/// Accepts connections of the user that the node runs as, and of root.
struct SameUser {
    listener: UnixListener,
}

impl Listener for SameUser {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if may_enter(peer.uid()) => return (stream, address),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "refused another user's connection"),
                Err(error) => tracing::warn!(%error, "refused a connection of an unknown user"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn may_enter(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}
