//! Who has a port of the host: for the error that says it is taken. Only asked when something has failed already.

use std::net::IpAddr;
use std::path::Path;

use crate::port::Protocol;

/// A host with more processes than this gets the error without the name.
const PROCESSES_MAX: usize = 20_000;

/// `nginx (pid 12)`, if a process of ours to see has it. Call it on a thread of the host's network namespace.
pub(crate) fn find(protocol: Protocol, host: IpAddr, port: u16) -> Option<String> {
    let kind = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    // A socket of IPv6 may take IPv4, too; one that is bound to the very address comes first.
    let families: &[&str] = if host.is_ipv4() { &["", "6"] } else { &["6"] };
    let inode = families.iter().find_map(|family| {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{kind}{family}")).ok()?;
        socket_inode(&table, port)
    })?;
    let link = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let has_it = |path: &Path| std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == link.as_str());
        descriptors.flatten().any(|descriptor| has_it(&descriptor.path())).then(|| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (pid {pid})", name.trim_end())
        })
    })
}

/// Lines `n: address:port remote:port state ... uid timeout inode`, numbers of the addresses in hexadecimal. Of TCP, sockets
/// that listen count more than connections from the same port.
fn socket_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut found: Vec<(bool, u64)> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = fields.get(1)?.rsplit_once(':')?;
            let inode = fields.get(9)?.parse().ok().filter(|inode| *inode != 0)?;
            (u16::from_str_radix(local, 16).ok()? == port).then(|| (fields.get(3) != Some(&LISTEN), inode))
        })
        .collect();
    found.sort_unstable();
    found.first().map(|(_, inode)| *inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_socket_of_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
             1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n\
             2: 00000000:1F91 00000000:0000 06 00000000:00000000 00:00000000 00000000     0        0 0 1\n";
        assert_eq!(socket_inode(table, 8080), Some(12));
        assert_eq!(socket_inode(table, 8081), None, "nobody's: TIME_WAIT");
        assert_eq!(socket_inode("", 8080), None);
    }

    #[test]
    fn this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = find(Protocol::Tcp, address.ip(), address.port()).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert!(find(Protocol::Udp, address.ip(), address.port()).is_some());
    }
}
