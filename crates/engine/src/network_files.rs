//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container: contents are pure, writing is one call.

use std::net::IpAddr;

use berth_core::Bundle;
use berth_network::Endpoint;

use crate::config::HostConfig;
use crate::error::Result;
use crate::record::Record;
use crate::request::namespaces::{NetworkMode, NsMode};
use crate::request::process::extra_host;
use crate::spec::hostname;

/// Servers for a container whose host only has resolvers on its loopback, which the container cannot reach.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];
/// Longest host resolv.conf and hosts we copy.
const HOST_FILE_BYTES_MAX: u64 = 1 << 20;

/// Writes the three files into the bundle.
pub(crate) fn write(
    bundle: &Bundle,
    record: &Record,
    network: &NetworkMode,
    endpoint: Option<&Endpoint>,
) -> Result<()> {
    let is_host = matches!(network, NetworkMode::Joined(NsMode::Host));
    let host_hosts = if is_host { read_bounded("/etc/hosts") } else { String::new() };
    let has_loopback_of_host = is_host || matches!(network, NetworkMode::Joined(_));
    let resolv = resolv_conf(&read_bounded("/etc/resolv.conf"), &record.host, has_loopback_of_host);
    bundle.write("hostname", 0o644, format!("{}\n", hostname(record)).as_bytes())?;
    bundle.write("hosts", 0o644, hosts(record, &host_hosts, endpoint).as_bytes())?;
    bundle.write("resolv.conf", 0o644, resolv.as_bytes())?;
    Ok(())
}

fn read_bounded(path: &str) -> String {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(HOST_FILE_BYTES_MAX).read_to_end(&mut text));
    if file.is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn hosts(record: &Record, host_hosts: &str, endpoint: Option<&Endpoint>) -> String {
    let mut text = if host_hosts.is_empty() {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            .to_owned()
    } else {
        host_hosts.trim_end().to_owned() + "\n"
    };
    for entry in &record.host.extra_hosts {
        let Ok((name, address)) = extra_host(entry) else { continue };
        let gateway = endpoint.map(|e| e.gateway_v4.to_string());
        let address = match address {
            "host-gateway" => gateway.as_deref().unwrap_or("127.0.0.1"),
            address => address,
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    if let Some(endpoint) = endpoint {
        let name = hostname(record);
        let domain = &record.config.domainname;
        let names = if domain.is_empty() { name } else { format!("{name}.{domain}\t{name}") };
        text.push_str(&format!("{}\t{names}\n", endpoint.ipv4));
        if let Some((ipv6, _, _)) = &endpoint.ipv6 {
            text.push_str(&format!("{ipv6}\t{names}\n"));
        }
    }
    text
}

/// The host's file with the client's wishes in place of its lines; loopback servers only where the host's loopback is seen.
fn resolv_conf(host_file: &str, asked: &HostConfig, has_loopback_of_host: bool) -> String {
    let mut servers: Vec<String> = asked.dns.clone();
    let mut search = asked.dns_search.join(" ");
    let mut options = asked.dns_options.join(" ");
    for line in host_file.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default().trim();
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match key {
            "nameserver" if asked.dns.is_empty() => {
                let bare = value.trim().split('%').next().unwrap_or_default();
                let is_usable = bare.parse::<IpAddr>().is_ok_and(|ip| has_loopback_of_host || !ip.is_loopback());
                if is_usable {
                    servers.push(value.trim().to_owned());
                }
            }
            "search" | "domain" if asked.dns_search.is_empty() => value.trim().clone_into(&mut search),
            "options" if asked.dns_options.is_empty() => value.trim().clone_into(&mut options),
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.extend(FALLBACK_SERVERS.map(str::to_owned));
    }
    let mut text = String::new();
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !search.is_empty() && search != "." {
        text.push_str(&format!("search {search}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {options}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_rules() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a.example\noptions edns0\n";
        let none = HostConfig::default();
        assert_eq!(resolv_conf(host, &none, false), "nameserver 192.0.2.1\nsearch a.example\noptions edns0\n");
        assert!(resolv_conf(host, &none, true).starts_with("nameserver 127.0.0.53\n"));
        assert_eq!(resolv_conf("", &none, false), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let asked = HostConfig {
            dns: vec!["192.0.2.9".into()],
            dns_search: vec![".".into()],
            dns_options: vec!["ndots:1".into()],
            ..HostConfig::default()
        };
        assert_eq!(resolv_conf(host, &asked, false), "nameserver 192.0.2.9\noptions ndots:1\n");
    }
}
