//! `HEAD`, `GET`, `PUT /containers/{id}/archive`: files in and out as tar.

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use base64::Engine as _;
use berth_engine::api::PathStat;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::endpoints::is_true;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::stream::{bytes_response, request_bytes};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    path: Option<String>,
    #[serde(rename = "noOverwriteDirNonDir")]
    no_overwrite_dir_non_dir: Option<String>,
    #[serde(rename = "copyUIDGID")]
    copy_uid_gid: Option<String>,
}

impl Params {
    fn path(&self) -> ApiResult<&str> {
        self.path.as_deref().filter(|p| !p.is_empty()).ok_or_else(|| ApiError::invalid("the path is missing"))
    }
}

fn stat_header(stat: &PathStat) -> ApiResult<HeaderValue> {
    let document = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": stat.go_mode,
        "mtime": stat.modified,
        "linkTarget": stat.link_target,
    });
    let text = base64::engine::general_purpose::STANDARD.encode(document.to_string());
    HeaderValue::from_str(&text).map_err(|_| ApiError::invalid("the path's name does not fit into a header"))
}

pub(super) async fn head(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Response> {
    let stat = face.engine.path_stat(&id, params.path()?).await?;
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert("X-Docker-Container-Path-Stat", stat_header(&stat)?);
    Ok(response)
}

pub(super) async fn get(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Response> {
    let (stat, tar) = face.engine.copy_out(&id, params.path()?).await?;
    let mut response = bytes_response("application/x-tar", tar);
    response.headers_mut().insert("X-Docker-Container-Path-Stat", stat_header(&stat)?);
    Ok(response)
}

pub(super) async fn put(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    request: Request,
) -> ApiResult<StatusCode> {
    let no_overwrite = is_true(params.no_overwrite_dir_non_dir.as_deref());
    let copy_owners = is_true(params.copy_uid_gid.as_deref());
    let tar = request_bytes(request.into_body());
    face.engine.copy_in(&id, params.path()?, tar, no_overwrite, copy_owners).await?;
    Ok(StatusCode::OK)
}
