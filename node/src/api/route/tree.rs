//! Routes that look into the tree of a mesh without a folder.

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::api::extract::{Body, Params};
use crate::api::*;
use crate::node::Node;

/// The entries of a directory, or the one entry that a path names.
#[utoipa::path(get, path = "/v1/ls", params(TreeQuery),
    responses((status = 200, body = EntriesReply), (status = "4XX", body = Fault)))]
pub(super) async fn ls(
    State(node): State<Node>,
    Params(query): Params<TreeQuery>,
) -> Result<Json<EntriesReply>, Fault> {
    Ok(Json(node.list(&query.mesh, &query.path).await?))
}

/// The bytes of a file, fetched from other members when they are not here.
#[utoipa::path(get, path = "/v1/cat", params(TreeQuery),
    responses(
        (status = 200, content_type = "application/octet-stream"),
        (status = "4XX", body = Fault)
    ))]
pub(super) async fn cat(
    State(node): State<Node>,
    Params(query): Params<TreeQuery>,
) -> Result<Response, Fault> {
    let (size, bytes) = node.cat(&query.mesh, &query.path).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, Bytes::from_stream(bytes)).into_response())
}

/// Ends a conflict on every device at once.
#[utoipa::path(post, path = "/v1/resolve", request_body = ResolveRequest,
    responses((status = 200, body = ResolveReply), (status = "4XX", body = Fault)))]
pub(super) async fn resolve(
    State(node): State<Node>,
    Body(request): Body<ResolveRequest>,
) -> Result<Json<ResolveReply>, Fault> {
    Ok(Json(node.resolve_conflict(&request).await?))
}

/// The entries that are the second version of something changed on two devices apart.
#[utoipa::path(get, path = "/v1/conflicts", params(MeshQuery),
    responses((status = 200, body = EntriesReply), (status = "4XX", body = Fault)))]
pub(super) async fn conflicts(
    State(node): State<Node>,
    Params(query): Params<MeshQuery>,
) -> Result<Json<EntriesReply>, Fault> {
    Ok(Json(node.conflicts(query.mesh.as_deref()).await?))
}
