//! `POST /images/create`: pulling from a registry (`fromImage`), or import of a root file system (`fromSrc`).

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::load::progress_response;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::stream::{error_line, request_bytes};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Params {
    from_image: Option<String>,
    from_src: Option<String>,
    repo: Option<String>,
    tag: Option<String>,
    message: Option<String>,
    platform: Option<String>,
    plan: Option<String>,
}

const PROGRESS_MAX: usize = 64;

/// The `changes` parameter comes repeated, which a struct refuses, so it is read from the pairs.
fn all_changes(query: Option<&str>) -> Vec<String> {
    let uri: Result<http::Uri, _> = format!("/?{}", query.unwrap_or("")).parse();
    let pairs = uri.ok().and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok());
    let pairs = pairs.map(|Query(pairs)| pairs).unwrap_or_default();
    let changes = pairs.into_iter().filter(|(key, _)| key == "changes");
    changes.flat_map(|(_, value)| value.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn reference(repo: Option<&str>, tag: Option<&str>) -> Option<String> {
    let repo = repo.filter(|r| !r.is_empty())?;
    Some(match tag.filter(|t| !t.is_empty()) {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo.to_owned(),
    })
}

pub(super) async fn create(
    State(face): State<Face>,
    Query(params): Query<Params>,
    request: Request<Body>,
) -> ApiResult<Response> {
    if let Some(image) = params.from_image.filter(|i| !i.is_empty()) {
        let is_plan = crate::endpoints::is_true(params.plan.as_deref());
        let wanted = super::pull::Wanted { image, tag: params.tag, platform: params.platform, is_plan };
        return super::pull::pull(face, wanted, request.headers()).await;
    }
    if params.from_src.as_deref() != Some("-") {
        return Err(ApiError::unimplemented("importing from a URL (send the archive as the body with fromSrc=-)"));
    }
    if params.platform.is_some_and(|p| !p.is_empty()) {
        return Err(ApiError::unimplemented("choosing a platform on import"));
    }
    let changes = all_changes(request.uri().query());
    let reference = reference(params.repo.as_deref(), params.tag.as_deref());
    let message = params.message.unwrap_or_default();
    let (sender, receiver) = mpsc::channel(PROGRESS_MAX);
    let tar = request_bytes(request.into_body());
    let importing = tokio::spawn(async move {
        face.engine.import(tar, reference.as_deref(), &message, &changes, sender).await.map_err(ApiError::from)
    });
    let finish = async move {
        let line: Value = match importing.await {
            Ok(Ok(id)) => json!({ "status": id.to_string() }),
            Ok(Err(error)) => error_line(error.message()),
            Err(error) => error_line(&error.to_string()),
        };
        vec![line]
    };
    Ok(progress_response(false, receiver, finish))
}
