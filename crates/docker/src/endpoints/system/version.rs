//! `GET /version`

use axum::Json;
use axum::extract::State;
use berth_types::architecture;
use serde_json::{Value, json};

use crate::state::Face;
use crate::{API_VERSION, API_VERSION_MIN};

pub(super) async fn version(State(face): State<Face>) -> Json<Value> {
    let kernel_version = face.engine.kernel_version();
    let architecture = architecture::normalized(std::env::consts::ARCH).0;
    let options = &face.options;
    Json(json!({
        "Platform": { "Name": "Berth" },
        "Components": [{
            "Name": "Engine",
            "Version": options.version,
            "Details": {
                "ApiVersion": API_VERSION,
                "MinAPIVersion": API_VERSION_MIN,
                "Arch": architecture,
                "BuildTime": options.build_time,
                "Experimental": "false",
                "GitCommit": options.git_commit,
                "KernelVersion": kernel_version,
                "Os": "linux",
            },
        }],
        "Version": options.version,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": API_VERSION_MIN,
        "GitCommit": options.git_commit,
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": kernel_version,
        "BuildTime": options.build_time,
    }))
}
