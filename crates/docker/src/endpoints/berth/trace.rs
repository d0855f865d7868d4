//! `GET /berth/containers/{id}/trace` and `/berth/exec/{id}/trace`: steps with their times, and how their clock stands to the wall's.

use axum::Json;
use axum::extract::{Path, State};
use berth_engine::api::TraceReport;

use crate::error::ApiResult;
use crate::state::Face;

pub(super) async fn container(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<TraceReport>> {
    Ok(Json(face.engine.trace_report(&id).await?))
}

pub(super) async fn exec(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<TraceReport>> {
    Ok(Json(face.engine.exec_trace(&id)?))
}
