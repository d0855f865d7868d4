//! Capabilities and `--security-opt`.

use std::path::PathBuf;
use std::str::FromStr;

use berth_oci::runtime::Capability;

use super::namespaces::NamespaceModes;
use crate::config::HostConfig;
use crate::error::{EngineError, Result};
use crate::host::HostFacts;

/// What a container gets when nobody says otherwise, as in Docker.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SeccompMode {
    Default,
    Unconfined,
    /// The profile itself (clients send its text), or a file of the daemon's host.
    Profile(ProfileSource),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProfileSource {
    Json(String),
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Security {
    /// In the kernel's order, without `CAP_`.
    pub(crate) capabilities: Vec<&'static str>,
    pub(crate) seccomp: SeccompMode,
    pub(crate) no_new_privileges: bool,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) writable_cgroups: bool,
}

/// `/proc` and `/sys` files that tell or do too much.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Security {
    pub(crate) fn parse(
        host: &HostConfig,
        _namespaces: &NamespaceModes,
        facts: &HostFacts,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut security = Self {
            capabilities: capabilities(host, facts, warnings)?,
            seccomp: if host.privileged { SeccompMode::Unconfined } else { SeccompMode::Default },
            no_new_privileges: false,
            masked_paths: host.masked_paths.clone().unwrap_or_else(|| owned(&MASKED)),
            readonly_paths: host.readonly_paths.clone().unwrap_or_else(|| owned(&READONLY)),
            privileged: host.privileged,
            writable_cgroups: host.privileged,
        };
        if host.privileged {
            security.masked_paths.clear();
            security.readonly_paths.clear();
        }
        for path in security.masked_paths.iter().chain(&security.readonly_paths) {
            if !path.starts_with('/') {
                return Err(EngineError::invalid(format!("masked or read-only path {path:?} is not absolute")));
            }
        }
        for option in &host.security_opt {
            security.apply(option, facts)?;
        }
        Ok(security)
    }

    fn apply(&mut self, option: &str, facts: &HostFacts) -> Result<()> {
        // Docker takes `:` for `=` as well, an old form.
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "unconfined") => self.seccomp = SeccompMode::Unconfined,
            ("seccomp", "builtin" | "default") => self.seccomp = SeccompMode::Default,
            ("seccomp", json) if json.trim_start().starts_with('{') => {
                self.seccomp = SeccompMode::Profile(ProfileSource::Json(json.to_owned()));
            }
            ("seccomp", file) if file.starts_with('/') => {
                self.seccomp = SeccompMode::Profile(ProfileSource::File(PathBuf::from(file)));
            }
            ("systempaths", "unconfined") => {
                self.masked_paths.clear();
                self.readonly_paths.clear();
            }
            ("writable-cgroups", "" | "true") => self.writable_cgroups = true,
            ("writable-cgroups", "false") => self.writable_cgroups = false,
            ("apparmor", "unconfined") => {}
            ("apparmor", profile) if !facts.has_apparmor => {
                return Err(EngineError::new(
                    berth_types::ErrorClass::FailedPrecondition,
                    format!("AppArmor profile {profile:?} cannot be applied: AppArmor is not active on this host"),
                ));
            }
            ("apparmor", _) => {
                return Err(EngineError::unimplemented("AppArmor profiles are not supported yet")
                    .with_hint("leave out apparmor= or use apparmor=unconfined"));
            }
            ("label", "disable") => {}
            ("label", _) if !facts.has_selinux => {
                return Err(EngineError::new(
                    berth_types::ErrorClass::FailedPrecondition,
                    format!("security option {option:?} cannot be applied: SELinux is not active on this host"),
                ));
            }
            ("label", _) => {
                return Err(
                    EngineError::unimplemented("SELinux labels are not supported yet").with_hint("use label=disable")
                );
            }
            _ => {
                let shown: String = option.chars().take(80).collect();
                return Err(EngineError::invalid(format!("invalid --security-opt: {shown:?}")).with_hint(
                    "known are seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined, apparmor=, label=",
                ));
            }
        }
        Ok(())
    }
}

/// Canonical name without `CAP_`, `ALL` included.
fn capability(text: &str) -> Result<&'static str> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        return Ok("ALL");
    }
    berth_types::capability::NAMES.into_iter().find(|known| *known == name).ok_or_else(|| {
        let shown: String = text.chars().take(60).collect();
        EngineError::invalid(format!("invalid capability: {shown:?}"))
            .with_hint("see capabilities(7), as in --cap-add NET_ADMIN")
    })
}

/// Docker's rule: `ALL` first, then the drops, then the adds win.
fn capabilities(host: &HostConfig, facts: &HostFacts, warnings: &mut Vec<String>) -> Result<Vec<&'static str>> {
    let add = host.cap_add.iter().map(|c| capability(c)).collect::<Result<Vec<_>>>()?;
    let drop = host.cap_drop.iter().map(|c| capability(c)).collect::<Result<Vec<_>>>()?;
    let adds_all = add.contains(&"ALL");
    let drops_all = drop.contains(&"ALL");
    let available = |number: usize| u32::try_from(number).is_ok_and(|n| facts.has_capability(n));
    let mut granted = Vec::new();
    for (number, name) in berth_types::capability::NAMES.into_iter().enumerate() {
        let is_base = host.privileged || adds_all || (!drops_all && DEFAULT.contains(&name));
        let is_wanted = if adds_all || host.privileged {
            host.privileged || (is_base && !drop.contains(&name))
        } else {
            add.contains(&name) || (is_base && !drop.contains(&name))
        };
        if !is_wanted {
            continue;
        }
        if available(number) {
            granted.push(name);
        } else if add.contains(&name) {
            warnings.push(format!("capability {name} is not available on this host and is left out"));
        }
    }
    Ok(granted)
}

/// For the spec.
pub(crate) fn oci(names: &[&str]) -> std::collections::HashSet<Capability> {
    names.iter().filter_map(|name| Capability::from_str(name).ok()).collect()
}
