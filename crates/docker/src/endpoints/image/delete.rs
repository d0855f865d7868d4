//! `DELETE /images/{name}`

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::Value;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::image;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    force: Option<String>,
    noprune: Option<String>,
}

pub(super) async fn delete(
    State(face): State<Face>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Json<Value>> {
    let force = is_true(params.force.as_deref());
    let removed = face.engine.remove_image(&name, force, is_true(params.noprune.as_deref())).await?;
    Ok(Json(removed.iter().map(image::deleted).collect()))
}
