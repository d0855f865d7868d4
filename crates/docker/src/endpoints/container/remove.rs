//! `DELETE /containers/{id}`

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use crate::endpoints::is_true;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    force: Option<String>,
    v: Option<String>,
    link: Option<String>,
}

pub(super) async fn remove(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    if is_true(params.link.as_deref()) {
        return Err(ApiError::unimplemented("removing a link between containers"));
    }
    face.engine.remove(&id, is_true(params.force.as_deref()), is_true(params.v.as_deref())).await?;
    Ok(StatusCode::NO_CONTENT)
}
