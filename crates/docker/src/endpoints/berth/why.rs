//! `GET /berth/containers/{id}/why`: the cause of a container's death, with the evidence.

use axum::Json;
use axum::extract::{Path, State};
use berth_engine::api::WhyReport;

use crate::error::ApiResult;
use crate::state::Face;

pub(super) async fn why(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<WhyReport>> {
    Ok(Json(face.engine.why(&id).await?))
}
