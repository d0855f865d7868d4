//! Interfaces of the host that a container takes over: moved into its network namespace with their lasting addresses, and set up.
//!
//! They stay there: what becomes of them at the container's end is the kernel's business (the specification forbids ours). Only a
//! creation that fails later gives them back, for then nothing must have happened.
//!
//! # Spec
//! runtime-spec config-linux, "Network Devices".

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use berth_oci::runtime::LinuxNetDevice;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::RuntimeError;
use crate::netlink::{Address, Netlink};

/// `IFNAMSIZ` without its NUL.
const NAME_MAX: usize = 15;

/// One interface: its name here and there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetDevice {
    pub(crate) host: String,
    pub(crate) container: String,
}

impl NetDevice {
    pub(crate) fn plan(asked: &HashMap<String, LinuxNetDevice>) -> Result<Vec<Self>, RuntimeError> {
        let wrong = |problem: String| RuntimeError::Spec { field: "linux.netDevices", problem };
        let mut devices: Vec<Self> = Vec::new();
        for (host, device) in asked {
            let container = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
            let template = container.strip_suffix("%d").unwrap_or(container);
            for name in [host.as_str(), template] {
                if !is_name(name) {
                    return Err(wrong(format!("{name:?} is not the name of an interface")));
                }
            }
            let is_fixed = template == container;
            if is_fixed && devices.iter().any(|other| other.container == container) {
                return Err(wrong(format!("two interfaces would be {container}")));
            }
            devices.push(Self { host: host.clone(), container: container.to_owned() });
        }
        devices.sort();
        Ok(devices)
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain) && name != "." && name != ".."
}

/// An interface that is in the container now.
#[derive(Debug)]
pub(crate) struct Moved {
    name: String,
    index: u32,
    was_up: bool,
    addresses: Vec<Address>,
}

/// The interfaces moved so far, and the way back.
#[derive(Debug)]
pub(crate) struct Mover {
    own: OwnedFd,
    theirs: OwnedFd,
    here: Netlink,
    there: Netlink,
    moved: Vec<Moved>,
}

impl Mover {
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN over the container's network namespace; the kernel's.
    pub(crate) fn new(net_ns: OwnedFd) -> Result<Self, Errno> {
        let own = rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let here = Netlink::open()?;
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(net_ns.as_fd(), kind)?;
        let there = Netlink::open();
        move_into_link_name_space(own.as_fd(), kind)?;
        Ok(Self { own, theirs: net_ns, here, there: there?, moved: Vec::new() })
    }

    /// Moves one interface, gives it its addresses back and sets it up.
    ///
    /// # Errors
    /// `ENODEV` when there is none of that name, `EEXIST` when the container has one; the kernel's.
    pub(crate) fn take(&mut self, device: &NetDevice) -> Result<(), Errno> {
        let found = self.here.links()?.into_iter().find(|link| link.name == device.host).ok_or(Errno::NODEV)?;
        let before = self.there.links()?;
        if before.iter().any(|link| link.name == device.container) {
            return Err(Errno::EXIST);
        }
        let addresses = self.here.lasting_addresses(found.index)?;
        self.here.move_link(found.index, &self.theirs, &device.container)?;
        let after = self.there.links()?;
        let arrived = after.into_iter().find(|link| !before.iter().any(|old| old.index == link.index));
        let index = arrived.ok_or(Errno::NODEV)?.index;
        self.moved.push(Moved { name: device.host.clone(), index, was_up: found.is_up, addresses });
        let moved = self.moved.last().ok_or(Errno::NODEV)?;
        for address in &moved.addresses {
            self.there.add_address(index, address)?;
        }
        self.there.set_up(index)
    }

    /// Back to where they were, as they were; the first error ends nothing.
    pub(crate) fn give_back(self) {
        for moved in self.moved.iter().rev() {
            let before: Vec<u32> = self.here.links().unwrap_or_default().into_iter().map(|link| link.index).collect();
            if self.there.move_link(moved.index, &self.own, &moved.name).is_err() {
                continue;
            }
            let after = self.here.links().unwrap_or_default();
            let Some(back) = after.into_iter().find(|link| !before.contains(&link.index)) else { continue };
            for address in &moved.addresses {
                let _lost = self.here.add_address(back.index, address);
            }
            if moved.was_up {
                let _down = self.here.set_up(back.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let plan = |json: &str| NetDevice::plan(&serde_json::from_str(json).unwrap());
        let made = plan(r#"{"eth0": {"name": "inner"}, "eth1": {}, "eth2": {"name": "d%d"}, "eth3": {"name": "d%d"}}"#);
        let names: Vec<String> = made.unwrap().into_iter().map(|device| device.container).collect();
        assert_eq!(names, ["inner", "eth1", "d%d", "d%d"]);
        for wrong in [
            r#"{"eth0": {"name": "a/b"}}"#,
            r#"{"eth0": {"name": "."}}"#,
            r#"{"eth0": {"name": "%d%d"}}"#,
            r#"{"a name": {}}"#,
            r#"{"eth0": {"name": "sixteen-letters-"}}"#,
            r#"{"eth0": {"name": "x"}, "eth1": {"name": "x"}}"#,
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }
}
