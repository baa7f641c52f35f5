//! Routes to what others removed or replaced in a synced folder.

use axum::Json;
use axum::extract::State;

use crate::api::extract::{Body, Params};
use crate::api::*;
use crate::node::Node;

/// What is kept of what others removed or replaced.
#[utoipa::path(get, path = "/v1/trash", params(TrashQuery),
    responses((status = 200, body = TrashReply), (status = "4XX", body = Fault)))]
pub(super) async fn trash(
    State(node): State<Node>,
    Params(query): Params<TrashQuery>,
) -> Result<Json<TrashReply>, Fault> {
    Ok(Json(node.trash(query.dir.as_deref()).await?))
}

/// Brings something back to where it stood, as a change made here.
#[utoipa::path(post, path = "/v1/restore", request_body = RestoreRequest,
    responses((status = 200, body = RestoreReply), (status = "4XX", body = Fault)))]
pub(super) async fn restore(
    State(node): State<Node>,
    Body(request): Body<RestoreRequest>,
) -> Result<Json<RestoreReply>, Fault> {
    Ok(Json(node.restore(&request).await?))
}
