//! `GET /containers/{id}/trace` (ours): the steps of the last start with their times.

use axum::Json;
use axum::extract::{Path, State};
use berth_types::Span;

use crate::error::ApiResult;
use crate::state::Face;

pub(super) async fn trace(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<Vec<Span>>> {
    Ok(Json(face.engine.trace(&id).await?))
}
