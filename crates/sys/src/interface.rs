//! Addresses of this namespace's network interfaces, by the C library's `getifaddrs`.
#![expect(unsafe_code, reason = "a linked list made by the C library has no safe wrapper in rustix")]

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use rustix::io::Errno;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    pub interface: String,
    pub address: IpAddr,
    pub prefix: u8,
}

/// All IPv4 and IPv6 addresses, in the kernel's order (getifaddrs(3)).
pub fn addresses() -> Result<Vec<InterfaceAddress>, Errno> {
    let mut head = ptr::null_mut();
    // SAFETY: `head` is a valid place for the pointer the call writes.
    if unsafe { libc::getifaddrs(&raw mut head) } != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    let list = List(head);
    let mut found = Vec::new();
    let mut next = list.0;
    // SAFETY: `next` is null or an element of the list, which lives as long as `list`.
    while let Some(element) = unsafe { next.as_ref() } {
        if let (Some(address), Some(mask)) = (ip_of(element.ifa_addr), ip_of(element.ifa_netmask)) {
            // SAFETY: the name of an element is a C string that lives as long as the list.
            let name = unsafe { CStr::from_ptr(element.ifa_name) };
            let interface = name.to_string_lossy().into_owned();
            found.push(InterfaceAddress { interface, address, prefix: prefix_of(mask) });
        }
        next = element.ifa_next;
    }
    Ok(found)
}

struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the pointer came from getifaddrs and is freed once.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or an address of the list, which has at least its family.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a `sockaddr_in`; the C library aligns its elements for it.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a `sockaddr_in6`; the C library aligns its elements for it.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn prefix_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_where_it_is_up() {
        let flags = std::fs::read_to_string("/sys/class/net/lo/operstate").unwrap_or_default();
        let found = addresses().unwrap();
        if flags.trim() != "down" {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            assert!(found.contains(&InterfaceAddress { interface: "lo".to_owned(), address, prefix: 8 }), "{found:?}");
        }
    }
}
