//! `GET /images/json`

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::Value;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::{filters, image};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    all: Option<String>,
    filters: Option<String>,
    /// Old clients' way to filter by reference.
    filter: Option<String>,
}

pub(super) async fn list(State(face): State<Face>, Query(params): Query<Params>) -> ApiResult<Json<Value>> {
    let mut filters = filters::from_wire(params.filters.as_deref())?;
    if let Some(reference) = params.filter.filter(|f| !f.is_empty()) {
        filters.entry("reference".to_owned()).or_default().push(reference);
    }
    let images = face.engine.images(is_true(params.all.as_deref()), &filters).await?;
    Ok(Json(images.iter().map(image::summary).collect()))
}
