//! `POST /commit`

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use berth_engine::api::CommitRequest;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::endpoints::is_true;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::tolerant::{is_default, parse};

pub(super) async fn commit(
    State(face): State<Face>,
    Query(pairs): Query<Vec<(String, String)>>,
    body: Bytes,
) -> ApiResult<Response> {
    let one = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty());
    let config: Map<String, Value> = parse("commit", &body)?;
    if let Some((name, _)) = config.iter().find(|(_, value)| !is_default(value)) {
        return Err(ApiError::unimplemented(&format!("commit with a config in the body ({name}); use changes")));
    }
    let container = one("container").ok_or_else(|| ApiError::invalid("the container is missing"))?;
    let reference = one("repo").map(|repo| match one("tag") {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo.to_owned(),
    });
    let changes = pairs.iter().filter(|(k, _)| k == "changes").flat_map(|(_, v)| v.lines().map(str::to_owned));
    let request = CommitRequest {
        container_ref: container.to_owned(),
        reference,
        author: one("author").unwrap_or("").to_owned(),
        message: one("comment").unwrap_or("").to_owned(),
        pause: one("pause").is_none_or(|text| is_true(Some(text))),
        changes: changes.collect(),
    };
    let id = face.engine.commit(request).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}
