//! `POST /containers/create`; with `?plan=1` (ours) the dry run.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::create_body;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    name: Option<String>,
    plan: Option<String>,
}

pub(super) async fn create(State(face): State<Face>, Query(params): Query<Params>, body: Bytes) -> ApiResult<Response> {
    let (config, host) = create_body::from_wire(&body)?;
    let name = params.name.as_deref().map(|n| n.trim_start_matches('/')).filter(|n| !n.is_empty());
    if is_true(params.plan.as_deref()) {
        let plan = face.engine.plan(name, config, host).await?;
        return Ok(Json(plan).into_response());
    }
    let created = face.engine.create(name, config, host).await?;
    let answer = json!({ "Id": created.id, "Warnings": created.warnings });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}
