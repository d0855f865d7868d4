//! `GET /containers/{id}/changes`

use axum::Json;
use axum::extract::{Path, State};
use berth_engine::api::{Change, ChangeKind};
use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::state::Face;

fn into_wire(change: &Change) -> Value {
    let kind = match change.kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    json!({ "Path": change.path, "Kind": kind })
}

pub(super) async fn changes(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let changes = face.engine.changes(&id).await?;
    // Docker answers null, not an empty list, and its clients count on either.
    Ok(Json(if changes.is_empty() { Value::Null } else { changes.iter().map(into_wire).collect() }))
}
