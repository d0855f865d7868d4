//! `GET /containers/json`

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use berth_engine::api::ListOptions;
use berth_types::Timestamp;
use serde::Deserialize;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::filters;
use crate::wire::summary::Summary;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    all: Option<String>,
    limit: Option<i64>,
    size: Option<String>,
    filters: Option<String>,
}

pub(super) async fn list(State(face): State<Face>, Query(params): Query<Params>) -> ApiResult<Response> {
    let options = ListOptions {
        all: is_true(params.all.as_deref()),
        limit: params.limit.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
        size: is_true(params.size.as_deref()),
        filters: filters::from_wire(params.filters.as_deref())?,
    };
    let now = Timestamp::now();
    let views = face.engine.list(&options).await?;
    Ok(Json(views.iter().map(|view| Summary::new(view, now)).collect::<Vec<_>>()).into_response())
}
