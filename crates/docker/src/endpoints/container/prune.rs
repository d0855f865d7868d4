//! `POST /containers/prune`

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
    let outcome = face.engine.prune_containers(&filters::from_wire(params.filters.as_deref())?).await?;
    Ok(Json(json!({ "ContainersDeleted": outcome.deleted, "SpaceReclaimed": outcome.reclaimed_bytes })))
}
