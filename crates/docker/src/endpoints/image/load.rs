//! `POST /images/load`

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use berth_engine::api::Progress;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::endpoints::is_true;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::stream::{error_line, json_lines, progress_line, receive, request_bytes};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    quiet: Option<String>,
    platform: Option<String>,
}

const PROGRESS_MAX: usize = 64;

/// Progress as it happens, then what `finish` makes of the outcome.
pub(super) fn progress_response<F>(quiet: bool, progress: mpsc::Receiver<Progress>, finish: F) -> Response
where
    F: Future<Output = Vec<Value>> + Send + 'static,
{
    let lines = receive(progress).filter_map(move |p| async move { (!quiet).then(|| progress_line(&p)) });
    let last = stream::once(finish).flat_map(stream::iter);
    json_lines(lines.chain(last))
}

fn outcome(loaded: Result<Vec<String>, ApiError>) -> Vec<Value> {
    match loaded {
        Ok(names) => names
            .iter()
            .map(|name| {
                let kind = if name.starts_with("sha256:") { "Loaded image ID" } else { "Loaded image" };
                json!({ "stream": format!("{kind}: {name}\n") })
            })
            .collect(),
        Err(error) => vec![error_line(error.message())],
    }
}

pub(super) async fn load(
    State(face): State<Face>,
    Query(params): Query<Params>,
    request: Request<Body>,
) -> ApiResult<Response> {
    if params.platform.is_some_and(|p| !p.is_empty()) {
        return Err(ApiError::unimplemented("choosing a platform on load"));
    }
    let (sender, receiver) = mpsc::channel(PROGRESS_MAX);
    let tar = request_bytes(request.into_body());
    let loading = tokio::spawn(async move { face.engine.load(tar, sender).await.map_err(ApiError::from) });
    let finish = async move {
        outcome(loading.await.unwrap_or_else(|e| Err(ApiError::new(berth_types::ErrorClass::Internal, e.to_string()))))
    };
    Ok(progress_response(is_true(params.quiet.as_deref()), receiver, finish))
}
