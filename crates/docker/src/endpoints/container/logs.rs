//! `GET /containers/{id}/logs`

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use berth_engine::api::{LogLines, LogOptions};
use berth_types::Timestamp;
use futures_util::StreamExt as _;
use serde::Deserialize;

use crate::endpoints::is_true;
use crate::error::{ApiError, ApiResult};
use crate::hijack;
use crate::state::Face;
use crate::wire::stream::{receive, response};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    stdout: Option<String>,
    stderr: Option<String>,
    follow: Option<String>,
    since: Option<String>,
    until: Option<String>,
    tail: Option<String>,
    timestamps: Option<String>,
}

/// # Errors
/// `InvalidArgument` naming the parameter.
pub(in crate::endpoints) fn parse_time(name: &str, text: Option<&str>) -> ApiResult<Option<Timestamp>> {
    let Some(text) = text.filter(|t| !t.is_empty() && *t != "0") else { return Ok(None) };
    let time = Timestamp::parse_relative(text, Timestamp::now());
    time.map(Some).map_err(|error| ApiError::invalid(format!("{name}: {error}")))
}

fn options(params: &Params) -> ApiResult<LogOptions> {
    let options = LogOptions {
        stdout: is_true(params.stdout.as_deref()),
        stderr: is_true(params.stderr.as_deref()),
        follow: is_true(params.follow.as_deref()),
        since: parse_time("since", params.since.as_deref())?,
        until: parse_time("until", params.until.as_deref())?,
        tail: match params.tail.as_deref() {
            None | Some("" | "all") => None,
            // Docker takes a negative number for "all" and anything else that is no number as well; we refuse the latter.
            Some(text) if text.starts_with('-') => None,
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::invalid(format!("tail {text:?} is not valid; write a number of lines or \"all\""))
            })?),
        },
        timestamps: is_true(params.timestamps.as_deref()),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream: stdout=1 or stderr=1"));
    }
    Ok(options)
}

/// One frame for each line, as Docker has it: there are clients that take a frame for a line.
fn render(lines: &LogLines, has_terminal: bool, timestamps: bool) -> Bytes {
    let stamp_bytes = if timestamps { 32 } else { 0 };
    let mut out = Vec::with_capacity(lines.text_bytes() + lines.len() * (8 + stamp_bytes));
    for line in lines.iter() {
        let stamp = if timestamps { format!("{} ", line.time) } else { String::new() };
        if !has_terminal {
            out.extend_from_slice(&hijack::frame_header(line.is_stderr, stamp.len() + line.text.len()));
        }
        out.extend_from_slice(stamp.as_bytes());
        out.extend_from_slice(line.text);
    }
    out.into()
}

pub(super) async fn logs(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Response> {
    let options = options(&params)?;
    let timestamps = options.timestamps;
    let has_terminal = face.engine.has_terminal(&id).await?;
    let lines = face.engine.logs(&id, options).await?;
    let content_type = if has_terminal { hijack::RAW_STREAM } else { hijack::MULTIPLEXED_STREAM };
    let body =
        receive(lines).map(move |lines| Ok::<_, std::convert::Infallible>(render(&lines, has_terminal, timestamps)));
    Ok(response(content_type, Body::from_stream(body)))
}
