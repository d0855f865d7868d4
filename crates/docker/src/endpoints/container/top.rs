//! `GET /containers/{id}/top`

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::state::Face;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    ps_args: Option<String>,
}

pub(super) async fn top(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Json<Value>> {
    let top = face.engine.top(&id, params.ps_args.as_deref().unwrap_or("-ef")).await?;
    Ok(Json(json!({ "Titles": top.titles, "Processes": top.processes })))
}
