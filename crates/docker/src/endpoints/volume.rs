//! Volumes: `GET /volumes`, `POST /volumes/create`, `GET|DELETE /volumes/{name}`, `POST /volumes/prune`.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use berth_engine::api::{NewVolume, VolumeView};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::filters;
use crate::wire::tolerant::{parse, refuse_unknown};

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
}

#[derive(Debug, Deserialize)]
struct Params {
    filters: Option<String>,
    force: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireCreate {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// Docker's volume; with sizes when they were asked for.
pub(crate) fn into_wire(view: &VolumeView) -> Value {
    let mut labels = view.labels.clone();
    if view.is_anonymous {
        labels.insert("com.docker.volume.anonymous".to_owned(), String::new());
    }
    let mut wire = json!({
        "Name": view.name,
        "Driver": "local",
        "Mountpoint": view.mountpoint,
        "CreatedAt": view.created.to_string(),
        "Scope": "local",
        "Labels": labels,
        "Options": if view.options.is_empty() { Value::Null } else { json!(view.options) },
    });
    if let Some(size) = view.size_bytes {
        wire["UsageData"] = json!({ "Size": size, "RefCount": view.users.len() });
    }
    wire
}

async fn list(State(face): State<Face>, Query(params): Query<Params>) -> ApiResult<Json<Value>> {
    let views = face.engine.volumes(&filters::from_wire(params.filters.as_deref())?).await?;
    Ok(Json(json!({ "Volumes": views.iter().map(into_wire).collect::<Vec<_>>(), "Warnings": null })))
}

async fn create(State(face): State<Face>, body: Bytes) -> ApiResult<(StatusCode, Json<Value>)> {
    let wire: WireCreate = parse("volume create", &body)?;
    refuse_unknown("volume", &wire.other, &[])?;
    let new = NewVolume { name: wire.name, driver: wire.driver, options: wire.driver_opts, labels: wire.labels };
    let view = face.engine.create_volume(new).await?;
    Ok((StatusCode::CREATED, Json(into_wire(&view))))
}

async fn inspect(State(face): State<Face>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(into_wire(&face.engine.volume(&name).await?)))
}

async fn remove(
    State(face): State<Face>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> ApiResult<StatusCode> {
    face.engine.remove_volume(&name, is_true(params.force.as_deref())).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(face): State<Face>, Query(params): Query<Params>) -> ApiResult<Json<Value>> {
    let outcome = face.engine.prune_volumes(&filters::from_wire(params.filters.as_deref())?).await?;
    Ok(Json(json!({ "VolumesDeleted": outcome.deleted, "SpaceReclaimed": outcome.reclaimed_bytes })))
}
