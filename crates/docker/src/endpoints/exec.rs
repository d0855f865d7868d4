//! `/exec/…` and `POST /containers/{id}/exec`

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use berth_engine::api::{ExecConfig, ExecView};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::container::Size;
use crate::error::{ApiError, ApiResult};
use crate::hijack;
use crate::state::Face;
use crate::wire::tolerant::{OneOrMany, parse, refuse_unknown};

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireExecConfig {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    detach_keys: Option<String>,
    tty: bool,
    env: Vec<String>,
    cmd: Option<OneOrMany>,
    privileged: bool,
    user: String,
    working_dir: String,
    berth_trace: bool,
    #[serde(flatten)]
    other: Map<String, Value>,
}

async fn create(State(face): State<Face>, Path(id): Path<String>, body: Bytes) -> ApiResult<Response> {
    let wire: WireExecConfig = parse("exec create", &body)?;
    refuse_unknown("exec", &wire.other, &["ConsoleSize", "Detach", "Container"])?;
    let config = ExecConfig {
        cmd: wire.cmd.map(Vec::from).unwrap_or_default(),
        env: wire.env,
        user: wire.user,
        working_dir: wire.working_dir,
        tty: wire.tty,
        privileged: wire.privileged,
        attach_stdin: wire.attach_stdin,
        attach_stdout: wire.attach_stdout,
        attach_stderr: wire.attach_stderr,
        detach_keys: wire.detach_keys.filter(|keys| !keys.is_empty()),
        trace: wire.berth_trace,
    };
    if config.cmd.is_empty() {
        return Err(ApiError::invalid("no exec command specified"));
    }
    let id = face.engine.exec_create(&id, config).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireExecStart {
    detach: bool,
    console_size: Option<(u16, u16)>,
}

/// Bodies here are a few dozen bytes.
const START_BODY_BYTES_MAX: usize = 64 << 10;

async fn start(State(face): State<Face>, Path(id): Path<String>, mut request: Request<Body>) -> ApiResult<Response> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let body = http_body_util::Limited::new(body, START_BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| ApiError::invalid(format!("cannot read the exec start request: {error}")))?;
    let wire: WireExecStart = parse("exec start", &body.to_bytes())?;
    let size = wire.console_size.filter(|(rows, columns)| *rows > 0 && *columns > 0);
    let view = face.engine.exec_inspect(&id).await?;
    if wire.detach {
        face.engine.exec_start(&id, None, size).await?;
        return Ok(StatusCode::OK.into_response());
    }
    hijack::require_upgrade(&parts.headers)?;
    let has_terminal = view.config.tty;
    tokio::spawn(async move {
        let Some(client) = hijack::take(upgrade).await else { return };
        let started = face.engine.exec_start(&id, Some((client.stream, client.early_input)), size).await;
        if let Err(error) = started {
            // The engine has told the client on its stream.
            tracing::debug!(exec_id = %id, "{}", error.message);
        }
    });
    Ok(hijack::switching_protocols(if has_terminal { hijack::RAW_STREAM } else { hijack::MULTIPLEXED_STREAM }))
}

async fn resize(State(face): State<Face>, Path(id): Path<String>, Query(size): Query<Size>) -> ApiResult<StatusCode> {
    let (rows, columns) = size.parse()?;
    face.engine.exec_resize(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

fn into_wire(view: &ExecView) -> Value {
    let (entrypoint, arguments) = view.config.cmd.split_first().map_or(("", &[][..]), |(e, a)| (e.as_str(), a));
    json!({
        "ID": view.id,
        "ContainerID": view.container_id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "Pid": view.pid,
        "CanRemove": !view.running,
        "DetachKeys": view.config.detach_keys.clone().unwrap_or_default(),
        "OpenStdin": view.config.attach_stdin,
        "OpenStdout": view.config.attach_stdout,
        "OpenStderr": view.config.attach_stderr,
        "ProcessConfig": {
            "tty": view.config.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": view.config.privileged,
            "user": view.config.user,
        },
    })
}

async fn inspect(State(face): State<Face>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(into_wire(&face.engine.exec_inspect(&id).await?)))
}
