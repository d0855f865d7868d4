//! `POST /containers/{id}/stop` and `/restart`

use axum::extract::{Path, Query, State};
use berth_types::Signal;
use http::StatusCode;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    signal: Option<String>,
    /// Seconds; negative: wait without end.
    t: Option<i64>,
}

/// # Errors
/// `InvalidArgument` for an unknown signal.
pub(super) fn parse_signal(text: Option<&str>) -> ApiResult<Option<Signal>> {
    text.filter(|t| !t.is_empty()).map(|t| t.parse().map_err(|e| ApiError::invalid(format!("{e}")))).transpose()
}

pub(super) async fn stop(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    let stopped = face.engine.stop(&id, parse_signal(params.signal.as_deref())?, params.t).await?;
    Ok(if stopped { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}

pub(super) async fn restart(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    face.engine.restart(&id, parse_signal(params.signal.as_deref())?, params.t).await?;
    Ok(StatusCode::NO_CONTENT)
}
