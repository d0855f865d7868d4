//! `GET /containers/{id}/export`

use axum::extract::{Path, State};
use axum::response::Response;

use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::stream::bytes_response;

pub(super) async fn export(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Response> {
    Ok(bytes_response("application/octet-stream", face.engine.export(&id).await?))
}
