//! `POST /images/create?fromImage=…`: pulling, with Docker's progress messages. Ours beside it: `plan=1` says what a pull would do.

use axum::Json;
use axum::response::{IntoResponse, Response};
use berth_engine::api::{EngineError, Progress, PullOutcome, PullRequest};
use berth_types::ErrorClass;
use futures_util::stream::{self, StreamExt as _};
use http::HeaderMap;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::ApiResult;
use crate::registry_auth;
use crate::state::Face;
use crate::wire::stream::{json_lines, progress_line, receive, stream_error};

const PROGRESS_MAX: usize = 64;

/// What the query asks for.
pub(super) struct Wanted {
    pub(super) image: String,
    pub(super) tag: Option<String>,
    pub(super) platform: Option<String>,
    pub(super) is_plan: bool,
}

impl Wanted {
    /// No tag and no digest means all tags, as clients say `--all-tags`.
    fn request(self, headers: &HeaderMap) -> ApiResult<PullRequest> {
        let tag = self.tag.filter(|tag| !tag.is_empty());
        let is_named = tag.is_some() || self.image.contains('@') || has_tag(&self.image);
        let name = match tag {
            Some(digest) if digest.contains(':') => format!("{}@{digest}", self.image),
            Some(tag) => format!("{}:{tag}", self.image),
            None => self.image,
        };
        let credentials = registry_auth::from_headers(headers, &name)?;
        Ok(PullRequest { name, all_tags: !is_named, platform: self.platform, credentials })
    }
}

fn has_tag(image: &str) -> bool {
    image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

pub(super) async fn pull(face: Face, wanted: Wanted, headers: &HeaderMap) -> ApiResult<Response> {
    let is_plan = wanted.is_plan;
    let request = wanted.request(headers)?;
    if is_plan {
        return Ok(Json(face.engine.plan_pull(request).await?).into_response());
    }
    let (sender, mut progress) = mpsc::channel(PROGRESS_MAX);
    let mut pulling = Box::pin(async move { face.engine.pull(request, sender).await });
    // What fails before there is anything to tell has a status of its own.
    let first = tokio::select! {
        biased;
        first = progress.recv() => first,
        done = &mut pulling => {
            done?;
            // All of its progress is in the channel.
            return Ok(json_lines(receive(progress).map(|p| progress_line(&p))));
        }
    };
    let Some(first) = first else {
        pulling.await?;
        return Ok(json_lines(stream::empty()));
    };
    Ok(json_lines(stream::once(async move { progress_line(&first) }).chain(rest(pulling, progress))))
}

type Pulling = std::pin::Pin<Box<dyn Future<Output = Result<Vec<PullOutcome>, EngineError>> + Send>>;

/// The pull is driven by the client that reads: when it is gone, it asks for nothing any more.
fn rest(pulling: Pulling, progress: mpsc::Receiver<Progress>) -> impl stream::Stream<Item = Value> + Send {
    stream::unfold((Some(pulling), progress), |(pulling, mut progress)| async move {
        let Some(mut working) = pulling else {
            let next = progress.recv().await?;
            return Some((progress_line(&next), (None, progress)));
        };
        tokio::select! {
            biased;
            next = progress.recv() => match next {
                Some(next) => Some((progress_line(&next), (Some(working), progress))),
                None => outcome(working.await).map(|line| (line, (None, progress))),
            },
            done = &mut working => match outcome(done) {
                Some(line) => Some((line, (None, progress))),
                None => progress.recv().await.map(|next| (progress_line(&next), (None, progress))),
            },
        }
    })
}

fn outcome(done: Result<Vec<PullOutcome>, EngineError>) -> Option<Value> {
    done.err().filter(|error| error.class != ErrorClass::Aborted).map(|error| stream_error(&error))
}
