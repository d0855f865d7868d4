//! `POST /containers/create`: the body, and the container config both ways.

use std::collections::BTreeMap;

use berth_engine::config::{ContainerConfig, HostConfig};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::host_config::WireHostConfig;
use super::tolerant::{OneOrMany, is_default, parse, refuse_unknown};
use crate::error::{ApiError, ApiResult};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireCreateBody {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    exposed_ports: BTreeMap<String, Value>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Option<OneOrMany>,
    image: String,
    volumes: BTreeMap<String, Value>,
    working_dir: String,
    entrypoint: Option<OneOrMany>,
    network_disabled: bool,
    labels: BTreeMap<String, String>,
    stop_signal: String,
    stop_timeout: Option<i64>,
    host_config: WireHostConfig,
    networking_config: WireNetworkingConfig,
    /// Ours: record the spans of the start.
    berth_trace: bool,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireNetworkingConfig {
    endpoints_config: BTreeMap<String, Map<String, Value>>,
}

/// # Errors
/// `InvalidArgument` for a malformed body, `Unimplemented` naming what we cannot honour.
pub(crate) fn from_wire(body: &[u8]) -> ApiResult<(ContainerConfig, HostConfig)> {
    let wire: WireCreateBody = parse("container create", body)?;
    refuse_health_check(&wire.other)?;
    refuse_unknown("Config", &wire.other, &["OnBuild", "ArgsEscaped", "Shell", "Healthcheck"])?;
    refuse_endpoint_settings(&wire.networking_config, &wire.host_config.network_mode)?;
    let host = wire.host_config.into_engine()?;
    let config = ContainerConfig {
        image: wire.image,
        hostname: wire.hostname,
        domainname: wire.domainname,
        user: wire.user,
        env: wire.env,
        cmd: wire.cmd.map(Vec::from),
        entrypoint: wire.entrypoint.map(Vec::from),
        working_dir: wire.working_dir,
        labels: wire.labels,
        exposed_ports: wire.exposed_ports.into_keys().collect(),
        volumes: wire.volumes.into_keys().collect(),
        tty: wire.tty,
        open_stdin: wire.open_stdin,
        stdin_once: wire.stdin_once,
        attach_stdin: wire.attach_stdin,
        attach_stdout: wire.attach_stdout,
        attach_stderr: wire.attach_stderr,
        stop_signal: wire.stop_signal,
        stop_timeout_seconds: wire.stop_timeout,
        network_disabled: wire.network_disabled,
        trace: wire.berth_trace,
    };
    Ok((config, host))
}

/// `--no-healthcheck` asks for what is the case: none is run.
fn refuse_health_check(other: &Map<String, Value>) -> ApiResult<()> {
    match other.get("Healthcheck") {
        Some(check) if !is_default(check) && check["Test"] != json!(["NONE"]) => {
            Err(ApiError::unimplemented("Config.Healthcheck"))
        }
        _ => Ok(()),
    }
}

/// The CLI names the network twice; a plain repetition asks for nothing, anything more we cannot do yet.
fn refuse_endpoint_settings(networking: &WireNetworkingConfig, mode: &str) -> ApiResult<()> {
    for (network, settings) in &networking.endpoints_config {
        if !matches!(network.as_str(), "default" | "bridge" | "host" | "none") && network != mode {
            return Err(ApiError::unimplemented(&format!("network {network:?}: user-defined networks")));
        }
        refuse_unknown(&format!("NetworkingConfig.EndpointsConfig.{network}"), settings, &[])?;
    }
    Ok(())
}

/// Docker's `Config` of `inspect`.
pub(crate) fn into_wire(config: &ContainerConfig) -> Value {
    let set = |names: &[String]| -> Value {
        names.iter().map(|name| (name.clone(), json!({}))).collect::<Map<String, Value>>().into()
    };
    let mut wire = json!({
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": config.env,
        "Cmd": config.cmd,
        "Image": config.image,
        "Volumes": if config.volumes.is_empty() { Value::Null } else { set(&config.volumes) },
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
    });
    if !config.exposed_ports.is_empty() {
        wire["ExposedPorts"] = set(&config.exposed_ports);
    }
    for (name, value) in
        [("StopSignal", json!(config.stop_signal)), ("NetworkDisabled", json!(config.network_disabled))]
    {
        if !is_default(&value) {
            wire[name] = value;
        }
    }
    if let Some(seconds) = config.stop_timeout_seconds {
        wire["StopTimeout"] = json!(seconds);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_stock_client_sends() {
        let body = json!({
            "Hostname": "", "Cmd": ["true"], "Image": "busybox", "Entrypoint": null, "OnBuild": null, "Volumes": {},
            "ExposedPorts": {"80/tcp": {}}, "Labels": {},
            "HostConfig": {"Binds": null, "ContainerIDFile": "/tmp/x", "LogConfig": {"Type": "", "Config": {}},
                "NetworkMode": "default", "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "ConsoleSize": [24, 80],
                "Isolation": "", "MaskedPaths": null, "OomKillDisable": false, "PidsLimit": 0, "MemorySwappiness": -1},
            "NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": null, "MacAddress": ""}}}
        });
        let (config, host) = from_wire(body.to_string().as_bytes()).unwrap();
        assert_eq!(config.cmd, Some(vec!["true".to_owned()]));
        assert_eq!(config.entrypoint, None);
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(into_wire(&config)["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(host.network_mode, "default");
        assert_eq!(host.resources.memory_swappiness, None);
        from_wire(json!({"Healthcheck": {"Test": ["NONE"]}}).to_string().as_bytes()).unwrap();
    }

    #[test]
    fn what_we_cannot_do_is_refused_by_name() {
        for (body, name) in [
            (json!({"Healthcheck": {"Test": ["CMD", "x"]}}), "Config.Healthcheck"),
            (json!({"HostConfig": {"Links": ["x:y"]}}), "HostConfig.Links"),
            (json!({"HostConfig": {"DeviceRequests": [{"Count": -1}]}}), "HostConfig.DeviceRequests"),
            (json!({"NetworkingConfig": {"EndpointsConfig": {"mine": {}}}}), "user-defined networks"),
            (json!({"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"]}}}}), "Aliases"),
        ] {
            let error = from_wire(body.to_string().as_bytes()).unwrap_err();
            assert!(error.message().contains(name), "{}", error.message());
        }
    }
}
