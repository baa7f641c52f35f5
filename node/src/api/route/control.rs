//! Routes about the node as a whole: look, follow, wait, limit, stop.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

use crate::api::extract::{Body, Params};
use crate::api::*;
use crate::event::Event;
use crate::node::Node;

type Reply<T> = Result<Json<T>, Fault>;

/// Who answers.
#[utoipa::path(get, path = "/v1/node", responses((status = 200, body = NodeReply)))]
pub(super) async fn node(State(node): State<Node>) -> Json<NodeReply> {
    Json(node.describe())
}

/// Stops the node, in order. Answers before it begins.
#[utoipa::path(post, path = "/v1/shutdown", responses((status = 200, body = Empty)))]
pub(super) async fn shutdown(State(node): State<Node>) -> Json<Empty> {
    node.request_stop();
    Json(Empty {})
}

/// The node and its meshes as they are now.
#[utoipa::path(get, path = "/v1/status", params(MeshQuery),
    responses((status = 200, body = StatusReply), (status = "4XX", body = Fault)))]
pub(super) async fn status(
    State(node): State<Node>,
    Params(query): Params<MeshQuery>,
) -> Reply<StatusReply> {
    Ok(Json(node.status(query.mesh.as_deref()).await?))
}

/// A person has seen who joined: it is no longer told.
#[utoipa::path(post, path = "/v1/seen", request_body = SeenRequest,
    responses((status = 200, body = Empty)))]
pub(super) async fn seen(
    State(node): State<Node>,
    Body(request): Body<SeenRequest>,
) -> Json<Empty> {
    node.seen(&request);
    Json(Empty {})
}

/// Follows what happens, as server-sent events whose data is an `Event`.
#[utoipa::path(get, path = "/v1/events",
    responses((status = 200, content_type = "text/event-stream", body = Event)))]
pub(super) async fn events(State(node): State<Node>) -> Response {
    stream::events(&node).into_response()
}

/// The bandwidth limits in force.
#[utoipa::path(get, path = "/v1/limit", responses((status = 200, body = LimitReply)))]
pub(super) async fn limits(State(node): State<Node>) -> Json<LimitReply> {
    Json(node.limits())
}

/// Changes the bandwidth limits; they outlast a restart.
#[utoipa::path(post, path = "/v1/limit", request_body = LimitRequest,
    responses((status = 200, body = LimitReply), (status = "4XX", body = Fault)))]
pub(super) async fn limit(
    State(node): State<Node>,
    Body(request): Body<LimitRequest>,
) -> Reply<LimitReply> {
    Ok(Json(node.limit(&request).await?))
}

/// Forgets the limits that were set while the node ran; those of the settings count again.
#[utoipa::path(delete, path = "/v1/limit",
    responses((status = 200, body = LimitReply), (status = "5XX", body = Fault)))]
pub(super) async fn reset_limits(State(node): State<Node>) -> Reply<LimitReply> {
    Ok(Json(node.reset_limits().await?))
}

/// Waits until everything known is applied and here.
#[utoipa::path(post, path = "/v1/wait", request_body = WaitRequest,
    responses((status = 200, body = WaitReply), (status = "4XX", body = Fault)))]
pub(super) async fn wait(
    State(node): State<Node>,
    Body(request): Body<WaitRequest>,
) -> Reply<WaitReply> {
    Ok(Json(node.wait(&request).await?))
}

/// Reads and verifies everything that is stored, and heals what it can.
#[utoipa::path(post, path = "/v1/check", request_body = CheckRequest,
    responses((status = 200, body = CheckReply), (status = "4XX", body = Fault)))]
pub(super) async fn check(
    State(node): State<Node>,
    Body(request): Body<CheckRequest>,
) -> Reply<CheckReply> {
    Ok(Json(node.check(request.mesh.as_deref()).await?))
}

/// Says why a file is, or is not, synced.
#[utoipa::path(get, path = "/v1/explain", params(ExplainQuery),
    responses((status = 200, body = ExplainReply), (status = "4XX", body = Fault)))]
pub(super) async fn explain(
    State(node): State<Node>,
    Params(query): Params<ExplainQuery>,
) -> Reply<ExplainReply> {
    Ok(Json(node.explain(&query.path).await?))
}

/// The devices that this node is or was connected with.
#[utoipa::path(get, path = "/v1/peers", responses((status = 200, body = PeersReply)))]
pub(super) async fn peers(State(node): State<Node>) -> Json<PeersReply> {
    Json(node.peers())
}

/// Content in flight.
#[utoipa::path(get, path = "/v1/transfers", responses((status = 200, body = TransfersReply)))]
pub(super) async fn transfers(State(node): State<Node>) -> Json<TransfersReply> {
    Json(node.transfers())
}

/// Connects to an address by hand, and remembers it.
#[utoipa::path(post, path = "/v1/dial", request_body = DialRequest,
    responses((status = 200, body = DialReply), (status = "4XX", body = Fault)))]
pub(super) async fn dial(
    State(node): State<Node>,
    Body(request): Body<DialRequest>,
) -> Reply<DialReply> {
    Ok(Json(node.dial(&request.peer).await?))
}

/// The description of this API.
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(super::Description::openapi())
}
