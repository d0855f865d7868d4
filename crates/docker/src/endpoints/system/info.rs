//! `GET /info`

use axum::Json;
use axum::extract::State;
use berth_types::Timestamp;
use serde_json::{Map, Value, json};

use crate::error::ApiResult;
use crate::state::Face;

pub(super) async fn info(State(face): State<Face>) -> ApiResult<Json<Value>> {
    let info = face.engine.info().await?;
    let runtimes: Map<String, Value> =
        info.runtimes.into_iter().map(|(name, path)| (name, json!({ "path": path }))).collect();
    let pairs: Vec<[&str; 2]> = info.storage_status.iter().map(|(k, v)| [k.as_str(), v.as_str()]).collect();
    Ok(Json(json!({
        "ID": info.id,
        "Name": info.name,
        "ServerVersion": face.options.version,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": info.storage_driver,
        "DriverStatus": pairs,
        "DockerRootDir": info.data_root,
        "Plugins": { "Volume": [], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "none"] },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "OomKillDisable": info.cgroup_version == "1",
        "Debug": false,
        "NFd": -1,
        "NGoroutines": -1,
        "SystemTime": Timestamp::now(),
        "LoggingDriver": "json-file",
        "CgroupDriver": info.cgroup_driver,
        "CgroupVersion": info.cgroup_version,
        "NEventsListener": 0,
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": info.architecture,
        "NCPU": info.cpus,
        "MemTotal": info.memory_bytes,
        "IndexServerAddress": "",
        "RegistryConfig": null,
        "GenericResources": null,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "Runtimes": runtimes,
        "DefaultRuntime": info.default_runtime,
        "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "berth-init",
        "SecurityOptions": info.security_options,
        "Warnings": info.warnings,
        "Berth": { "Features": info.features },
    })))
}
