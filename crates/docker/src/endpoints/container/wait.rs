//! `POST /containers/{id}/wait`: the headers go out at once, so that a client can start the container after it waits.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use berth_engine::api::WaitCondition;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;
use crate::wire::stream::response;

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    condition: Option<String>,
}

pub(super) async fn wait(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<Response> {
    let condition = match params.condition.as_deref() {
        None | Some("" | "not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => {
            let message = format!("wait condition {other:?} is not valid; write not-running, next-exit or removed");
            return Err(ApiError::invalid(message));
        }
    };
    let exited = face.engine.wait_registered(&id, condition).await?;
    let line = async move {
        let answer = match exited.await {
            Ok((code, None)) => json!({ "StatusCode": code }),
            Ok((code, Some(error))) => json!({ "StatusCode": code, "Error": { "Message": error } }),
            Err(_) => json!({ "StatusCode": -1, "Error": { "Message": "the engine gave up waiting" } }),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{answer}\n")))
    };
    Ok(response("application/json", Body::from_stream(stream::once(line))))
}
