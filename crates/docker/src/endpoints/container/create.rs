//! `POST /containers/create`; with `?plan=1` (ours) the dry run.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::endpoints::is_true;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::create_body;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    name: Option<String>,
    plan: Option<String>,
    platform: Option<String>,
}

pub(super) async fn create(State(face): State<Face>, Query(params): Query<Params>, body: Bytes) -> ApiResult<Response> {
    refuse_platform(params.platform.as_deref().unwrap_or_default())?;
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

/// Only this machine's own platform can be run; a variant (`v8`) is the image's affair.
fn refuse_platform(platform: &str) -> ApiResult<()> {
    let (own, _) = berth_types::architecture::host();
    match platform.split('/').collect::<Vec<_>>()[..] {
        ["" | "linux"] => Ok(()),
        ["linux", architecture, ..] if architecture == own => Ok(()),
        _ => Err(ApiError::unimplemented(&format!("platform {platform}: this machine runs linux/{own} only"))),
    }
}
