//! `/berth/…`: what Docker's API has no word for.

mod explain;
mod why;

use axum::Router;
use axum::routing::get;

use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/berth/containers/{id}/explain", get(explain::explain))
        .route("/berth/containers/{id}/why", get(why::why))
}
