//! `--device` and `--device-cgroup-rule` in checked form; the nodes themselves are looked at when the container starts.

use std::path::{Component, Path, PathBuf};

use crate::config::HostConfig;
use crate::error::{EngineError, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRequest {
    pub(crate) host: PathBuf,
    pub(crate) container: PathBuf,
    /// Some of `rwm`, at least one.
    pub(crate) access: String,
}

/// `c 10:200 rwm`; `None` is every number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    pub(crate) kind: char,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) access: String,
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
}

fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|c| matches!(c, Component::ParentDir))
}

pub(crate) fn parse(host: &HostConfig) -> Result<Vec<DeviceRequest>> {
    host.devices
        .iter()
        .map(|device| {
            let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
            if !is_access(access) {
                return Err(EngineError::invalid(format!(
                    "device {}: mode {access:?} is not some of r, w and m",
                    device.host_path
                )));
            }
            let host = PathBuf::from(&device.host_path);
            let container = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
            let container = PathBuf::from(container);
            for path in [&host, &container] {
                if !is_plain_absolute(path) {
                    return Err(EngineError::invalid(format!(
                        "device path {:?} is not an absolute path",
                        path.display()
                    ))
                    .with_hint("as in --device /dev/fuse"));
                }
            }
            Ok(DeviceRequest { host, container, access: access.to_owned() })
        })
        .collect()
}

pub(crate) fn parse_rules(host: &HostConfig) -> Result<Vec<DeviceRule>> {
    host.device_cgroup_rules.iter().map(|rule| parse_rule(rule)).collect()
}

fn parse_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || {
        EngineError::invalid(format!("invalid device cgroup rule format: {text:?}"))
            .with_hint("as in --device-cgroup-rule 'c 42:* rmw'")
    };
    let mut parts = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let kind = match kind {
        "a" => 'a',
        "b" => 'b',
        "c" => 'c',
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u32>().map(|n| Some(n.into())).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    };
    let rule = DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() };
    if is_access(access) { Ok(rule) } else { Err(wrong()) }
}
