//! `POST /images/{name}/tag`

use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;

#[derive(Debug, Deserialize)]
struct Params {
    repo: Option<String>,
    tag: Option<String>,
}

pub(super) async fn tag(face: &Face, name: &str, query: &str) -> ApiResult<Response> {
    let uri: Uri = format!("/?{query}").parse().map_err(|_| ApiError::invalid("the query is not valid"))?;
    let Query(params) = Query::<Params>::try_from_uri(&uri).map_err(|error| ApiError::invalid(error.to_string()))?;
    let repo =
        params.repo.filter(|r| !r.is_empty()).ok_or_else(|| ApiError::invalid("the target repository is missing"))?;
    let target = match params.tag.filter(|t| !t.is_empty()) {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo,
    };
    face.engine.tag(name, &target).await?;
    Ok(StatusCode::CREATED.into_response())
}
