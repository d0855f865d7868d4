//! `GET /containers/{id}/stats`: one sample a second, or one (or two, for rates) and the end.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use berth_engine::api::Stats;
use futures_util::stream;
use serde::Deserialize;
use serde_json::Value;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::stats as document;
use crate::wire::stream::json_lines;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    stream: Option<String>,
    #[serde(rename = "one-shot")]
    one_shot: Option<String>,
}

const INTERVAL: Duration = Duration::from_secs(1);

struct Sampler {
    face: Face,
    id: String,
    name: String,
    before: Option<Stats>,
}

impl Sampler {
    async fn sample(&mut self) -> ApiResult<Value> {
        let stats = self.face.engine.stats(&self.id).await?;
        let line = document::into_wire(&self.id, &self.name, &stats, self.before.as_ref());
        self.before = Some(stats);
        Ok(line)
    }
}

pub(super) async fn stats(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Response> {
    let view = face.engine.inspect(&id, false).await?;
    let mut sampler = Sampler { face, id: view.id.to_string(), name: view.name, before: None };
    let first = sampler.sample().await?;
    if params.stream.is_some() && !is_true(params.stream.as_deref()) {
        if is_true(params.one_shot.as_deref()) {
            return Ok(Json(first).into_response());
        }
        tokio::time::sleep(INTERVAL).await;
        return Ok(Json(sampler.sample().await?).into_response());
    }
    let lines = stream::unfold((sampler, Some(first)), |(mut sampler, ready)| async move {
        let line = match ready {
            Some(line) => line,
            None => {
                tokio::time::sleep(INTERVAL).await;
                sampler.sample().await.ok()?
            }
        };
        Some((line, (sampler, None)))
    });
    Ok(json_lines(lines))
}
