//! `GET /version`

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::state::Face;
use crate::{API_VERSION, API_VERSION_MIN};

pub(super) async fn version(State(face): State<Face>) -> ApiResult<Json<Value>> {
    let info = face.engine.info().await?;
    let options = &face.options;
    Ok(Json(json!({
        "Platform": { "Name": "Berth" },
        "Components": [{
            "Name": "Engine",
            "Version": options.version,
            "Details": {
                "ApiVersion": API_VERSION,
                "MinAPIVersion": API_VERSION_MIN,
                "Arch": go_arch(&info.architecture),
                "BuildTime": options.build_time,
                "Experimental": "false",
                "GitCommit": options.git_commit,
                "KernelVersion": info.kernel_version,
                "Os": "linux",
            },
        }],
        "Version": options.version,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": API_VERSION_MIN,
        "GitCommit": options.git_commit,
        "GoVersion": "",
        "Os": "linux",
        "Arch": go_arch(&info.architecture),
        "KernelVersion": info.kernel_version,
        "BuildTime": options.build_time,
    })))
}

fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
