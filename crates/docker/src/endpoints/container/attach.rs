//! `POST /containers/{id}/attach`: the client's stream goes to the shim, so it survives the daemon.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use berth_engine::api::{AttachRequest, ContainerView};
use http::Request;
use serde::Deserialize;

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::hijack::{self, Hijacked};
use crate::state::{Face, PendingAttach};

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    logs: Option<String>,
    stream: Option<String>,
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    #[serde(rename = "detachKeys")]
    detach_keys: Option<String>,
}

impl Params {
    fn into_request(self) -> AttachRequest {
        AttachRequest {
            stdin: is_true(self.stdin.as_deref()),
            stdout: is_true(self.stdout.as_deref()),
            stderr: is_true(self.stderr.as_deref()),
            logs: is_true(self.logs.as_deref()),
            stream: is_true(self.stream.as_deref()),
            detach_keys: self.detach_keys.filter(|keys| !keys.is_empty()),
            early_input: Vec::new(),
        }
    }
}

pub(super) async fn attach(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    mut request: Request<Body>,
) -> ApiResult<Response> {
    hijack::require_upgrade(request.headers())?;
    let view = face.engine.inspect(&id, false).await?;
    let pending = face.pending().begin(&view.id);
    let upgrade = hyper::upgrade::on(&mut request);
    let content_type = if view.config.tty { hijack::RAW_STREAM } else { hijack::MULTIPLEXED_STREAM };
    let wanted = params.into_request();
    tokio::spawn(async move {
        if let Some(hijacked) = hijack::take(upgrade).await {
            hand_over(face, view, hijacked, wanted, pending).await;
        }
    });
    Ok(hijack::switching_protocols(content_type))
}

async fn hand_over(
    face: Face,
    view: ContainerView,
    client: Hijacked,
    mut wanted: AttachRequest,
    pending: PendingAttach,
) {
    wanted.early_input = client.early_input;
    let spare = client.stream.try_clone();
    let attached = face.engine.attach(view.id.as_str(), client.stream, wanted).await;
    drop(pending);
    if let (Err(error), Ok(spare)) = (attached, spare) {
        hijack::tell(spare, view.config.tty, &error.message);
    }
}
