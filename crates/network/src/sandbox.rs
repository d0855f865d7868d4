//! A network sandbox: a namespace with `lo` and a configured `eth0` on the bridge, before any container is in it.
//!
//! It is used once. When it is dropped instead, its address is free again and the kernel removes the veth pair together
//! with the namespace, in the background.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::config::mac_of;
use crate::error::NetworkError;
use crate::link::{self, InterfaceAddresses, Mac, VethSpec};
use crate::namespace::{self, Ipv6};
use crate::network::Shared;

/// Names are random; a collision with a foreign interface is tried again this often.
const NAME_ATTEMPTS: usize = 8;

#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) namespace: OwnedFd,
    pub(crate) lease: Lease,
    pub(crate) mac: Mac,
    pub(crate) host_interface: String,
}

impl Sandbox {
    /// Moves the **calling thread** into the namespace it makes.
    pub(crate) fn build(shared: &Arc<Shared>, mac: Option<Mac>) -> Result<Self, NetworkError> {
        let lease = Lease::new(shared)?;
        let mac = mac.unwrap_or_else(|| mac_of(lease.ipv4));
        let subnet6 = shared.plan.subnet6;
        let ipv6 = if subnet6.is_some() { Ipv6::Enabled } else { Ipv6::LoopbackOnly };
        let mut new = namespace::enter_new(ipv6)?;
        let host_interface = plug_in(shared, &new.fd, mac)?;
        let eth0 = link::find(&mut new.route, "eth0")?.ok_or_else(|| NetworkError::Kernel {
            action: "find the inner end of",
            object: host_interface.clone(),
            message: None,
            source: Errno::NODEV,
        })?;
        let addresses =
            InterfaceAddresses { ipv4: lease.ipv4, subnet4: shared.plan.subnet4, ipv6: lease.ipv6.zip(subnet6) };
        link::configure_container(&mut new.route, &eth0, &addresses)?;
        Ok(Self { namespace: new.fd, lease, mac, host_interface })
    }
}

fn plug_in(shared: &Shared, namespace: &OwnedFd, mac: Mac) -> Result<String, NetworkError> {
    let bridge = shared.bridge();
    let mut attempt = 1;
    loop {
        let host_name = shared.interface_name();
        let spec = VethSpec {
            host_name: &host_name,
            bridge_index: bridge.index,
            container_mac: mac,
            mtu: bridge.mtu,
            namespace: namespace.as_fd(),
        };
        match link::create_veth(&mut shared.route(), &spec) {
            Ok(()) => return Ok(host_name),
            Err(error) if error.errno() == Some(Errno::EXIST) && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// An address that is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Option<Ipv6Addr>,
    shared: Option<Arc<Shared>>,
}

impl Lease {
    fn new(shared: &Arc<Shared>) -> Result<Self, NetworkError> {
        let ipv4 = shared.state().addresses.allocate()?;
        let offset = shared.plan.subnet4.offset(ipv4).unwrap_or_default();
        let ipv6 = shared.plan.subnet6.map(|subnet| subnet.address(offset));
        Ok(Self { ipv4, ipv6, shared: Some(Arc::clone(shared)) })
    }

    /// From now on `detach` frees the address.
    pub(crate) fn keep(mut self) {
        self.shared = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.state().addresses.release(self.ipv4);
        }
    }
}
