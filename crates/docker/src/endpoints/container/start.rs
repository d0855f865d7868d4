//! `POST /containers/{id}/start`

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    checkpoint: Option<String>,
}

pub(super) async fn start(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    if params.checkpoint.is_some_and(|c| !c.is_empty()) {
        return Err(ApiError::unimplemented("starting from a checkpoint"));
    }
    if !face.pending().is_empty() {
        let view = face.engine.inspect(&id, false).await?;
        face.pending().settled(&view.id).await;
    }
    let started = face.engine.start_container(&id).await?;
    Ok(if started { StatusCode::NO_CONTENT } else { StatusCode::NOT_MODIFIED })
}
