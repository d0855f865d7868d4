//! `POST /images/prune`

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::filters;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    filters: Option<String>,
}

pub(super) async fn prune(State(face): State<Face>, Query(params): Query<Params>) -> ApiResult<Json<Value>> {
    let outcome = face.engine.prune_images(&filters::from_wire(params.filters.as_deref())?).await?;
    let entry = |name: &String| {
        let key = if name.starts_with("sha256:") { "Deleted" } else { "Untagged" };
        json!({ key: name })
    };
    let deleted: Vec<Value> = outcome.deleted.iter().map(entry).collect();
    Ok(Json(json!({ "ImagesDeleted": deleted, "SpaceReclaimed": outcome.reclaimed_bytes })))
}
