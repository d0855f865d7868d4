//! `GET /containers/{id}/json`

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::inspect as document;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    size: Option<String>,
}

pub(super) async fn inspect(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Json<Value>> {
    let view = face.engine.inspect(&id, is_true(params.size.as_deref())).await?;
    Ok(Json(document::into_wire(&view)))
}
