//! Network namespaces: making one, and working in another than our own.
//!
//! A namespace belongs to a thread, so both happen on threads made for the purpose; no thread of the caller ever
//! changes its namespace. A new namespace lives as long as its descriptor, a process or a socket in it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::NetworkError;
use crate::link;
use crate::netlink::{Family, Socket};
use crate::sysctl;

/// A fresh namespace with `lo` up, and a socket that speaks to it from anywhere.
#[derive(Debug)]
pub(crate) struct NewNamespace {
    pub(crate) fd: OwnedFd,
    pub(crate) route: Socket,
}

/// What IPv6 is to be in a new namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// Only `::1` on `lo`; interfaces that come later have none.
    LoopbackOnly,
    Enabled,
}

/// Moves the **calling thread** into a new namespace and prepares it.
pub(crate) fn enter_new(ipv6: Ipv6) -> Result<NewNamespace, NetworkError> {
    berth_sys::netlink::unshare_network()
        .map_err(|source| NetworkError::Namespace { action: "make a network namespace", source })?;
    let fd = current()?;
    set_defaults(ipv6)?;
    let mut route = Socket::open(Family::Route)?;
    link::set_loopback_up(&mut route)?;
    Ok(NewNamespace { fd, route })
}

/// Brings `lo` up in the calling thread's namespace (a test run's own, made by somebody else).
///
/// # Errors
/// The kernel's, naming the link.
pub fn loopback_up() -> Result<(), NetworkError> {
    link::set_loopback_up(&mut Socket::open(Family::Route)?)
}

/// The namespace of the calling thread.
pub(crate) fn current() -> Result<OwnedFd, NetworkError> {
    open(Path::new("/proc/thread-self/ns/net"))
        .map_err(|source| NetworkError::Namespace { action: "open the network namespace of this thread", source })
}

pub(crate) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Moves the **calling thread**.
pub(crate) fn enter(namespace: &OwnedFd) -> Result<(), NetworkError> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|source| NetworkError::Namespace { action: "enter a network namespace", source })
}

/// Runs `work` on a short-lived thread, which may change its namespace.
pub(crate) fn on_own_thread<T: Send>(
    purpose: &'static str,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("berth-netns".to_owned())
            .stack_size(256 << 10)
            .spawn_scoped(scope, work)
            .map_err(|source| NetworkError::Thread { purpose, source })?;
        thread.join().unwrap_or(Err(NetworkError::Namespace { action: purpose, source: Errno::CANCELED }))
    })
}

/// Settings that interfaces of this namespace inherit, and the two that let unprivileged programs ping and serve low
/// ports, which is safe here because the namespace has nobody else's ports (other engines do the same).
fn set_defaults(ipv6: Ipv6) -> Result<(), NetworkError> {
    let net = Path::new("/proc/sys/net");
    sysctl::write(&net.join("ipv4/ip_unprivileged_port_start"), "0")?;
    sysctl::write(&net.join("ipv4/ping_group_range"), "0 2147483647")?;
    if sysctl::has_ipv6() {
        let default = net.join("ipv6/conf/default");
        // A neighbour that sends router advertisements must not become the router (CVE-2020-13401).
        sysctl::write(&default.join("accept_ra"), "0")?;
        if ipv6 == Ipv6::LoopbackOnly {
            sysctl::write(&default.join("disable_ipv6"), "1")?;
        }
    }
    Ok(())
}

/// The namespace the bridge lives in.
#[derive(Debug)]
pub(crate) enum HostNamespace {
    /// The one of the process.
    Own,
    Other(OwnedFd),
}

impl HostNamespace {
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, NetworkError> {
        path.map_or(Ok(Self::Own), |path| {
            open(path)
                .map(Self::Other)
                .map_err(|source| NetworkError::Namespace { action: "open the host's network namespace", source })
        })
    }

    /// Runs `work` in it: in place, or on a thread that went there.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, NetworkError> + Send,
    ) -> Result<T, NetworkError> {
        match self {
            Self::Own => work(),
            Self::Other(namespace) => on_own_thread("work in the host's network namespace", || {
                enter(namespace)?;
                work()
            }),
        }
    }
}
