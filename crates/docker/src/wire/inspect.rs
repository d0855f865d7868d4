//! `GET /containers/{id}/json`.

use std::collections::BTreeMap;

use berth_engine::api::{ContainerView, MountView, NetworkView, Status};
use berth_types::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{create_body, host_config};

pub(crate) fn status_text(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        Status::Removing => "removing",
        Status::Exited => "exited",
        Status::Dead => "dead",
    }
}

pub(crate) fn time_text(time: Option<Timestamp>) -> String {
    time.map_or_else(|| Timestamp::NEVER_TEXT.to_owned(), |t| t.to_string())
}

fn state(view: &ContainerView) -> Value {
    json!({
        "Status": status_text(view.status),
        "Running": matches!(view.status, Status::Running | Status::Paused | Status::Restarting),
        "Paused": view.status == Status::Paused,
        "Restarting": view.status == Status::Restarting,
        "OOMKilled": view.oom_killed,
        "Dead": view.status == Status::Dead,
        "Pid": view.pid,
        "ExitCode": view.exit_code,
        "Error": view.error,
        "StartedAt": time_text(view.started_at),
        "FinishedAt": time_text(view.finished_at),
    })
}

/// A mount as `inspect` and `ps` show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Mount<'a> {
    r#type: &'a str,
    source: &'a str,
    destination: &'a str,
    mode: &'a str,
    #[serde(rename = "RW")]
    rw: bool,
    propagation: &'a str,
    /// These two of a volume only.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'static str>,
}

impl<'a> Mount<'a> {
    pub(crate) fn new(mount: &'a MountView) -> Self {
        let is_volume = mount.kind == "volume";
        Self {
            r#type: &mount.kind,
            source: &mount.source,
            destination: &mount.destination,
            mode: &mount.mode,
            rw: mount.writable,
            propagation: &mount.propagation,
            name: is_volume.then_some(mount.name.as_str()),
            driver: is_volume.then_some("local"),
        }
    }
}

fn ports(network: &NetworkView, exposed: &[String]) -> Value {
    let mut ports: Map<String, Value> = exposed.iter().map(|port| (port.clone(), Value::Null)).collect();
    for (port, bindings) in &network.ports {
        let bindings: Vec<Value> =
            bindings.iter().map(|(ip, port)| json!({ "HostIp": ip, "HostPort": port.to_string() })).collect();
        ports.insert(port.clone(), bindings.into());
    }
    ports.into()
}

/// The settings of one attached network, as `inspect` and `ps` show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Endpoint<'a> {
    #[serde(rename = "IPAMConfig")]
    ipam_config: (),
    links: (),
    aliases: (),
    mac_address: &'a str,
    driver_opts: (),
    gw_priority: u32,
    #[serde(rename = "NetworkID")]
    network_id: &'a str,
    #[serde(rename = "EndpointID")]
    endpoint_id: &'a str,
    gateway: &'a str,
    #[serde(rename = "IPAddress")]
    ip_address: &'a str,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: &'a str,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: &'a str,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: (),
}

impl<'a> Endpoint<'a> {
    pub(crate) fn new(network: &'a NetworkView) -> Self {
        Self {
            ipam_config: (),
            links: (),
            aliases: (),
            mac_address: &network.mac,
            driver_opts: (),
            gw_priority: 0,
            network_id: &network.network_id,
            endpoint_id: &network.endpoint_id,
            gateway: &network.gateway,
            ip_address: &network.ipv4,
            ip_prefix_len: network.ipv4_prefix,
            ipv6_gateway: &network.gateway_v6,
            global_ipv6_address: &network.ipv6,
            global_ipv6_prefix_len: network.ipv6_prefix,
            dns_names: (),
        }
    }
}

/// By name: one, or none for a container that shares another one's.
pub(crate) fn networks(network: &NetworkView) -> BTreeMap<&str, Endpoint<'_>> {
    let has_own = matches!(network.mode.as_str(), "bridge" | "host" | "none");
    has_own.then(|| (network.mode.as_str(), Endpoint::new(network))).into_iter().collect()
}

fn network_settings(view: &ContainerView) -> Value {
    let network = &view.network;
    json!({
        "Bridge": "",
        "SandboxID": network.endpoint_id,
        "SandboxKey": network.sandbox_key,
        "Ports": ports(network, if view.pid == 0 { &[] } else { &view.config.exposed_ports }),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": network.endpoint_id,
        "Gateway": network.gateway,
        "GlobalIPv6Address": network.ipv6,
        "GlobalIPv6PrefixLen": network.ipv6_prefix,
        "IPAddress": network.ipv4,
        "IPPrefixLen": network.ipv4_prefix,
        "IPv6Gateway": network.gateway_v6,
        "MacAddress": network.mac,
        "Networks": networks(network),
    })
}

fn graph_driver(view: &ContainerView) -> Value {
    let lowers: Vec<_> = view.lower_dirs.iter().map(|p| p.to_string_lossy()).collect();
    json!({
        "Name": view.driver,
        "Data": {
            "LowerDir": lowers.join(":"),
            "UpperDir": view.upper_dir,
            "WorkDir": view.work_dir,
            // The merged view exists only inside the container's mount namespace.
            "MergedDir": if view.pid == 0 { String::new() } else { format!("/proc/{}/root", view.pid) },
        },
    })
}

pub(crate) fn into_wire(view: &ContainerView) -> Value {
    let mut wire = json!({
        "Id": view.id,
        "Created": view.created,
        "Path": view.path,
        "Args": view.args,
        "State": state(view),
        "Image": view.image_id,
        "ResolvConfPath": view.resolv_conf_path,
        "HostnamePath": view.hostname_path,
        "HostsPath": view.hosts_path,
        "LogPath": view.log_path,
        "Name": format!("/{}", view.name),
        "RestartCount": view.restart_count,
        "Driver": view.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if view.exec_ids.is_empty() { Value::Null } else { json!(view.exec_ids) },
        "HostConfig": host_config::into_wire(&view.host_config),
        "GraphDriver": graph_driver(view),
        "Mounts": view.mounts.iter().map(Mount::new).collect::<Vec<_>>(),
        "Config": create_body::into_wire(&view.config),
        "NetworkSettings": network_settings(view),
    });
    if let Some(size) = view.size_rw {
        wire["SizeRw"] = json!(size);
    }
    if let Some(size) = view.size_rootfs {
        wire["SizeRootFs"] = json!(size);
    }
    if let Some(kernel) = &view.kernel {
        wire["Berth"] = json!({ "Namespaces": kernel.namespaces, "Cgroups": kernel.cgroups });
    }
    wire
}
