//! Device nodes and links of `/dev`: the spec's, and those every container has.

use std::path::Path;

use berth_oci::runtime::{LinuxDevice, LinuxDeviceType};
use berth_rootfs::devices::DeviceNode;
use berth_rootfs::mounts::lexical;
use rustix::fs::FileType;

use super::mounts::{MountPlan, Source};
use super::{Action, Stage, StepList};
use crate::error::RuntimeError;

/// runtime-spec config-linux, "Default Devices".
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// runtime-spec config-linux and config "Dev symbolic links"; `true`: replaces what is there.
const DEFAULT_LINKS: [(&str, &str, bool); 5] = [
    ("/dev/fd", "/proc/self/fd", false),
    ("/dev/stdin", "/proc/self/fd/0", false),
    ("/dev/stdout", "/proc/self/fd/1", false),
    ("/dev/stderr", "/proc/self/fd/2", false),
    ("/dev/ptmx", "pts/ptmx", true),
];

/// A `/dev` bound from elsewhere is somebody's own and left alone.
pub(super) fn steps(
    devices: &[LinuxDevice],
    mounts: &[MountPlan],
    in_user_ns: bool,
    list: &mut StepList,
) -> Result<(), RuntimeError> {
    let mut nodes: Vec<DeviceNode> = devices.iter().map(device_node).collect::<Result<_, _>>()?;
    let has_foreign_dev = mounts
        .iter()
        .any(|mount| matches!(mount.source, Source::Bind { .. }) && lexical(&mount.destination) == Path::new("/dev"));
    if has_foreign_dev {
        return Ok(());
    }
    for (path, major, minor) in DEFAULT_DEVICES {
        if !nodes.iter().any(|node| node.path == Path::new(path)) {
            let kind = FileType::CharacterDevice;
            let path = path.into();
            nodes.push(DeviceNode { path, kind, major, minor, mode: 0o666, uid: 0, gid: 0, replaces: true });
        }
    }
    for node in nodes {
        let object = node.path.display().to_string();
        if in_user_ns && node.kind != FileType::Fifo {
            list.push(Stage::Init, Action::BindDevice(node), object, "mknod is forbidden in a user namespace");
        } else {
            list.push(Stage::Init, Action::MakeDevice(node), object, "linux.devices and the default devices");
        }
    }
    for (path, to, replace) in DEFAULT_LINKS {
        list.push(Stage::Init, Action::MakeLink { to, replace }, path, "default links");
    }
    Ok(())
}

fn device_node(device: &LinuxDevice) -> Result<DeviceNode, RuntimeError> {
    let path = device.path();
    let wrong =
        |problem: &str| RuntimeError::Spec { field: "linux.devices", problem: format!("{} {problem}", path.display()) };
    if !path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(wrong("is not an absolute path"));
    }
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(wrong("has the type a, which is for device rules")),
    };
    let number = |value: i64| match kind {
        FileType::Fifo => Ok(0),
        _ => u32::try_from(value).map_err(|_| wrong("has a device number that is none")),
    };
    Ok(DeviceNode {
        path: path.clone(),
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        replaces: false,
    })
}
