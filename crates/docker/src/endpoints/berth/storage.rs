//! `POST /berth/fsck`, `GET /berth/path` and `GET /berth/images/{name}/layers`: looking into the store.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use berth_engine::api::{LayerListing, PathStory};
use serde_json::{Value, json};

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;

/// `repair=1` also mends.
pub(super) async fn fsck(
    State(face): State<Face>,
    Query(query): Query<HashMap<String, String>>,
) -> ApiResult<Json<Value>> {
    let report = face.engine.fsck(is_true(query.get("repair").map(String::as_str))).await?;
    let problems: Vec<Value> = report
        .problems
        .iter()
        .map(|problem| {
            json!({ "Kind": problem.kind, "Object": problem.object, "Problem": problem.what, "Repair": problem.repair })
        })
        .collect();
    Ok(Json(json!({
        "Images": report.images,
        "Blobs": report.blobs,
        "BlobBytes": report.blob_bytes,
        "Layers": report.layers,
        "Records": report.records,
        "Problems": problems,
        "Open": report.open_problems(),
    })))
}

/// `of` names a container or an image, `path` is absolute in it.
pub(super) async fn explain_path(
    State(face): State<Face>,
    Query(query): Query<HashMap<String, String>>,
) -> ApiResult<Json<PathStory>> {
    let word = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    Ok(Json(face.engine.explain_path(word("of"), word("path")).await?))
}

/// `files=1` also lists what is in them.
pub(super) async fn layers(
    State(face): State<Face>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> ApiResult<Json<Vec<LayerListing>>> {
    Ok(Json(face.engine.image_layers(&name, is_true(query.get("files").map(String::as_str))).await?))
}
