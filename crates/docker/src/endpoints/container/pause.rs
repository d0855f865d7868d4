//! `POST /containers/{id}/pause` and `/unpause`

use axum::extract::{Path, State};
use http::StatusCode;

use crate::error::ApiResult;
use crate::state::Face;

pub(super) async fn pause(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    face.engine.pause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unpause(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    face.engine.unpause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
