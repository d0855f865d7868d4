//! One row of `GET /containers/json`, with the status line people read.

use berth_engine::api::{ContainerView, Status};
use berth_types::Timestamp;
use serde_json::{Value, json};

use super::inspect;

/// A span of time in the words of `docker ps` ("About a minute", "3 hours").
pub(crate) fn human_duration(seconds: i64) -> String {
    let hours = (seconds + 1800) / 3600;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    human_duration(time.map_or(0, |t| (now.0 - t.0) / 1_000_000_000))
}

/// `Up 3 minutes (Paused)`, `Exited (0) 2 hours ago`, `Created`.
pub(crate) fn status_line(view: &ContainerView, now: Timestamp) -> String {
    match view.status {
        Status::Running => format!("Up {}", since(view.started_at, now)),
        Status::Paused => format!("Up {} (Paused)", since(view.started_at, now)),
        Status::Restarting => format!("Restarting ({}) {} ago", view.exit_code, since(view.finished_at, now)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", view.exit_code, since(view.finished_at, now)),
    }
}

fn ports(view: &ContainerView) -> Vec<Value> {
    let mut ports = Vec::new();
    let split = |port: &str| -> (u16, String) {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        (number.parse().unwrap_or(0), protocol.to_owned())
    };
    for (port, bindings) in &view.network.ports {
        let (private, protocol) = split(port);
        for (ip, public) in bindings {
            ports.push(json!({ "IP": ip, "PrivatePort": private, "PublicPort": public, "Type": protocol }));
        }
    }
    for port in view.config.exposed_ports.iter().filter(|p| view.pid != 0 && !view.network.ports.contains_key(*p)) {
        let (private, protocol) = split(port);
        ports.push(json!({ "PrivatePort": private, "Type": protocol }));
    }
    ports
}

fn command(view: &ContainerView) -> String {
    let mut words = vec![view.path.as_str()];
    words.extend(view.args.iter().map(String::as_str));
    words.join(" ")
}

pub(crate) fn into_wire(view: &ContainerView, now: Timestamp) -> Value {
    let mut wire = json!({
        "Id": view.id,
        "Names": [format!("/{}", view.name)],
        "Image": view.image_name,
        "ImageID": view.image_id,
        "Command": command(view),
        "Created": view.created.unix_seconds(),
        "Ports": ports(view),
        "Labels": view.config.labels,
        "State": inspect::status_text(view.status),
        "Status": status_line(view, now),
        "HostConfig": { "NetworkMode": view.host_config.network_mode },
        "NetworkSettings": { "Networks": inspect::networks(&view.network) },
        "Mounts": view.mounts.iter().map(inspect::mount).collect::<Vec<_>>(),
    });
    if let Some(size) = view.size_rw {
        wire["SizeRw"] = json!(size);
    }
    if let Some(size) = view.size_rootfs {
        wire["SizeRootFs"] = json!(size);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_docker_writes_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 20, "2 weeks"),
            (86400 * 90, "3 months"),
            (86400 * 900, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
