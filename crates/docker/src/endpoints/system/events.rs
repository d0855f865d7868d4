//! `GET /events`: history from `since` or a cursor (`after`, ours), then live.

use axum::extract::{Query, State};
use axum::response::Response;
use berth_engine::api::EventOptions;
use futures_util::StreamExt as _;
use serde::Deserialize;

use crate::endpoints::container::parse_time;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::stream::{json_lines, receive};
use crate::wire::{event, filters};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    since: Option<String>,
    until: Option<String>,
    after: Option<u64>,
    filters: Option<String>,
}

pub(super) async fn events(State(face): State<Face>, Query(params): Query<Params>) -> ApiResult<Response> {
    let options = EventOptions {
        since: parse_time("since", params.since.as_deref())?,
        until: parse_time("until", params.until.as_deref())?,
        after_sequence: params.after,
        filters: filters::from_wire(params.filters.as_deref())?,
    };
    let events = face.engine.events(options).await?;
    Ok(json_lines(receive(events).map(|e| event::into_wire(&e))))
}
