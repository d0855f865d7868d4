//! Which kernel parameters belong to a container: only those of its own namespaces, by a name that can mean nothing else.

use crate::error::RuntimeError;
use crate::namespaces::{Namespace, Namespaces};

const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// The path below `/proc/sys` for a sysctl the container may set.
///
/// # Errors
/// For parameters of the host (CVE-2022-0811) and names with empty or dotted components.
pub(crate) fn path(key: &str, namespaces: &Namespaces) -> Result<String, RuntimeError> {
    let refuse = |problem: &str| RuntimeError::Spec { field: "linux.sysctl", problem: format!("{key:?} {problem}") };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/' | b'_' | b'-' | b'@' | b':');
    if key.is_empty() || key.len() > 256 || !key.bytes().all(is_plain) {
        return Err(refuse("is not the name of a sysctl"));
    }
    let path = with_slashes(key);
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(refuse("is not the name of a sysctl"));
    }
    let needed = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        Namespace::Ipc
    } else if path.starts_with("net/") {
        Namespace::Network
    } else if path == "kernel/domainname" || path == "kernel/hostname" {
        Namespace::Uts
    } else {
        return Err(refuse("belongs to the host, not to a namespace"));
    };
    if namespaces.is_private(needed) {
        return Ok(path);
    }
    Err(refuse("needs a namespace of its own, which the container shares with the host"))
}

/// As sysctl(8): the first separator decides; where it is a dot, dots and slashes change roles (`net.ipv4.conf.eth0/1.forwarding`).
fn with_slashes(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(first) if key.as_bytes().get(first) == Some(&b'.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Namespaces {
        Namespaces { new: vec![Namespace::Ipc, Namespace::Network, Namespace::Uts], joined: Vec::new() }
    }

    #[test]
    fn own_parameters_have_paths() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("kernel.shmmax", "kernel/shmmax"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(path(key, &all()).unwrap(), expected, "{key}");
        }
    }

    #[test]
    fn cve_2022_0811_and_0532_host_parameters_are_refused() {
        for key in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced=1+kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net.//.kernel/core_pattern",
            "net/ipv4/../../kernel/core_pattern",
            "net//ipv4/ip_forward",
            "/net/ipv4/ip_forward",
            "vm.swappiness",
            "fs.mqueue",
            "",
        ] {
            assert!(path(key, &all()).is_err(), "{key}");
        }
    }

    #[test]
    fn shared_namespaces_refuse() {
        assert!(path("net.ipv4.ip_forward", &Namespaces::default()).is_err());
        assert!(path("kernel.shmmax", &Namespaces::default()).is_err());
    }
}
