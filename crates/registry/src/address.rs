//! Hosts, ports, networks and URLs: small pure questions about them.

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;

/// The host without brackets.
pub(crate) fn host_of(uri: &Uri) -> String {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned()
}

pub(crate) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

/// The host of `host[:port]`, without brackets.
pub(crate) fn host_of_authority(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Same scheme, host and port: who may get what is meant for the other.
pub(crate) fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    a.scheme() == b.scheme() && host_of(a).eq_ignore_ascii_case(&host_of(b)) && port_of(a) == port_of(b)
}

/// Without query, which may hold a signature.
pub(crate) fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{}{port}{}", uri.host().unwrap_or_default(), uri.path())
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        let wide = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((network, width), (asked, asked_width)) = (wide(self.address), wide(ip));
        width == asked_width && (self.bits == 0 || (network ^ asked) >> (128 - self.bits) == 0)
    }
}

/// `address/bits`, or an address alone.
pub(crate) fn network(text: &str) -> Option<Network> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let address: IpAddr = address.parse().ok()?;
    let width = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
    let bits = bits.map_or(Some(width), |bits| bits.parse().ok())?;
    (bits <= width).then_some(Network { address, bits })
}

/// A `Location` seen from the URL that was asked (RFC 3986 section 5, without dot segments).
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let uri: Uri = text.parse().ok()?;
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && !has_user).then_some(uri)
}

/// The same URL with another query parameter.
pub(crate) fn with_query(uri: &Uri, name: &str, value: &str) -> Uri {
    let joint = if uri.query().is_some() { '&' } else { '?' };
    let text = format!("{uri}{joint}{name}={}", percent_encoded(value));
    text.parse().unwrap_or_else(|_| uri.clone())
}

pub(crate) fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    out
}

pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `host:port` for a socket, IPv6 in brackets.
pub(crate) fn joined(host: &str, port: u16) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let base: Uri = "http://127.0.0.1:5000/v2/a/blobs/uploads/".parse().unwrap();
        for (location, expect) in [
            ("/v2/x?a=b", Some("http://127.0.0.1:5000/v2/x?a=b")),
            ("https://cdn.example/x", Some("https://cdn.example/x")),
            ("//cdn.example/x", Some("http://cdn.example/x")),
            ("id?_state=1", Some("http://127.0.0.1:5000/v2/a/blobs/uploads/id?_state=1")),
            ("file:///etc/passwd", None),
            ("ftp://x/y", None),
            ("http://user:pw@x/y", None),
        ] {
            assert_eq!(resolve(&base, location).map(|u| u.to_string()).as_deref(), expect, "{location}");
        }
    }

    #[test]
    fn networks() {
        for (net, ip, expect) in [
            ("10.0.0.0/8", "10.255.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("::1", "::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
        ] {
            assert_eq!(network(net).unwrap().contains(ip.parse().unwrap()), expect, "{net} {ip}");
        }
        assert!(network("10.0.0.0/33").is_none() && network("host").is_none());
    }
}
