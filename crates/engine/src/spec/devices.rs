//! Device nodes and the devices controller's rules.

use std::path::PathBuf;

use berth_oci::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::SpecInput;

/// A node of the host that is to be made in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostDevice {
    /// Where it appears in the container.
    pub(crate) path: PathBuf,
    /// `c` or `b`.
    pub(crate) kind: char,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: String,
}

/// Nodes every container has (S-053); anything else must be asked for. `None` is every number.
const DEFAULT_RULES: [(char, Option<i64>, Option<i64>, &str); 11] = [
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"), // null
    ('c', Some(1), Some(5), "rwm"), // zero
    ('c', Some(1), Some(7), "rwm"), // full
    ('c', Some(1), Some(8), "rwm"), // random
    ('c', Some(1), Some(9), "rwm"), // urandom
    ('c', Some(5), Some(0), "rwm"), // tty
    ('c', Some(5), Some(1), "rwm"), // console
    ('c', Some(5), Some(2), "rwm"), // ptmx
    ('c', Some(136), None, "rwm"),  // pts
];

fn kind(letter: char) -> LinuxDeviceType {
    match letter {
        'a' => LinuxDeviceType::A,
        'b' => LinuxDeviceType::B,
        _ => LinuxDeviceType::C,
    }
}

fn rule(allow: bool, letter: char, major: Option<i64>, minor: Option<i64>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(Some(kind(letter)));
    rule.set_major(major);
    rule.set_minor(minor);
    rule.set_access(Some(access.to_owned()));
    rule
}

pub(super) fn nodes(input: &SpecInput<'_>) -> Vec<LinuxDevice> {
    let one = |device: &HostDevice| {
        let mut node = LinuxDevice::default();
        node.set_path(device.path.clone());
        node.set_typ(kind(device.kind));
        node.set_major(device.major.into());
        node.set_minor(device.minor.into());
        node.set_file_mode(Some(device.mode));
        node.set_uid(Some(device.uid));
        node.set_gid(Some(device.gid));
        node
    };
    input.devices.iter().map(one).collect()
}

pub(super) fn rules(input: &SpecInput<'_>) -> Vec<LinuxDeviceCgroup> {
    if input.request.security.privileged {
        return vec![rule(true, 'a', None, None, "rwm")];
    }
    let mut rules = vec![rule(false, 'a', None, None, "rwm")];
    rules
        .extend(DEFAULT_RULES.iter().map(|(letter, major, minor, access)| rule(true, *letter, *major, *minor, access)));
    for device in input.devices {
        rules.push(rule(true, device.kind, Some(device.major.into()), Some(device.minor.into()), &device.access));
    }
    for asked in &input.request.device_rules {
        rules.push(rule(true, asked.kind, asked.major, asked.minor, &asked.access));
    }
    rules
}
