//! `GET /version`

use axum::Json;
use axum::extract::State;
use berth_types::architecture;
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
                "Arch": architecture::normalized(&info.architecture).0,
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
        "Arch": architecture::normalized(&info.architecture).0,
        "KernelVersion": info.kernel_version,
        "BuildTime": options.build_time,
    })))
}
