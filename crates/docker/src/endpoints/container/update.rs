//! `POST /containers/{id}/update`

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::host_config;

pub(super) async fn update(State(face): State<Face>, Path(id): Path<String>, body: Bytes) -> ApiResult<Json<Value>> {
    let warnings = face.engine.update(&id, host_config::update_from_wire(&body)?).await?;
    Ok(Json(json!({ "Warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) } })))
}
