//! `GET /images/get?names=…`: several images in one archive.

use axum::extract::{Query, State};
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::stream::bytes_response;

pub(super) async fn save(State(face): State<Face>, Query(pairs): Query<Vec<(String, String)>>) -> ApiResult<Response> {
    let names: Vec<String> = pairs.into_iter().filter(|(key, _)| key == "names").map(|(_, name)| name).collect();
    if names.is_empty() {
        return Err(ApiError::invalid("no image is named; write names=NAME, once for each image"));
    }
    Ok(bytes_response("application/x-tar", face.engine.save(&names).await?))
}
