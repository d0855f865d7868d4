//! Endpoints of the API that we know and do not have yet: each says so by name, in the shape Docker uses.

use axum::Json;
use axum::Router;
use axum::routing::{any, get};
use berth_types::ErrorClass;
use http::{Method, Uri};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    let mut routes = Router::new()
        .route("/plugins", get(nothing))
        .route("/networks/create", any(networks))
        .route("/networks/prune", any(networks))
        .route("/networks/{id}/connect", any(networks))
        .route("/networks/{id}/disconnect", any(networks))
        .route("/containers/{id}/attach/ws", any(websocket))
        .route("/containers/{id}/checkpoints", any(checkpoints));
    for path in ["/build", "/build/prune", "/build/cancel", "/session", "/grpc"] {
        routes = routes.route(path, any(build));
    }
    routes = routes.route("/images/search", any(search));
    for path in [
        "/swarm",
        "/swarm/{*rest}",
        "/nodes",
        "/nodes/{*rest}",
        "/services",
        "/services/{*rest}",
        "/tasks",
        "/tasks/{*rest}",
        "/secrets",
        "/secrets/{*rest}",
        "/configs",
        "/configs/{*rest}",
    ] {
        routes = routes.route(path, any(swarm));
    }
    routes
}

async fn nothing() -> Json<Value> {
    Json(json!([]))
}

async fn networks() -> ApiError {
    ApiError::unimplemented("a user-defined network (bridge, host, none and container:ID work)")
}

async fn build() -> ApiError {
    ApiError::unimplemented("building images (load or import an archive, or commit a container)")
}

async fn search() -> ApiError {
    ApiError::unimplemented("searching registries (they have no search of their own)")
}

async fn websocket() -> ApiError {
    ApiError::unimplemented("attach over a websocket (attach with Upgrade: tcp)")
}

async fn checkpoints() -> ApiError {
    ApiError::unimplemented("checkpointing a container")
}

async fn swarm() -> ApiError {
    let message = "This node is not a swarm manager. Berth is a node engine; clusters are Kubernetes' work.";
    ApiError::new(ErrorClass::Unavailable, message)
}

pub(super) async fn no_such_page(method: Method, uri: Uri) -> ApiResult<Json<Value>> {
    Err(ApiError::new(ErrorClass::NotFound, format!("page not found: {method} {}", uri.path())))
}
