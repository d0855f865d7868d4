//! What a client asked, parsed and checked against this host: the same parsed form is validated at create and becomes the spec at start.
//!
//! Pure: no file is touched here (bind sources and device nodes are looked at by `lifecycle`). Each refusal names the object, the cause
//! and a way out; nothing asked is ignored.

pub(crate) mod devices;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod security;
#[cfg(test)]
mod tests;

use berth_cgroup::{Instance, UnitName};
use berth_network::PortMapping;
use berth_types::Signal;

use crate::api::CgroupDriver;
use crate::config::{ContainerConfig, HostConfig, RestartPolicy};
use crate::error::{EngineError, Result};
use crate::host::HostFacts;

use devices::{DeviceRequest, DeviceRule};
use mounts::MountPlan;
use namespaces::NamespaceModes;
use process::Rlimit;
use security::Security;

/// The whole request in checked form.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) ports: Vec<PortRequest>,
    pub(crate) namespaces: NamespaceModes,
    pub(crate) security: Security,
    pub(crate) devices: Vec<DeviceRequest>,
    pub(crate) device_rules: Vec<DeviceRule>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) oom_score_adj: i32,
    /// Honoured differently than asked, each with its name.
    pub(crate) warnings: Vec<String>,
}

/// A port to publish, and the last host port of the range it may take (`8000-8010`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRequest {
    pub(crate) mapping: PortMapping,
    pub(crate) last_host_port: u16,
}

impl Request {
    /// # Errors
    /// `InvalidArgument`, `FailedPrecondition` or `Unimplemented`, for the first thing that cannot be done.
    pub(crate) fn parse(config: &ContainerConfig, host: &HostConfig, facts: &HostFacts) -> Result<Self> {
        let mut warnings = Vec::new();
        check_policy(host, facts)?;
        check_logging(host)?;
        check_annotations(host)?;
        if host.oom_kill_disable == Some(true) && facts.cgroup_version == 2 {
            warnings.push("oom-kill-disable is not possible on cgroup v2 and is left out".to_owned());
        }
        limits::check(&host.resources, facts, &mut warnings)?;
        let namespaces = NamespaceModes::parse(config, host, facts)?;
        let security = Security::parse(host, &namespaces, facts, &mut warnings)?;
        process::check(config)?;
        process::check_network_files(config, host, &namespaces)?;
        process::check_sysctls(host, &namespaces)?;
        let mounts = mounts::parse(config, host)?;
        let ports = ports::parse(config, host, &namespaces, &mut warnings)?;
        let rlimits = process::rlimits(host, facts, &mut warnings)?;
        let oom_score_adj = process::oom_score_adj(host, facts, &mut warnings)?;
        stop_signal(config)?;
        Ok(Self {
            mounts,
            ports,
            namespaces,
            security,
            devices: devices::parse(host)?,
            device_rules: devices::parse_rules(host)?,
            rlimits,
            oom_score_adj,
            warnings,
        })
    }
}

pub(crate) fn stop_signal(config: &ContainerConfig) -> Result<Signal> {
    match config.stop_signal.as_str() {
        "" => Ok(Signal::TERM),
        text => Ok(text.parse()?),
    }
}

fn check_policy(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    if host.auto_remove && host.restart_policy != RestartPolicy::No {
        return Err(EngineError::invalid("can't create 'AutoRemove' container with restart policy")
            .with_hint("use either --rm or --restart"));
    }
    if !host.cgroup_parent.is_empty() {
        check_cgroup_parent(&host.cgroup_parent, facts.cgroup_driver)?;
    }
    Ok(())
}

/// Ours steer the runtime; a client (or an image's label copied into one) must not (CVE-2023-6476).
fn check_annotations(host: &HostConfig) -> Result<()> {
    match host.annotations.keys().find(|key| key.starts_with("dev.berth.") || key.is_empty()) {
        Some(key) => Err(EngineError::invalid(format!("annotation {key:?} is reserved"))),
        None => Ok(()),
    }
}

/// The cgroupfs driver takes a path; a systemd slice belongs to the systemd driver.
pub(crate) fn check_cgroup_parent(parent: &str, driver: CgroupDriver) -> Result<()> {
    if driver == CgroupDriver::Systemd {
        let is_slice = UnitName::parse(&format!("{parent}:berth:x"), &Instance::System).is_ok();
        return if is_slice && parent.ends_with(".slice") {
            Ok(())
        } else {
            Err(EngineError::invalid(format!(
                "cgroup parent {parent:?} is not a systemd slice, but the cgroup driver is systemd"
            ))
            .with_hint("give a slice such as machine.slice"))
        };
    }
    if parent.ends_with(".slice") {
        return Err(EngineError::invalid(format!(
            "cgroup parent {parent:?} is a systemd slice, but the cgroup driver is cgroupfs"
        ))
        .with_hint("give a path such as /mygroup"));
    }
    let is_plain = parent.split('/').all(|part| !matches!(part, "." | ".."));
    if is_plain && !parent.contains('\0') && parent.len() < 1024 {
        return Ok(());
    }
    Err(EngineError::invalid(format!("cgroup parent {parent:?} is not a plain path below the cgroup root")))
}

fn check_logging(host: &HostConfig) -> Result<()> {
    match host.log_driver.as_str() {
        "" | "json-file" => LogSettings::parse(host).map(drop),
        "none" if host.log_options.is_empty() => Ok(()),
        "none" => Err(EngineError::invalid("log driver none takes no options").with_hint("leave out --log-opt")),
        other => Err(EngineError::unimplemented(format!("log driver {other:?} is not available"))
            .with_hint("use --log-driver json-file or none")),
    }
}

/// Rotation of the json-file driver: on by default, 10 MiB times 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) max_size_bytes: u64,
    pub(crate) max_files: u32,
}

impl LogSettings {
    pub(crate) fn parse(host: &HostConfig) -> Result<Self> {
        let mut settings = Self { max_size_bytes: 10 << 20, max_files: 5 };
        for (key, value) in &host.log_options {
            match key.as_str() {
                "max-size" if value == "-1" => settings.max_size_bytes = u64::MAX >> 1,
                "max-size" => {
                    let size = value.parse::<berth_types::ByteCount>()?.0;
                    if size < 4096 {
                        return Err(EngineError::invalid(format!("log option max-size={value} is too small"))
                            .with_hint("give at least 4k"));
                    }
                    settings.max_size_bytes = size;
                }
                "max-file" => {
                    settings.max_files = value.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| {
                        EngineError::invalid(format!("log option max-file={value} is not a number from 1 to 1000"))
                    })?;
                }
                other => {
                    return Err(EngineError::invalid(format!(
                        "unknown log opt {other:?} for the json-file log driver"
                    ))
                    .with_hint("known are max-size and max-file"));
                }
            }
        }
        Ok(settings)
    }
}
