//! A client of the local API: JSON calls, long operations, the event stream, a file's bytes.
//!
//! Speaks HTTP/1.1 over the Unix socket of one home, one connection for each call, and holds no
//! state. The CLI, the demo and the tests of whole nodes use it; it never starts a node (that is
//! the CLI's affair) and never retries.

mod query;
mod sse;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::api::{Fault, Progress, Step};
use crate::event::Event;
use crate::home::{HomeError, socket_path};
pub use query::segment;
use sse::Frames;

/// Talks to the node of one home.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use wormhole_node::api::MeshesReply;
/// use wormhole_node::client::Client;
///
/// let client = Client::of_home("/home/ann/.local/share/wormhole".as_ref())?;
/// let reply: MeshesReply = client.get("/v1/meshes", &()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// The longest JSON answer that is read: a listing of some hundred thousand entries.
const ANSWER_BYTES_MAX: usize = 256 << 20;

impl Client {
    /// A client of the node whose home is `home`; whether one runs shows at the first call.
    ///
    /// # Errors
    ///
    /// When the home's path is too long for a socket and there is no other place for one.
    pub fn of_home(home: &Path) -> Result<Self, HomeError> {
        Ok(Self {
            socket: socket_path(home)?,
        })
    }

    /// The socket that is called.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for something; `query` is a struct of strings and numbers, or `()`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] when the node says no, else what kept the question or the answer.
    pub async fn get<Q: Serialize, R: DeserializeOwned>(
        &self,
        route: &str,
        query: &Q,
    ) -> Result<R, ClientError> {
        let request = request(Method::GET, &query::address(route, query)?, Bytes::new())?;
        self.send(request).await?.json().await
    }

    /// Asks the node to do something and waits for the answer.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]. When the connection broke, the node may have done it all the same.
    pub async fn post<B: Serialize, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &B,
    ) -> Result<R, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Encode)?;
        self.send(request(Method::POST, route, body.into())?)
            .await?
            .json()
            .await
    }

    /// Has the node forget something and waits for the answer.
    ///
    /// # Errors
    ///
    /// As [`Client::post`].
    pub async fn delete<R: DeserializeOwned>(&self, route: &str) -> Result<R, ClientError> {
        let request = request(Method::DELETE, route, Bytes::new())?;
        self.send(request).await?.json().await
    }

    /// Asks for something that takes long; `progress` is told how far it is.
    ///
    /// # Errors
    ///
    /// As [`Client::post`]; [`ClientError::Cut`] when the node ended before the operation did.
    pub async fn steps<B: Serialize, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &B,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<R, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Encode)?;
        let answer = self
            .send(request(Method::POST, route, body.into())?)
            .await?;
        let mut frames = Frames::new(answer);
        while let Some(frame) = frames.next().await? {
            match serde_json::from_str::<Step<R>>(&frame).map_err(ClientError::Decode)? {
                Step::Progress(step) => progress(&step),
                Step::Done(reply) => return Ok(reply),
                Step::Failed(fault) => return Err(ClientError::Refused(fault)),
            }
        }
        Err(ClientError::Cut)
    }

    /// Follows what happens on the node from now on.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn events(&self) -> Result<Events, ClientError> {
        let answer = self
            .send(request(Method::GET, "/v1/events", Bytes::new())?)
            .await?;
        Ok(Events {
            frames: Frames::new(answer),
        })
    }

    /// Asks for bytes; they come piece by piece.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn bytes<Q: Serialize>(&self, route: &str, query: &Q) -> Result<Answer, ClientError> {
        self.send(request(
            Method::GET,
            &query::address(route, query)?,
            Bytes::new(),
        )?)
        .await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { socket }
                }
                _ => ClientError::Connect { socket, source },
            }
        })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(ClientError::Http)?;
        let mut driver = JoinSet::new();
        // Its error reaches whoever reads the answer; it ends with the answer at the latest.
        driver.spawn(async move { drop(connection.await) });
        let response = sender
            .send_request(request)
            .await
            .map_err(ClientError::Http)?;
        let answer = Answer {
            response,
            _driver: driver,
        };
        if answer.response.status() == StatusCode::OK {
            Ok(answer)
        } else {
            Err(answer.fault().await)
        }
    }
}

fn request(
    method: Method,
    address: &str,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, ClientError> {
    Request::builder()
        .method(method)
        .uri(address)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(ClientError::Address)
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Answer {
    response: Response<Incoming>,
    // Moves the connection's bytes; aborted when the answer is dropped.
    _driver: JoinSet<()>,
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// When the connection broke.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(piece) = frame.map_err(ClientError::Http)?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    async fn json<R: DeserializeOwned>(self) -> Result<R, ClientError> {
        serde_json::from_slice(&self.collect().await?).map_err(ClientError::Decode)
    }

    async fn collect(mut self) -> Result<Bytes, ClientError> {
        let body = Limited::new(self.response.body_mut(), ANSWER_BYTES_MAX);
        let whole = body.collect().await.map_err(|_| ClientError::Cut)?;
        Ok(whole.to_bytes())
    }

    async fn fault(self) -> ClientError {
        let status = self.response.status();
        match self.json::<Fault>().await {
            Ok(fault) => ClientError::Refused(fault),
            Err(_) => ClientError::Status {
                status: status.as_u16(),
            },
        }
    }
}

/// The event stream of a node.
#[derive(Debug)]
pub struct Events {
    frames: Frames,
}

impl Events {
    /// The next event; `None` when the node has stopped. Cancel safe.
    ///
    /// # Errors
    ///
    /// When the connection broke or carried something else than an event.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        let Some(frame) = self.frames.next().await? else {
            return Ok(None);
        };
        serde_json::from_str(&frame)
            .map(Some)
            .map_err(ClientError::Decode)
    }
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node listens on the socket.
    #[error("no node is running in this home (nothing answers at {})", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is there and cannot be used.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node answered with a fault.
    #[error("{}", .0.message)]
    Refused(Fault),
    /// The node answered with an error that is no fault of the API.
    #[error("the node answered with HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The connection broke.
    #[error("the connection to the node broke")]
    Http(#[source] hyper::Error),
    /// The node stopped before it had answered in full.
    #[error("the node stopped before it had answered: look at node.log in the home")]
    Cut,
    /// The request cannot be written as JSON (a path that is not UTF-8).
    #[error("the request cannot be sent: names and paths must be UTF-8")]
    Encode(#[source] serde_json::Error),
    /// The request has no valid address.
    #[error("the request cannot be sent")]
    Address(#[source] hyper::http::Error),
    /// The answer is not what this version understands.
    #[error(
        "the node's answer is not understood: it may be of another version; restart it with `wormhole down`"
    )]
    Decode(#[source] serde_json::Error),
}
