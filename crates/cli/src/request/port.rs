//! `-p [ip:][host[-range]:]container[-range][/protocol]` and `--expose port[-range][/protocol]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bollard_stubs::models::PortBinding;

use crate::failure::{Failure, Outcome};

/// What `-p` and `--expose` add up to.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) exposed: BTreeSet<String>,
    pub(super) bindings: BTreeMap<String, Vec<PortBinding>>,
}

impl Ports {
    pub(super) fn parse(publish: &[String], expose: &[String]) -> Outcome<Self> {
        let mut ports = Self::default();
        for text in publish {
            ports.publish(text)?;
        }
        for text in expose {
            if text.contains(':') {
                return Err(invalid("--expose", text, "it has no host part; publish a port with -p"));
            }
            let (range, protocol) = split_protocol("--expose", text)?;
            let (first, last) =
                parse_range(range).ok_or_else(|| invalid("--expose", text, "not a port from 1 to 65535"))?;
            ports.exposed.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        }
        Ok(ports)
    }

    fn publish(&mut self, text: &str) -> Outcome<()> {
        let wrong = |why: &str| invalid("-p", text, why);
        if text.contains('=') {
            return self.publish(&short_form(text)?);
        }
        let (address, protocol) = split_protocol("-p", text)?;
        let (ip, host, container) = split_address(address).ok_or_else(|| wrong("expected [ip:][host:]container"))?;
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            return Err(wrong(&format!("{ip:?} is not an IP address")));
        }
        let (first, last) = parse_range(container).ok_or_else(|| wrong("not a container port from 1 to 65535"))?;
        let host_range = match host {
            "" | "0" => None,
            host => Some(parse_range(host).ok_or_else(|| wrong("not a host port from 1 to 65535"))?),
        };
        if host_range.is_some_and(|(from, to)| first != last && to - from != last - first) {
            return Err(wrong("host and container ranges differ in length"));
        }
        for port in first..=last {
            let host_port = match host_range {
                None => String::new(),
                // One container port takes any free port of a host range.
                Some((from, to)) if first == last && from != to => format!("{from}-{to}"),
                Some((from, _)) => (from + (port - first)).to_string(),
            };
            let key = format!("{port}/{protocol}");
            self.exposed.insert(key.clone());
            let binding = PortBinding { host_ip: Some(ip.to_owned()), host_port: Some(host_port) };
            self.bindings.entry(key).or_default().push(binding);
        }
        Ok(())
    }
}

/// `target=80,published=8080,protocol=tcp,host_ip=127.0.0.1` as the short form says it. The mode is about clusters.
fn short_form(text: &str) -> Outcome<String> {
    let wrong = |why: String| invalid("-p", text, &why);
    let (mut target, mut published, mut protocol, mut ip) = ("", "", "tcp", "");
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(format!("{field:?} is not key=value")))?;
        match key {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "host_ip" => ip = value,
            "mode" if matches!(value, "host" | "ingress") => {}
            "mode" => return Err(wrong(format!("the mode is host or ingress, not {value:?}"))),
            _ => return Err(wrong(format!("unknown field {key:?}"))),
        }
    }
    let ip = match ip {
        "" => String::new(),
        ip if ip.contains(':') => format!("[{ip}]:"),
        ip => format!("{ip}:"),
    };
    Ok(format!("{ip}{published}:{target}/{protocol}"))
}

fn invalid(flag: &str, text: &str, why: &str) -> Failure {
    Failure::new(format!("invalid {flag} {text:?}: {why}")).hint("for example -p 8080:80, -p 127.0.0.1:53:53/udp")
}

fn split_protocol<'a>(flag: &str, text: &'a str) -> Outcome<(&'a str, String)> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((rest, protocol)),
        _ => Err(invalid(flag, text, "the protocol is tcp, udp or sctp")),
    }
}

/// ip, host part, container part; the ip may be bracketed.
fn split_address(text: &str) -> Option<(&str, &str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let (host, container) = rest.strip_prefix(':')?.split_once(':')?;
        return Some((ip, host, container));
    }
    let (front, container) = match text.rsplit_once(':') {
        None => return Some(("", "", text)),
        Some(parts) => parts,
    };
    match front.rsplit_once(':') {
        None => Some(("", front, container)),
        Some((ip, host)) => Some((ip, host, container)),
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((first, last)) => port(first).zip(port(last)).filter(|(first, last)| first <= last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(publish: &str) -> Result<String, String> {
        let ports = Ports::parse(&[publish.to_owned()], &[]).map_err(|failure| failure.message)?;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let lines = ports.bindings.iter().flat_map(|(port, bindings)| {
            bindings.iter().map(move |b| format!("{}|{}|{port}", text(&b.host_ip), text(&b.host_port)))
        });
        Ok(lines.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn publish() {
        for (text, expect) in [
            ("80", "||80/tcp"),
            ("8080:80", "|8080|80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1|53|53/udp"),
            ("127.0.0.1::80", "127.0.0.1||80/tcp"),
            ("[::1]:8080:80", "::1|8080|80/tcp"),
            ("::1:8080:80", "::1|8080|80/tcp"),
            ("8000-8002:80-82", "|8000|80/tcp |8001|81/tcp |8002|82/tcp"),
            ("8000-8010:80", "|8000-8010|80/tcp"),
            ("7-8/SCTP", "||7/sctp ||8/sctp"),
            ("127.0.0.1:0:80", "127.0.0.1||80/tcp"),
            ("target=80,published=8080,mode=host", "|8080|80/tcp"),
            ("target=53,protocol=udp,host_ip=::1", "::1||53/udp"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expect), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, why) in [
            ("", "not a container port from 1 to 65535"),
            ("80:0", "not a container port from 1 to 65535"),
            ("65536:80", "not a host port from 1 to 65535"),
            ("80:70000", "not a container port from 1 to 65535"),
            ("82-80", "not a container port from 1 to 65535"),
            ("1-2:1-3", "host and container ranges differ in length"),
            ("80/icmp", "the protocol is tcp, udp or sctp"),
            ("host:80:80", "\"host\" is not an IP address"),
            ("target=80,publish=1", "unknown field \"publish\""),
            ("[::1:80", "expected [ip:][host:]container"),
        ] {
            assert_eq!(shown(text), Err(format!("invalid -p {text:?}: {why}")), "{text}");
        }
    }

    #[test]
    fn expose() {
        let ports = Ports::parse(&[], &["80-81/udp".to_owned(), "7".to_owned()]).unwrap();
        assert_eq!(ports.exposed.iter().map(String::as_str).collect::<Vec<_>>(), ["7/tcp", "80/udp", "81/udp"]);
        assert!(Ports::parse(&[], &["1:2".to_owned()]).is_err());
    }
}
