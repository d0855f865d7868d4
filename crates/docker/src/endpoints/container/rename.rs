//! `POST /containers/{id}/rename`

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    name: Option<String>,
}

pub(super) async fn rename(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    let name = params.name.unwrap_or_default();
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        return Err(ApiError::invalid("neither old nor new names may be empty"));
    }
    face.engine.rename(&id, name).await?;
    Ok(StatusCode::NO_CONTENT)
}
