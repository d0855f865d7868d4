//! What can go wrong, with the object it went wrong on.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use berth_types::{Classify, ErrorClass};
use rustix::io::Errno;

use crate::port::Protocol;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    #[error("invalid {what} {value:?}: {reason}")]
    Invalid { what: &'static str, value: String, reason: &'static str },
    /// A netlink request was refused.
    #[error("cannot {action} {object}{}", kernel_text(.message.as_deref()))]
    Kernel { action: &'static str, object: String, message: Option<String>, source: Errno },
    #[error("cannot set {}", .path.display())]
    Sysctl { path: PathBuf, source: std::io::Error },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A step of making or entering a network namespace.
    #[error("cannot {action}")]
    Namespace { action: &'static str, source: Errno },
    #[error("cannot start a thread that {purpose}")]
    Thread { purpose: &'static str, source: std::io::Error },
    #[error("interface {name} exists and is not a bridge of ours")]
    ForeignBridge { name: String },
    #[error("subnet {subnet} is already routed by {interface}")]
    SubnetTaken { subnet: String, interface: String },
    #[error("no free address left in {subnet}, all {in_use} are in use")]
    AddressesExhausted { subnet: String, in_use: usize },
    #[error("address {address} {}", owner_text(.owner.as_deref()))]
    AddressTaken { address: Ipv4Addr, owner: Option<String> },
    #[error("address {address} is not in the subnet {subnet}")]
    AddressOutside { address: Ipv4Addr, subnet: String },
    #[error("container {container_id} is attached already")]
    AlreadyAttached { container_id: String },
    /// Another container of ours has the port.
    #[error("port {port}/{protocol} on {host} is already published by container {owner}")]
    PortPublished { host: String, port: u16, protocol: Protocol, owner: String },
    /// A process of the host has the port.
    #[error("port {port}/{protocol} on {host} is in use by {}", .holder.as_deref().unwrap_or("another process of the host"))]
    PortBusy { host: String, port: u16, protocol: Protocol, holder: Option<String>, source: Errno },
    #[error("cannot reserve port {port}/{protocol} on {host}")]
    PortReserve { host: String, port: u16, protocol: Protocol, source: Errno },
    #[error("no free {protocol} port left between {first} and {last}")]
    PortsExhausted { protocol: Protocol, first: u16, last: u16 },
    #[error("address {address} to publish on is not an address of this host")]
    HostAddress { address: IpAddr, source: Errno },
    #[error("cannot publish on the IPv6 address {address}: this network has no IPv6")]
    NoIpv6 { address: IpAddr },
    /// The kernel sends nothing from `::1` out of an interface, and has no switch for it as IPv4 has (`route_localnet`).
    #[error("cannot publish on ::1: the kernel lets no packet from ::1 reach a bridge")]
    Loopback6,
}

fn kernel_text(message: Option<&str>) -> String {
    message.map(|text| format!(" ({})", text.trim_end_matches('.'))).unwrap_or_default()
}

fn owner_text(owner: Option<&str>) -> String {
    owner.map_or_else(|| "is reserved".to_owned(), |id| format!("belongs to container {id}"))
}

impl NetworkError {
    /// The kernel's answer, where it was a refused request.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { source, .. } | Self::Namespace { source, .. } => Some(*source),
            _ => None,
        }
    }
}

impl Classify for NetworkError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Invalid { .. } | Self::AddressOutside { .. } | Self::HostAddress { .. } => {
                ErrorClass::InvalidArgument
            }
            Self::Kernel { source, .. } | Self::Namespace { source, .. } | Self::PortReserve { source, .. } => {
                class_of(*source)
            }
            Self::Sysctl { source, .. } | Self::Read { source, .. } | Self::Thread { source, .. } => {
                Errno::from_io_error(source).map_or(ErrorClass::Internal, class_of)
            }
            Self::ForeignBridge { .. } | Self::SubnetTaken { .. } | Self::NoIpv6 { .. } | Self::Loopback6 => {
                ErrorClass::FailedPrecondition
            }
            Self::AddressesExhausted { .. } | Self::PortsExhausted { .. } => ErrorClass::ResourceExhausted,
            Self::AddressTaken { .. }
            | Self::AlreadyAttached { .. }
            | Self::PortPublished { .. }
            | Self::PortBusy { .. } => ErrorClass::AlreadyExists,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PortPublished { .. } | Self::PortBusy { .. } => {
                "choose another host port, or leave it out to get a free one".to_owned()
            }
            Self::ForeignBridge { .. } => "choose another bridge name, or remove that interface".to_owned(),
            Self::SubnetTaken { .. } => "choose another subnet".to_owned(),
            Self::Loopback6 => "publish on 127.0.0.1, or on another IPv6 address of this host".to_owned(),
            Self::AddressesExhausted { .. } => "remove containers, or use a larger subnet".to_owned(),
            Self::Kernel { source: Errno::PERM | Errno::ACCESS, .. } | Self::Namespace { source: Errno::PERM, .. } => {
                "the daemon needs CAP_NET_ADMIN and CAP_SYS_ADMIN".to_owned()
            }
            Self::PortReserve { source: Errno::MFILE, .. } => {
                "each published port holds one descriptor; raise the limit of open files of the daemon".to_owned()
            }
            _ => return None,
        })
    }
}

fn class_of(errno: Errno) -> ErrorClass {
    match errno {
        Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorClass::PermissionDenied,
        Errno::NOENT | Errno::NODEV => ErrorClass::NotFound,
        Errno::EXIST => ErrorClass::AlreadyExists,
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => ErrorClass::Unimplemented,
        Errno::NOMEM | Errno::NOSPC | Errno::MFILE | Errno::NFILE | Errno::NOBUFS => ErrorClass::ResourceExhausted,
        _ => ErrorClass::Internal,
    }
}
