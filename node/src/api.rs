//! The local API: HTTP, JSON and server-sent events over a Unix socket in the home.
//!
//! Everything that the CLI and the desktop app do goes through here. The types of requests and
//! replies are public and shared with the client; the routes are not. There is no TCP listener and
//! there will be none by default: whoever may open the socket is the user the node runs as.
//!
//! | route | request | reply |
//! |---|---|---|
//! | `GET /v1/node` | | [`NodeReply`] |
//! | `POST /v1/shutdown` | | [`Empty`] |
//! | `GET /v1/status` | [`MeshQuery`] | [`StatusReply`] |
//! | `GET /v1/events` | | SSE of [`Event`](crate::event::Event) |
//! | `POST /v1/share` | [`ShareRequest`] | SSE of [`Step`]`<`[`ShareReply`]`>` |
//! | `POST /v1/join` | [`JoinRequest`] | SSE of [`Step`]`<`[`JoinReply`]`>` |
//! | `POST /v1/propose` | [`ProposeRequest`] | SSE of [`Step`]`<`[`ProposeReply`]`>` |
//! | `GET /v1/invites` | | [`InvitesReply`] |
//! | `POST /v1/invites` | [`InviteRequest`] | [`InviteReply`] |
//! | `POST /v1/seen` | [`SeenRequest`] | [`Empty`] |
//! | `GET /v1/asking` | | [`AskingReply`] |
//! | `POST /v1/decide` | [`DecideRequest`] | [`DecideReply`] |
//! | `POST /v1/sync` | [`SyncRequest`] | [`SyncReply`] |
//! | `POST /v1/unbind` | [`UnbindRequest`] | [`UnbindReply`] |
//! | `POST /v1/move` | [`MoveRequest`] | [`MoveReply`] |
//! | `POST /v1/leave` | [`LeaveRequest`] | [`LeaveReply`] |
//! | `POST /v1/revoke` | [`RevokeRequest`] | [`MemberReply`] |
//! | `POST /v1/role` | [`RoleRequest`] | [`MemberReply`] |
//! | `POST /v1/recovery` | [`RecoveryRequest`] | [`RecoveryReply`] |
//! | `POST /v1/recover` | [`RecoverRequest`] | [`MemberReply`] |
//! | `POST /v1/rescan` | [`FolderRequest`] | [`Empty`] |
//! | `POST /v1/confirm-deletions` | [`ConfirmRequest`] | [`ConfirmReply`] |
//! | `GET /v1/trash` | [`TrashQuery`] | [`TrashReply`] |
//! | `POST /v1/restore` | [`RestoreRequest`] | [`RestoreReply`] |
//! | `POST /v1/check` | [`CheckRequest`] | [`CheckReply`] |
//! | `GET /v1/ls` | [`TreeQuery`] | [`EntriesReply`] |
//! | `GET /v1/cat` | [`TreeQuery`] | the file's bytes |
//! | `GET /v1/conflicts` | [`MeshQuery`] | [`EntriesReply`] |
//! | `POST /v1/resolve` | [`ResolveRequest`] | [`ResolveReply`] |
//! | `GET /v1/meshes` | | [`MeshesReply`] |
//! | `GET /v1/meshes/{mesh}/members` | | [`MembersReply`] |
//! | `GET /v1/peers` | | [`PeersReply`] |
//! | `GET /v1/transfers` | | [`TransfersReply`] |
//! | `POST /v1/dial` | [`DialRequest`] | [`DialReply`] |
//! | `POST /v1/pause`, `/v1/resume` | [`PauseRequest`] | [`PauseReply`] |
//! | `GET /v1/limit`, `POST /v1/limit` | [`LimitRequest`] | [`LimitReply`] |
//! | `DELETE /v1/limit` | none | [`LimitReply`] |
//! | `POST /v1/wait` | [`WaitRequest`] | [`WaitReply`] |
//! | `GET /v1/explain` | [`ExplainQuery`] | [`ExplainReply`] |
//! | `GET /v1/openapi.json` | | this table, for programs |
//!
//! Anything but a success answers with a [`Fault`].

mod extract;
mod fault;
mod reply;
mod request;
mod route;
mod server;
mod stream;

pub use fault::{Fault, FaultCode};
pub use reply::*;
pub use request::*;
pub(crate) use server::Server;
pub(crate) use stream::Reporter;
