//! The routes of the local API, and their description for programs.
//!
//! A route only translates: it reads a request, calls one operation of the node, and turns what
//! came of it into a reply. Whatever a route decides by itself is in the wrong place.

mod control;
mod mesh;
mod trash;
mod tree;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use utoipa::OpenApi;

use super::*;
use crate::event::Event;
use crate::node::Node;

/// Requests are paths, names and codes; nothing of that is longer.
const LONGEST_BODY_BYTES: usize = 64 << 10;

/// Every route.
pub(super) fn all() -> Router<Node> {
    Router::new()
        .route("/v1/node", get(control::node))
        .route("/v1/shutdown", post(control::shutdown))
        .route("/v1/status", get(control::status))
        .route("/v1/events", get(control::events))
        .route(
            "/v1/limit",
            get(control::limits)
                .post(control::limit)
                .delete(control::reset_limits),
        )
        .route("/v1/wait", post(control::wait))
        .route("/v1/check", post(control::check))
        .route("/v1/explain", get(control::explain))
        .route("/v1/peers", get(control::peers))
        .route("/v1/transfers", get(control::transfers))
        .route("/v1/dial", post(control::dial))
        .route("/v1/openapi.json", get(control::openapi))
        .route("/v1/share", post(mesh::share))
        .route("/v1/join", post(mesh::join))
        .route("/v1/propose", post(mesh::propose))
        .route("/v1/invites", get(mesh::invites).post(mesh::invite))
        .route("/v1/seen", post(control::seen))
        .route("/v1/asking", get(mesh::asking))
        .route("/v1/decide", post(mesh::decide))
        .route("/v1/meshes", get(mesh::meshes))
        .route("/v1/meshes/{mesh}/members", get(mesh::members))
        .route("/v1/sync", post(mesh::sync))
        .route("/v1/unbind", post(mesh::unbind))
        .route("/v1/move", post(mesh::move_folder))
        .route("/v1/leave", post(mesh::leave))
        .route("/v1/revoke", post(mesh::revoke))
        .route("/v1/role", post(mesh::role))
        .route("/v1/recovery", post(mesh::recovery))
        .route("/v1/recover", post(mesh::recover))
        .route("/v1/rescan", post(mesh::rescan))
        .route("/v1/confirm-deletions", post(mesh::confirm_deletions))
        .route("/v1/trash", get(trash::trash))
        .route("/v1/restore", post(trash::restore))
        .route("/v1/pause", post(mesh::pause))
        .route("/v1/resume", post(mesh::resume))
        .route("/v1/ls", get(tree::ls))
        .route("/v1/cat", get(tree::cat))
        .route("/v1/conflicts", get(tree::conflicts))
        .route("/v1/resolve", post(tree::resolve))
        .layer(DefaultBodyLimit::max(LONGEST_BODY_BYTES))
}

/// The description of the API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Wormhole local API",
        description = "HTTP over the Unix socket in a node's home. Errors are `Fault` objects."
    ),
    paths(
        control::node,
        control::shutdown,
        control::status,
        control::seen,
        control::events,
        control::limits,
        control::limit,
        control::reset_limits,
        control::wait,
        control::check,
        control::explain,
        control::peers,
        control::transfers,
        control::dial,
        mesh::share,
        mesh::join,
        mesh::propose,
        mesh::invites,
        mesh::invite,
        mesh::asking,
        mesh::decide,
        mesh::meshes,
        mesh::members,
        mesh::sync,
        mesh::unbind,
        mesh::move_folder,
        mesh::leave,
        mesh::revoke,
        mesh::role,
        mesh::recovery,
        mesh::recover,
        mesh::rescan,
        mesh::confirm_deletions,
        trash::trash,
        trash::restore,
        mesh::pause,
        mesh::resume,
        tree::ls,
        tree::cat,
        tree::conflicts,
        tree::resolve,
    ),
    components(schemas(Event, Step<ShareReply>, Step<JoinReply>, Step<ProposeReply>, Fault))
)]
pub(super) struct Description;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let description = Description::openapi();
        let source = include_str!("route.rs");
        let routes: Vec<&str> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".route(\""))
            .filter_map(|line| line.split('"').next())
            .filter(|path| *path != "/v1/openapi.json")
            .collect();
        assert!(routes.len() > 20);
        for path in routes {
            assert!(
                description.paths.paths.contains_key(path),
                "{path} is not described"
            );
        }
    }
}
