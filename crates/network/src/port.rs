//! Published ports: who has which, and the sockets that keep them ours.
//!
//! The packets of a published port never meet a socket: nftables rewrites them. So nothing would stop a process of the
//! host from taking the same port, and then from wondering why nobody calls. Each published port is therefore held by a
//! bound socket that neither listens nor reads; binding it is also how we learn that somebody was there first.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error::NetworkError;
use crate::port_holder;
use crate::sysctl;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl Protocol {
    /// As in the header of IP.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// One published port in force (ranges are expanded by the caller).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    /// None: every address. `0.0.0.0` and `::`: every address of that family.
    pub host_ip: Option<IpAddr>,
    /// 0: pick a free one.
    pub host_port: u16,
    pub container_port: u16,
}

impl PortMapping {
    /// The host addresses this mapping listens on; unspecified ones mean every address of their family.
    pub(crate) fn host_addresses(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        let (first, second) = match self.host_ip {
            Some(address) => (address, None),
            None => (Ipv4Addr::UNSPECIFIED.into(), ipv6.then_some(Ipv6Addr::UNSPECIFIED.into())),
        };
        std::iter::once(first).chain(second)
    }
}

/// A port of one host address in use by a container.
#[derive(Debug)]
struct Claim {
    host: IpAddr,
    owner: String,
    /// `None` after a restart of the daemon during which a process of the host took the port.
    _socket: Option<Holder>,
}

/// A socket that keeps a port.
///
/// A program that the daemon is just starting has a copy of it from fork to exec, and keeps the port for that moment
/// after we let go. With address reuse switched on at the end, the copy stands in nobody's way who asks for reuse.
#[derive(Debug)]
struct Holder(OwnedFd);

impl Drop for Holder {
    fn drop(&mut self) {
        // Where it fails, the port is merely busy a little longer.
        sockopt::set_socket_reuseaddr(&self.0, true).unwrap_or(());
    }
}

/// How long a copy of a socket may outlive it.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct PortTable {
    claims: BTreeMap<(Protocol, u16), Vec<Claim>>,
    next_free: u16,
    /// UDP ports we have let go a moment ago.
    recent: Vec<(u16, Instant)>,
}

impl PortTable {
    /// Reserves all of them, or none. Returns them with the picked ports filled in. Call it on a thread of the host's
    /// network namespace.
    pub(crate) fn reserve(
        &mut self,
        owner: &str,
        ports: &[PortMapping],
        ipv6: bool,
    ) -> Result<Vec<PortMapping>, NetworkError> {
        let mut reserved = Vec::with_capacity(ports.len());
        for mapping in ports {
            match self.reserve_one(owner, mapping, ipv6) {
                Ok(mapping) => reserved.push(mapping),
                Err(error) => {
                    self.release(owner);
                    return Err(name_holder(error, mapping));
                }
            }
        }
        Ok(reserved)
    }

    /// Takes back what a container had before a restart, also where the socket cannot be bound any more: its packets
    /// are rewritten all the same.
    pub(crate) fn restore(&mut self, owner: &str, ports: &[PortMapping], ipv6: bool) -> Result<(), NetworkError> {
        for mapping in ports {
            if let Err(error) = self.check(mapping, ipv6) {
                self.release(owner);
                return Err(error);
            }
            for host in mapping.host_addresses(ipv6) {
                let socket = self.hold(mapping.protocol, host, mapping.host_port).ok();
                self.claim(mapping.protocol, mapping.host_port, host, owner, socket);
            }
        }
        Ok(())
    }

    pub(crate) fn release(&mut self, owner: &str) {
        let now = Instant::now();
        self.recent.retain(|(_, released)| now.duration_since(*released) < LINGER);
        let recent = &mut self.recent;
        self.claims.retain(|(protocol, port), claims| {
            let before = claims.len();
            claims.retain(|claim| claim.owner != owner);
            if *protocol == Protocol::Udp && claims.len() < before {
                recent.push((*port, now));
            }
            !claims.is_empty()
        });
    }

    fn is_recent(&self, protocol: Protocol, port: u16) -> bool {
        protocol == Protocol::Udp
            && self.recent.iter().any(|(released, when)| *released == port && when.elapsed() < LINGER)
    }

    fn reserve_one(&mut self, owner: &str, asked: &PortMapping, ipv6: bool) -> Result<PortMapping, NetworkError> {
        match asked.host_ip {
            Some(IpAddr::V6(address)) if address.is_loopback() => return Err(NetworkError::Loopback6),
            Some(address @ IpAddr::V6(_)) if !ipv6 => return Err(NetworkError::NoIpv6 { address }),
            _ => {}
        }
        if asked.host_port == 0 {
            return self.reserve_free(owner, asked, ipv6);
        }
        self.check(asked, ipv6)?;
        let mut sockets = Vec::new();
        for host in asked.host_addresses(ipv6) {
            sockets.push((host, self.hold(asked.protocol, host, asked.host_port)?));
        }
        for (host, socket) in sockets {
            self.claim(asked.protocol, asked.host_port, host, owner, Some(socket));
        }
        Ok(asked.clone())
    }

    /// Goes on from the last port picked, so that one just freed is not handed out again at once.
    fn reserve_free(&mut self, owner: &str, asked: &PortMapping, ipv6: bool) -> Result<PortMapping, NetworkError> {
        let (first, last) = local_port_range();
        let start = self.next_free.clamp(first, last);
        for port in (start..=last).chain(first..start) {
            match self.reserve_one(owner, &PortMapping { host_port: port, ..asked.clone() }, ipv6) {
                Err(NetworkError::PortPublished { .. } | NetworkError::PortBusy { .. }) => {}
                Err(error) => return Err(error),
                Ok(mapping) => {
                    self.next_free = port.checked_add(1).unwrap_or(first);
                    return Ok(mapping);
                }
            }
        }
        Err(NetworkError::PortsExhausted { protocol: asked.protocol, first, last })
    }

    fn check(&self, asked: &PortMapping, ipv6: bool) -> Result<(), NetworkError> {
        let Some(claims) = self.claims.get(&(asked.protocol, asked.host_port)) else { return Ok(()) };
        for host in asked.host_addresses(ipv6) {
            if let Some(claim) = claims.iter().find(|claim| clashes(claim.host, host)) {
                return Err(NetworkError::PortPublished {
                    host: host.to_string(),
                    port: asked.host_port,
                    protocol: asked.protocol,
                    owner: claim.owner.clone(),
                });
            }
        }
        Ok(())
    }

    /// Binds a socket that will never be listened on or read.
    fn hold(&self, protocol: Protocol, host: IpAddr, port: u16) -> Result<Holder, NetworkError> {
        // Connections of an earlier listener may linger in TIME_WAIT, and copies of a socket of ours until the program
        // that has them is executed. A live listener of TCP refuses address reuse, too; sockets of UDP would share the
        // port with us, so there it is tried only after ourselves.
        let may_linger = protocol == Protocol::Tcp || self.is_recent(protocol, port);
        bind(protocol, host, port, false)
            .or_else(|errno| {
                if errno == Errno::ADDRINUSE && may_linger { bind(protocol, host, port, true) } else { Err(errno) }
            })
            .map(Holder)
            .map_err(|source| {
                let host_text = host.to_string();
                match source {
                    Errno::ADDRINUSE => {
                        NetworkError::PortBusy { host: host_text, port, protocol, holder: None, source }
                    }
                    Errno::ADDRNOTAVAIL => NetworkError::HostAddress { address: host, source },
                    _ => NetworkError::PortReserve { host: host_text, port, protocol, source },
                }
            })
    }

    fn claim(&mut self, protocol: Protocol, port: u16, host: IpAddr, owner: &str, socket: Option<Holder>) {
        let claim = Claim { host, owner: owner.to_owned(), _socket: socket };
        self.claims.entry((protocol, port)).or_default().push(claim);
    }
}

/// Finds out who has the port: not earlier than here, because looking for a free one meets many that are taken.
fn name_holder(error: NetworkError, asked: &PortMapping) -> NetworkError {
    match error {
        NetworkError::PortBusy { host, port, protocol, source, .. } => {
            let address = asked.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let holder = port_holder::find(protocol, address, port);
            NetworkError::PortBusy { host, port, protocol, holder, source }
        }
        other => other,
    }
}

fn clashes(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// The kernel's range for automatic ports; containers get theirs from the same one, as with other engines.
fn local_port_range() -> (u16, u16) {
    let text = sysctl::read(Path::new("/proc/sys/net/ipv4/ip_local_port_range")).unwrap_or_default();
    let mut bounds = text.split_whitespace().map_while(|bound| bound.parse().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if 0 < first && first <= last => (first, last),
        _ => (32_768, 60_999),
    }
}

fn bind(protocol: Protocol, host: IpAddr, port: u16, reuse: bool) -> Result<OwnedFd, Errno> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if protocol == Protocol::Udp {
        // What arrives here by mistake is never read: let it cost as little memory as the kernel allows.
        sockopt::set_socket_recv_buffer_size(&socket, 1)?;
    }
    net::bind(&socket, &SocketAddr::new(host, port))?;
    if reuse {
        // From here on it is ours alone.
        sockopt::set_socket_reuseaddr(&socket, false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> PortMapping {
        PortMapping { protocol, host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port: 80 }
    }

    #[test]
    fn addresses_clash_when_one_covers_the_other() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(clashes(ip("0.0.0.0"), ip("127.0.0.1")));
        assert!(clashes(ip("127.0.0.1"), ip("127.0.0.1")));
        assert!(!clashes(ip("127.0.0.1"), ip("127.0.0.2")));
        assert!(!clashes(ip("::"), ip("127.0.0.1")), "the families are told apart");
    }

    // Each test has an address of its own: what one lets go another could take.
    #[test]
    fn a_free_port_is_held_until_it_is_released() {
        let mut table = PortTable::default();
        let asked = mapping(Protocol::Tcp, Some("127.0.0.21"), 0);
        let got = table.reserve("a", std::slice::from_ref(&asked), false).unwrap().remove(0);
        assert_ne!(got.host_port, 0);
        let taken = std::net::TcpListener::bind(("127.0.0.21", got.host_port)).unwrap_err();
        assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
        let refused = table.reserve("b", std::slice::from_ref(&got), false).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("port {}/tcp on 127.0.0.21 is already published by container a", got.host_port)
        );
        table.release("a");
        std::net::TcpListener::bind(("127.0.0.21", got.host_port)).unwrap();
    }

    /// A copy of the socket stands for a program between fork and exec.
    #[test]
    fn a_port_let_go_is_free_at_once() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut table = PortTable::default();
            let asked = mapping(protocol, Some("127.0.0.22"), 0);
            let got = table.reserve("a", std::slice::from_ref(&asked), false).unwrap().remove(0);
            let claims = &table.claims[&(protocol, got.host_port)];
            let copy = claims[0]._socket.as_ref().unwrap().0.try_clone().unwrap();
            table.release("a");
            table.reserve("b", std::slice::from_ref(&got), false).unwrap();
            if protocol == Protocol::Tcp {
                let taken = std::net::TcpListener::bind(("127.0.0.22", got.host_port)).unwrap_err();
                assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse, "and it is ours again");
            }
            drop(copy);
        }
    }

    #[test]
    fn a_process_of_the_host_keeps_its_port_and_nothing_stays_reserved() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (port, _tcp, _udp);
            if protocol == Protocol::Tcp {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                port = listener.local_addr().unwrap().port();
                _tcp = listener;
            } else {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                port = socket.local_addr().unwrap().port();
                _udp = socket;
            }
            let mut table = PortTable::default();
            let asked = [mapping(protocol, Some("127.0.0.1"), 0), mapping(protocol, Some("127.0.0.1"), port)];
            let refused = table.reserve("a", &asked, false).unwrap_err();
            let text = refused.to_string();
            assert!(text.starts_with(&format!("port {port}/{protocol} on 127.0.0.1 is in use by ")), "{text}");
            assert!(text.ends_with(&format!("(pid {})", std::process::id())), "{text}");
            assert!(table.claims.is_empty());
        }
    }

    #[test]
    fn refused_addresses() {
        let mut table = PortTable::default();
        let far = mapping(Protocol::Tcp, Some("192.0.2.1"), 0);
        let refused = table.reserve("a", &[far], false).unwrap_err();
        assert!(matches!(refused, NetworkError::HostAddress { .. }), "{refused}");
        let v6 = mapping(Protocol::Tcp, Some("2001:db8::1"), 0);
        let refused = table.reserve("a", &[v6], false).unwrap_err();
        assert!(matches!(refused, NetworkError::NoIpv6 { .. }), "{refused}");
        let loopback = mapping(Protocol::Tcp, Some("::1"), 0);
        let refused = table.reserve("a", &[loopback], true).unwrap_err();
        assert!(matches!(refused, NetworkError::Loopback6), "{refused}");
    }
}
