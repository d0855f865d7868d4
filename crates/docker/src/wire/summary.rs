//! One row of `GET /containers/json`, with the status line people read.

use std::collections::BTreeMap;

use berth_engine::api::{ContainerView, Status};
use berth_types::{ContainerId, Digest, Timestamp};
use serde::Serialize;

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

/// A port of the list: published ones with the host's address and number.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port<'a> {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    r#type: &'a str,
}

impl<'a> Port<'a> {
    /// `port` is `80/tcp`.
    fn new(port: &'a str, published: Option<(&'a str, u16)>) -> Self {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        Self {
            ip: published.map(|(ip, _)| ip),
            private_port: number.parse().unwrap_or(0),
            public_port: published.map(|(_, port)| port),
            r#type: protocol,
        }
    }
}

fn ports(view: &ContainerView) -> Vec<Port<'_>> {
    let published = &view.network.ports;
    let of_one = published
        .iter()
        .flat_map(|(port, bindings)| bindings.iter().map(|(ip, public)| Port::new(port, Some((ip, *public)))));
    let only_exposed = view.config.exposed_ports.iter().filter(|p| view.pid != 0 && !published.contains_key(*p));
    of_one.chain(only_exposed.map(|port| Port::new(port, None))).collect()
}

fn command(view: &ContainerView) -> String {
    let mut words = vec![view.path.as_str()];
    words.extend(view.args.iter().map(String::as_str));
    words.join(" ")
}

/// One container of the list. Written straight from the view: a list of thousands is no tree of values first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary<'a> {
    id: &'a ContainerId,
    names: [String; 1],
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a Digest,
    command: String,
    created: i64,
    ports: Vec<Port<'a>>,
    labels: &'a BTreeMap<String, String>,
    state: &'static str,
    status: String,
    host_config: HostConfig<'a>,
    network_settings: NetworkSettings<'a>,
    mounts: Vec<inspect::Mount<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig<'a> {
    network_mode: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings<'a> {
    networks: BTreeMap<&'a str, inspect::Endpoint<'a>>,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(view: &'a ContainerView, now: Timestamp) -> Self {
        Self {
            id: &view.id,
            names: [format!("/{}", view.name)],
            image: &view.image_name,
            image_id: &view.image_id,
            command: command(view),
            created: view.created.unix_seconds(),
            ports: ports(view),
            labels: &view.config.labels,
            state: inspect::status_text(view.status),
            status: status_line(view, now),
            host_config: HostConfig { network_mode: &view.host_config.network_mode },
            network_settings: NetworkSettings { networks: inspect::networks(&view.network) },
            mounts: view.mounts.iter().map(inspect::Mount::new).collect(),
            size_rw: view.size_rw,
            size_root_fs: view.size_rootfs,
        }
    }
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
