//! `POST /images/{name}/push`

use axum::response::Response;
use berth_engine::api::{EngineError, PushOutcome};
use berth_types::ErrorClass;
use futures_util::stream::{self, StreamExt as _};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::ApiResult;
use crate::registry_auth;
use crate::state::Face;
use crate::wire::stream::{json_lines, progress_line, receive, stream_error};

const PROGRESS_MAX: usize = 64;

pub(super) async fn push(face: Face, name: &str, query: &str, headers: &HeaderMap) -> ApiResult<Response> {
    let credentials = registry_auth::from_headers(headers, name)?;
    let tag = super::query_value(query, "tag").filter(|tag| !tag.is_empty());
    let (sender, mut progress) = mpsc::channel(PROGRESS_MAX);
    let name = name.to_owned();
    let mut pushing = Box::pin(async move { face.engine.push(&name, tag.as_deref(), credentials, sender).await });
    let first = tokio::select! {
        biased;
        first = progress.recv() => first,
        done = &mut pushing => {
            let lines = outcome(Ok(done?));
            return Ok(json_lines(receive(progress).map(|p| progress_line(&p)).chain(stream::iter(lines))));
        }
    };
    // The push is driven by the client that reads; with it, it ends.
    let rest = stream::unfold((Some(pushing), progress), |(pushing, mut progress)| async move {
        let mut working = pushing?;
        tokio::select! {
            biased;
            Some(next) = progress.recv() => Some((vec![progress_line(&next)], (Some(working), progress))),
            done = &mut working => {
                let mut lines = Vec::new();
                while let Ok(left) = progress.try_recv() {
                    lines.push(progress_line(&left));
                }
                lines.extend(outcome(done));
                Some((lines, (None, progress)))
            }
        }
    });
    let first = first.map(|p| progress_line(&p));
    Ok(json_lines(stream::iter(first).chain(rest.flat_map(stream::iter))))
}

fn outcome(done: Result<Vec<PushOutcome>, EngineError>) -> Vec<Value> {
    let line = |pushed: PushOutcome| json!({ "progressDetail": {}, "aux": { "Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size_bytes } });
    match done {
        Ok(all) => all.into_iter().map(line).collect(),
        Err(error) if error.class == ErrorClass::Aborted => Vec::new(),
        Err(error) => vec![stream_error(&error)],
    }
}
