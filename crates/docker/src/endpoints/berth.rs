//! `/berth/…`: what Docker's API has no word for.

mod explain;
mod shims;
mod storage;
mod trace;
mod why;

use axum::Router;
use axum::routing::{get, post};

use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/berth/containers/{id}/explain", get(explain::explain))
        .route("/berth/containers/{id}/trace", get(trace::container))
        .route("/berth/exec/{id}/trace", get(trace::exec))
        .route("/berth/containers/{id}/why", get(why::why))
        .route("/berth/shims", get(shims::list))
        .route("/berth/fsck", post(storage::fsck))
        .route("/berth/path", get(storage::explain_path))
        .route("/berth/images/{name}/layers", get(storage::layers))
}
