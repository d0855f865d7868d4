//! `--device host[:container][:rwm]`, `--device-cgroup-rule`, and per-device limits `path:value`.

use berth_types::ByteCount;
use bollard_stubs::models::{DeviceMapping, ResourcesBlkioWeightDevice, ThrottleDevice};

use crate::failure::{Failure, Outcome};

fn is_permissions(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b"rwm".contains(&b))
}

pub(super) fn parse_device(text: &str) -> Outcome<DeviceMapping> {
    let wrong = |why: &str| {
        Failure::new(format!("invalid --device {text:?}: {why}")).hint("for example --device /dev/fuse:/dev/fuse:rw")
    };
    if !text.starts_with('/') {
        if text.contains('/') && text.contains('=') {
            return Err(Failure::not_yet(format!("--device {text:?}: CDI devices are not supported")));
        }
        return Err(wrong("the path must be absolute"));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, permissions] if is_permissions(permissions) => (host, host, permissions),
        [host, container] => (host, container, "rwm"),
        [host, container, permissions] if is_permissions(permissions) => (host, container, permissions),
        [_, _, _] => return Err(wrong("permissions are some of r, w and m")),
        _ => return Err(wrong("expected host[:container][:permissions]")),
    };
    if !container.starts_with('/') {
        return Err(wrong("the path in the container must be absolute"));
    }
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(container.to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

/// `a|b|c MAJOR:MINOR rwm`, numbers or `*`.
pub(super) fn check_cgroup_rule(text: &str) -> Outcome<String> {
    let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
    let is_valid = match text.split(' ').collect::<Vec<_>>()[..] {
        [kind, numbers, permissions] => {
            matches!(kind, "a" | "b" | "c")
                && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && is_permissions(permissions)
        }
        _ => false,
    };
    if is_valid {
        return Ok(text.to_owned());
    }
    Err(Failure::new(format!("invalid --device-cgroup-rule {text:?}")).hint("for example 'c 10:229 rwm' or 'b *:* r'"))
}

fn split_device<'a>(flag: &str, text: &'a str) -> Outcome<(&'a str, &'a str)> {
    text.rsplit_once(':')
        .filter(|(path, _)| path.starts_with("/dev/"))
        .ok_or_else(|| Failure::new(format!("invalid {flag} {text:?}")).hint("write it as /dev/NAME:VALUE"))
}

pub(super) fn parse_weight_device(text: &str) -> Outcome<ResourcesBlkioWeightDevice> {
    let flag = "--blkio-weight-device";
    let (path, weight) = split_device(flag, text)?;
    let weight = weight
        .parse::<usize>()
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| Failure::new(format!("invalid {flag} {text:?}: the weight is 10 to 1000, or 0")))?;
    Ok(ResourcesBlkioWeightDevice { path: Some(path.to_owned()), weight: Some(weight) })
}

/// Bytes per second, units allowed.
pub(super) fn parse_bps(flag: &str, text: &str) -> Outcome<ThrottleDevice> {
    let (path, rate) = split_device(flag, text)?;
    let rate =
        rate.parse::<ByteCount>().map_err(|error| Failure::new(format!("invalid {flag} {text:?}")).because(&error))?;
    throttle(flag, text, path, rate.0)
}

/// Operations per second.
pub(super) fn parse_iops(flag: &str, text: &str) -> Outcome<ThrottleDevice> {
    let (path, rate) = split_device(flag, text)?;
    let rate = rate.parse::<u64>().map_err(|error| Failure::new(format!("invalid {flag} {text:?}")).because(&error))?;
    throttle(flag, text, path, rate)
}

fn throttle(flag: &str, text: &str, path: &str, rate: u64) -> Outcome<ThrottleDevice> {
    let rate =
        i64::try_from(rate).map_err(|_| Failure::new(format!("invalid {flag} {text:?}: the rate is too large")))?;
    Ok(ThrottleDevice { path: Some(path.to_owned()), rate: Some(rate) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let shown = |text: &str| {
            parse_device(text).map_err(|failure| failure.message).map(|device| {
                [device.path_on_host, device.path_in_container, device.cgroup_permissions]
                    .map(Option::unwrap_or_default)
                    .join(" ")
            })
        };
        assert_eq!(shown("/dev/fuse").unwrap(), "/dev/fuse /dev/fuse rwm");
        assert_eq!(shown("/dev/fuse:r").unwrap(), "/dev/fuse /dev/fuse r");
        assert_eq!(shown("/dev/a:/dev/b").unwrap(), "/dev/a /dev/b rwm");
        assert_eq!(shown("/dev/a:/dev/b:rw").unwrap(), "/dev/a /dev/b rw");
        assert!(shown("/dev/a:/dev/b:x").unwrap_err().ends_with("permissions are some of r, w and m"));
        assert!(shown("/dev/a:b").unwrap_err().ends_with("must be absolute"));
        assert!(shown("dev").is_err());
        assert!(shown("vendor.com/gpu=0").unwrap_err().starts_with("not yet: "));
    }

    #[test]
    fn rules_and_limits() {
        assert!(check_cgroup_rule("c 1:3 mr").is_ok());
        assert!(check_cgroup_rule("a *:* rwm").is_ok());
        for bad in ["c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 q", ""] {
            assert!(check_cgroup_rule(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_bps("--device-read-bps", "/dev/sda:1mb").unwrap().rate, Some(1 << 20));
        assert_eq!(parse_iops("--device-read-iops", "/dev/sda:100").unwrap().rate, Some(100));
        assert!(parse_iops("--device-read-iops", "/dev/sda:1k").is_err());
        assert!(parse_bps("--device-read-bps", "sda:1").is_err());
        assert_eq!(parse_weight_device("/dev/sda:500").unwrap().weight, Some(500));
        assert!(parse_weight_device("/dev/sda:5").is_err());
    }
}
