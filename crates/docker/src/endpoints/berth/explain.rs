//! `GET /berth/containers/{id}/explain`: the container as it is in the kernel, with reasons, proofs and drift.

use axum::Json;
use axum::extract::{Path, State};
use berth_engine::api::ExplainReport;

use crate::error::ApiResult;
use crate::state::Face;

pub(super) async fn explain(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<ExplainReport>> {
    Ok(Json(face.engine.explain(&id).await?))
}
