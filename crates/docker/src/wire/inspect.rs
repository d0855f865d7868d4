//! `GET /containers/{id}/json`.

use berth_engine::api::{ContainerView, MountView, NetworkView, Status};
use berth_types::Timestamp;
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

pub(crate) fn mount(mount: &MountView) -> Value {
    let mut wire = json!({
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.destination,
        "Mode": mount.mode,
        "RW": mount.writable,
        "Propagation": mount.propagation,
    });
    if mount.kind == "volume" {
        wire["Name"] = json!(mount.name);
        wire["Driver"] = json!("local");
    }
    wire
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
pub(crate) fn endpoint(network: &NetworkView) -> Value {
    json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": null,
        "MacAddress": network.mac,
        "DriverOpts": null,
        "GwPriority": 0,
        "NetworkID": network.network_id,
        "EndpointID": network.endpoint_id,
        "Gateway": network.gateway,
        "IPAddress": network.ipv4,
        "IPPrefixLen": network.ipv4_prefix,
        "IPv6Gateway": network.gateway_v6,
        "GlobalIPv6Address": network.ipv6,
        "GlobalIPv6PrefixLen": network.ipv6_prefix,
        "DNSNames": null,
    })
}

pub(crate) fn networks(network: &NetworkView) -> Value {
    let mut networks = Map::new();
    if matches!(network.mode.as_str(), "bridge" | "host" | "none") {
        networks.insert(network.mode.clone(), endpoint(network));
    }
    networks.into()
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
        "Mounts": view.mounts.iter().map(mount).collect::<Vec<_>>(),
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
