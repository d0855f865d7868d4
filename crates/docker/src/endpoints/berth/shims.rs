//! `GET /berth/shims`: shim processes, and the tasks each of them serves.

use axum::Json;
use axum::extract::State;
use berth_engine::api::ShimView;

use crate::state::Face;

pub(super) async fn list(State(face): State<Face>) -> Json<Vec<ShimView>> {
    Json(face.engine.shims().await)
}
