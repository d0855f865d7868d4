//! `POST /containers/{id}/kill`

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use super::stop::parse_signal;
use crate::error::ApiResult;
use crate::state::Face;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    signal: Option<String>,
}

pub(super) async fn kill(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    face.engine.kill(&id, parse_signal(params.signal.as_deref())?).await?;
    Ok(StatusCode::NO_CONTENT)
}
