//! `GET /images/{name}/json|history|get`, `POST /images/{name}/tag|push`

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method};
use serde_json::Value;

use super::split_verb;
use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::image;
use crate::wire::stream::bytes_response;

pub(super) async fn get(State(face): State<Face>, Path(rest): Path<String>) -> ApiResult<Response> {
    match split_verb(&rest, &Method::GET) {
        (name, Some("json")) => {
            Ok(Json(image::inspect(&face.engine.image(name).await?, &face.engine.storage_driver())).into_response())
        }
        (name, Some("history")) => {
            let history = face.engine.history(name).await?;
            Ok(Json(history.iter().map(image::history).collect::<Value>()).into_response())
        }
        (name, Some("get")) => {
            let tar = face.engine.save(&[name.to_owned()]).await?;
            Ok(bytes_response("application/x-tar", tar))
        }
        (name, Some(_)) => Err(ApiError::unimplemented(&format!("reading attestations of image {name:?}"))),
        (name, None) => {
            Err(ApiError::new(berth_types::ErrorClass::NotFound, format!("page not found: /images/{name}")))
        }
    }
}

pub(super) async fn post(
    State(face): State<Face>,
    Path(rest): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    match split_verb(&rest, &Method::POST) {
        (name, Some("tag")) => super::tag::tag(&face, name, query.as_deref().unwrap_or("")).await,
        (name, Some(_)) => super::push::push(face, name, query.as_deref().unwrap_or(""), &headers).await,
        (name, None) => {
            Err(ApiError::new(berth_types::ErrorClass::NotFound, format!("page not found: /images/{name}")))
        }
    }
}
