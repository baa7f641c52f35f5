//! Routes that make, join and change meshes and their folders.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

use crate::api::extract::Body;
use crate::api::*;
use crate::node::{Flow, Node};

type Reply<T> = Result<Json<T>, Fault>;

/// Makes a mesh from a directory; answers with steps, the last of which has the first invite.
#[utoipa::path(post, path = "/v1/share", request_body = ShareRequest,
    responses((status = 200, content_type = "text/event-stream", body = Step<ShareReply>)))]
pub(super) async fn share(
    State(node): State<Node>,
    Body(request): Body<ShareRequest>,
) -> Result<Response, Fault> {
    let steps = stream::steps(&node, "share", |node, reporter| async move {
        node.share(request, &reporter).await.map_err(Fault::from)
    })?;
    Ok(steps.into_response())
}

/// Joins a mesh by a code or a link; answers with steps.
#[utoipa::path(post, path = "/v1/join", request_body = JoinRequest,
    responses((status = 200, content_type = "text/event-stream", body = Step<JoinReply>)))]
pub(super) async fn join(
    State(node): State<Node>,
    Body(request): Body<JoinRequest>,
) -> Result<Response, Fault> {
    let steps = stream::steps(&node, "join", |node, reporter| async move {
        node.join_mesh(request, &reporter)
            .await
            .map_err(Fault::from)
    })?;
    Ok(steps.into_response())
}

/// Asks what a code or link leads to, and joins nothing; answers with steps.
#[utoipa::path(post, path = "/v1/propose", request_body = ProposeRequest,
    responses((status = 200, content_type = "text/event-stream", body = Step<ProposeReply>)))]
pub(super) async fn propose(
    State(node): State<Node>,
    Body(request): Body<ProposeRequest>,
) -> Result<Response, Fault> {
    let steps = stream::steps(&node, "propose", |node, reporter| async move {
        node.propose(request, &reporter).await.map_err(Fault::from)
    })?;
    Ok(steps.into_response())
}

/// The invites that are still good, with their codes and links.
#[utoipa::path(get, path = "/v1/invites", responses((status = 200, body = InvitesReply)))]
pub(super) async fn invites(State(node): State<Node>) -> Reply<InvitesReply> {
    Ok(Json(node.invites()))
}

/// The devices that wait for somebody here to admit them.
#[utoipa::path(get, path = "/v1/asking", responses((status = 200, body = AskingReply)))]
pub(super) async fn asking(State(node): State<Node>) -> Reply<AskingReply> {
    Ok(Json(node.asking()))
}

/// Admits or refuses one of them.
#[utoipa::path(post, path = "/v1/decide", request_body = DecideRequest,
    responses((status = 200, body = DecideReply), (status = "4XX", body = Fault)))]
pub(super) async fn decide(
    State(node): State<Node>,
    Body(request): Body<DecideRequest>,
) -> Reply<DecideReply> {
    Ok(Json(node.decide(&request)?))
}

/// Makes another invite, good for one device.
#[utoipa::path(post, path = "/v1/invites", request_body = InviteRequest,
    responses((status = 200, body = InviteReply), (status = "4XX", body = Fault)))]
pub(super) async fn invite(
    State(node): State<Node>,
    Body(request): Body<InviteRequest>,
) -> Reply<InviteReply> {
    Ok(Json(node.invite(&request)?))
}

/// The meshes that this device is in.
#[utoipa::path(get, path = "/v1/meshes", responses((status = 200, body = MeshesReply)))]
pub(super) async fn meshes(State(node): State<Node>) -> Reply<MeshesReply> {
    Ok(Json(node.meshes_reply().await?))
}

/// The members of a mesh.
#[utoipa::path(get, path = "/v1/meshes/{mesh}/members",
    params(("mesh" = String, Path, description = "The mesh, by name or by the beginning of its id")),
    responses((status = 200, body = MembersReply), (status = "4XX", body = Fault)))]
pub(super) async fn members(
    State(node): State<Node>,
    Path(mesh): Path<String>,
) -> Reply<MembersReply> {
    Ok(Json(node.members(&mesh)?))
}

/// Shows a mesh, or a directory of it, in one more directory of this device.
#[utoipa::path(post, path = "/v1/sync", request_body = SyncRequest,
    responses((status = 200, body = SyncReply), (status = "4XX", body = Fault)))]
pub(super) async fn sync(
    State(node): State<Node>,
    Body(request): Body<SyncRequest>,
) -> Reply<SyncReply> {
    Ok(Json(node.sync(request).await?))
}

/// Stops syncing a directory; its files stay.
#[utoipa::path(post, path = "/v1/unbind", request_body = UnbindRequest,
    responses((status = 200, body = UnbindReply), (status = "4XX", body = Fault)))]
pub(super) async fn unbind(
    State(node): State<Node>,
    Body(request): Body<UnbindRequest>,
) -> Reply<UnbindReply> {
    Ok(Json(node.unbind(&request.dir).await?))
}

/// Moves a synced folder, or follows one that was moved.
#[utoipa::path(post, path = "/v1/move", request_body = MoveRequest,
    responses((status = 200, body = MoveReply), (status = "4XX", body = Fault)))]
pub(super) async fn move_folder(
    State(node): State<Node>,
    Body(request): Body<MoveRequest>,
) -> Reply<MoveReply> {
    Ok(Json(node.move_folder(&request.dir, &request.to).await?))
}

/// Forgets a mesh on this device; the files of its folders stay.
#[utoipa::path(post, path = "/v1/leave", request_body = LeaveRequest,
    responses((status = 200, body = LeaveReply), (status = "4XX", body = Fault)))]
pub(super) async fn leave(
    State(node): State<Node>,
    Body(request): Body<LeaveRequest>,
) -> Reply<LeaveReply> {
    Ok(Json(node.leave(&request).await?))
}

/// Removes a device from a mesh.
#[utoipa::path(post, path = "/v1/revoke", request_body = RevokeRequest,
    responses((status = 200, body = MemberReply), (status = "4XX", body = Fault)))]
pub(super) async fn revoke(
    State(node): State<Node>,
    Body(request): Body<RevokeRequest>,
) -> Reply<MemberReply> {
    Ok(Json(node.revoke(&request).await?))
}

/// Names the key of a mesh's recovery phrase.
#[utoipa::path(post, path = "/v1/recovery", request_body = RecoveryRequest,
    responses((status = 200, body = RecoveryReply), (status = "4XX", body = Fault)))]
pub(super) async fn recovery(
    State(node): State<Node>,
    Body(request): Body<RecoveryRequest>,
) -> Reply<RecoveryReply> {
    Ok(Json(node.set_recovery(&request).await?))
}

/// Makes this device admin of a mesh by its recovery phrase.
#[utoipa::path(post, path = "/v1/recover", request_body = RecoverRequest,
    responses((status = 200, body = MemberReply), (status = "4XX", body = Fault)))]
pub(super) async fn recover(
    State(node): State<Node>,
    Body(request): Body<RecoverRequest>,
) -> Reply<MemberReply> {
    Ok(Json(node.recover(&request).await?))
}

/// Gives a device of a mesh another role.
#[utoipa::path(post, path = "/v1/role", request_body = RoleRequest,
    responses((status = 200, body = MemberReply), (status = "4XX", body = Fault)))]
pub(super) async fn role(
    State(node): State<Node>,
    Body(request): Body<RoleRequest>,
) -> Reply<MemberReply> {
    Ok(Json(node.set_role(&request).await?))
}

/// Looks through a synced folder again, as if nothing were known about it.
#[utoipa::path(post, path = "/v1/rescan", request_body = FolderRequest,
    responses((status = 200, body = Empty), (status = "4XX", body = Fault)))]
pub(super) async fn rescan(
    State(node): State<Node>,
    Body(request): Body<FolderRequest>,
) -> Reply<Empty> {
    node.rescan(&request.dir).await?;
    Ok(Json(Empty {}))
}

/// Lets the deletions that a folder holds back go through, or brings back what vanished.
#[utoipa::path(post, path = "/v1/confirm-deletions", request_body = ConfirmRequest,
    responses((status = 200, body = ConfirmReply), (status = "4XX", body = Fault)))]
pub(super) async fn confirm_deletions(
    State(node): State<Node>,
    Body(request): Body<ConfirmRequest>,
) -> Reply<ConfirmReply> {
    Ok(Json(node.confirm_deletions(&request).await?))
}

/// Pauses one mesh or all; outlasts a restart.
#[utoipa::path(post, path = "/v1/pause", request_body = PauseRequest,
    responses((status = 200, body = PauseReply), (status = "4XX", body = Fault)))]
pub(super) async fn pause(
    State(node): State<Node>,
    Body(request): Body<PauseRequest>,
) -> Reply<PauseReply> {
    Ok(Json(
        node.set_flow(request.mesh.as_deref(), Flow::Paused).await?,
    ))
}

/// Lets one mesh or all go on.
#[utoipa::path(post, path = "/v1/resume", request_body = PauseRequest,
    responses((status = 200, body = PauseReply), (status = "4XX", body = Fault)))]
pub(super) async fn resume(
    State(node): State<Node>,
    Body(request): Body<PauseRequest>,
) -> Reply<PauseReply> {
    Ok(Json(
        node.set_flow(request.mesh.as_deref(), Flow::Running)
            .await?,
    ))
}
