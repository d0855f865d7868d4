//! `POST /auth` and `GET /distribution/{name}/json`; ours beside it: `/manifest` and `/referrers`, the documents as they are.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use berth_engine::api::RemoteView;
use berth_types::ErrorClass;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::registry_auth::{self, AuthConfig};
use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    Router::new().route("/auth", post(auth)).route("/distribution/{*rest}", get(distribution))
}

async fn auth(State(face): State<Face>, Json(config): Json<AuthConfig>) -> ApiResult<Response> {
    let done = face.engine.login(&config.domain(), config.credentials()?).await;
    match done {
        Ok(token) => {
            let body = json!({ "Status": "Login Succeeded", "IdentityToken": token.unwrap_or_default() });
            Ok(Json(body).into_response())
        }
        // Clients ask for the password again on 401, and on nothing else.
        Err(error) if error.class == ErrorClass::PermissionDenied => {
            Ok((StatusCode::UNAUTHORIZED, Json(json!({ "message": error.message }))).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

async fn distribution(
    State(face): State<Face>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Value>> {
    let missing = || ApiError::new(ErrorClass::NotFound, format!("page not found: /distribution/{rest}"));
    let (name, verb) = rest.rsplit_once('/').ok_or_else(missing)?;
    let credentials = registry_auth::from_headers(&headers, name)?;
    match verb {
        "json" => Ok(Json(inspect(&face.engine.remote(name, credentials).await?))),
        "manifest" => document(&face.engine.remote(name, credentials).await?),
        "referrers" => document(&face.engine.remote_referrers(name, credentials).await?),
        _ => Err(missing()),
    }
}

fn inspect(view: &RemoteView) -> Value {
    let platform = |text: &String| {
        let mut words = text.split('/');
        let mut value = json!({ "os": words.next(), "architecture": words.next() });
        if let Some(variant) = words.next() {
            value["variant"] = json!(variant);
        }
        value
    };
    json!({
        "Descriptor": { "mediaType": view.media_type, "digest": view.digest, "size": view.bytes.len() },
        "Platforms": view.platforms.iter().map(platform).collect::<Vec<_>>(),
    })
}

fn document(view: &RemoteView) -> ApiResult<Json<Value>> {
    let parsed = serde_json::from_slice(&view.bytes);
    parsed.map(Json).map_err(|error| ApiError::invalid(format!("the document is not valid JSON: {error}")))
}
