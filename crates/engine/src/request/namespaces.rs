//! Namespace modes: which namespaces are new, the host's, or somebody else's (S-011).

use std::path::PathBuf;

use crate::config::{ContainerConfig, HostConfig};
use crate::error::{EngineError, Result};
use crate::host::HostFacts;

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NsMode {
    Private,
    Host,
    /// That of another container, by its name or id.
    Container(String),
    /// A namespace file of the host (`ns:/proc/1234/ns/ipc`).
    Path(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    Bridge,
    /// A namespace of its own with `lo` only.
    None,
    Joined(NsMode),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserNsMode {
    Host,
    /// A block of 65536 ids of its own from the pool.
    Auto,
    /// `map:container:host:size[,..]`; the same for groups.
    Map(Vec<IdRange>),
    Joined(NsMode),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRange {
    pub(crate) container: u32,
    pub(crate) host: u32,
    pub(crate) size: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceModes {
    pub(crate) network: NetworkMode,
    pub(crate) pid: NsMode,
    pub(crate) ipc: NsMode,
    /// `ipc` private, and `/dev/shm` not shared with others (`private`, `none`): `none` has no `/dev/shm` at all.
    pub(crate) has_shm: bool,
    pub(crate) uts: NsMode,
    pub(crate) cgroup: NsMode,
    pub(crate) user: UserNsMode,
}

fn joined(flag: &str, text: &str) -> Result<Option<NsMode>> {
    if let Some(name) = text.strip_prefix("container:") {
        if name.is_empty() {
            return Err(EngineError::invalid(format!("{flag} {text:?} names no container"))
                .with_hint(format!("write --{flag} container:NAME")));
        }
        return Ok(Some(NsMode::Container(name.to_owned())));
    }
    if let Some(path) = text.strip_prefix("ns:") {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err(EngineError::invalid(format!("{flag} {text:?}: the namespace path is not absolute"))
                .with_hint(format!("write --{flag} ns:/proc/PID/ns/{flag}")));
        }
        return Ok(Some(NsMode::Path(path)));
    }
    Ok(None)
}

fn plain(flag: &str, text: &str, default: NsMode) -> Result<NsMode> {
    match text {
        "" => Ok(default),
        "private" => Ok(NsMode::Private),
        "host" => Ok(NsMode::Host),
        other => joined(flag, other)?.ok_or_else(|| {
            EngineError::invalid(format!("{flag} mode {other:?} is not valid"))
                .with_hint("known are private, host, container:NAME and ns:PATH")
        }),
    }
}

impl NamespaceModes {
    pub(crate) fn parse(config: &ContainerConfig, host: &HostConfig, facts: &HostFacts) -> Result<Self> {
        // As Docker: private by default on cgroup v2, the host's on v1 and for privileged containers there.
        let cgroup_default = if facts.cgroup_version == 2 { NsMode::Private } else { NsMode::Host };
        let (ipc, has_shm) = match host.ipc_mode.as_str() {
            "shareable" | "private" | "" => (NsMode::Private, true),
            "none" => (NsMode::Private, false),
            other => (plain("ipc", other, NsMode::Private)?, true),
        };
        let modes = Self {
            network: network(config, host)?,
            pid: plain("pid", &host.pid_mode, NsMode::Private)?,
            ipc,
            has_shm,
            uts: plain("uts", &host.uts_mode, NsMode::Private)?,
            cgroup: plain("cgroupns", &host.cgroupns_mode, cgroup_default)?,
            user: user(&host.userns_mode)?,
        };
        modes.check(config, host)?;
        Ok(modes)
    }

    fn check(&self, config: &ContainerConfig, host: &HostConfig) -> Result<()> {
        if self.uts != NsMode::Private && !(config.hostname.is_empty() && config.domainname.is_empty()) {
            return Err(EngineError::invalid("conflicting options: hostname and the UTS mode")
                .with_hint("a container that shares its UTS namespace cannot have a host name of its own"));
        }
        if self.user == UserNsMode::Host {
            return Ok(());
        }
        if host.privileged {
            return Err(EngineError::invalid("privileged mode is incompatible with user namespaces")
                .with_hint("run the container with --userns=host"));
        }
        let shares = |mode: &NsMode| *mode == NsMode::Host;
        let is_network_shared = matches!(&self.network, NetworkMode::Joined(mode) if shares(mode));
        if is_network_shared || shares(&self.pid) {
            return Err(EngineError::invalid(
                "cannot share the host's network or PID namespace when user namespaces are enabled",
            ));
        }
        Ok(())
    }

    /// Processes of this container see `lo` and `eth0` of their own (their port range and ping range may be set).
    pub(crate) const fn has_own_network(&self) -> bool {
        matches!(self.network, NetworkMode::Bridge | NetworkMode::None)
    }
}

fn network(config: &ContainerConfig, host: &HostConfig) -> Result<NetworkMode> {
    if config.network_disabled {
        return Ok(NetworkMode::None);
    }
    match host.network_mode.as_str() {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Joined(NsMode::Host)),
        other => match joined("network", other)? {
            Some(mode) => Ok(NetworkMode::Joined(mode)),
            None => Err(EngineError::not_found(format!(
                "network {other} not found: this version has the networks bridge, host and none"
            ))
            .with_hint("use --network bridge, host, none, or container:NAME")),
        },
    }
}

fn user(text: &str) -> Result<UserNsMode> {
    match text {
        "" | "host" => Ok(UserNsMode::Host),
        "auto" | "private" => Ok(UserNsMode::Auto),
        other => {
            if let Some(ranges) = other.strip_prefix("map:") {
                return ranges
                    .split(',')
                    .map(id_range)
                    .collect::<Result<_>>()
                    .and_then(check_ranges)
                    .map(UserNsMode::Map);
            }
            joined("userns", other)?.map(UserNsMode::Joined).ok_or_else(|| {
                EngineError::invalid(format!("userns mode {other:?} is not valid"))
                    .with_hint("known are host, auto, private, map:CONTAINER:HOST:SIZE, container:NAME and ns:PATH")
            })
        }
    }
}

fn id_range(text: &str) -> Result<IdRange> {
    let numbers: Option<Vec<u32>> =
        text.split(':').map(|n| (!n.starts_with('+')).then(|| n.parse().ok()).flatten()).collect();
    match numbers.as_deref() {
        Some(&[container, host, size])
            if size > 0 && container.checked_add(size).is_some() && host.checked_add(size).is_some() =>
        {
            Ok(IdRange { container, host, size })
        }
        _ => Err(EngineError::invalid(format!("user id map {text:?} is not CONTAINER:HOST:SIZE"))
            .with_hint("as in --userns map:0:100000:65536")),
    }
}

fn check_ranges(ranges: Vec<IdRange>) -> Result<Vec<IdRange>> {
    const RANGES_MAX: usize = 340; // user_namespaces(7)
    let overlap = |a: (u32, u32), b: (u32, u32)| a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
    for (index, a) in ranges.iter().enumerate() {
        for b in &ranges[index + 1..] {
            if overlap((a.container, a.size), (b.container, b.size)) || overlap((a.host, a.size), (b.host, b.size)) {
                return Err(EngineError::invalid("user id map has ranges that overlap"));
            }
        }
    }
    if ranges.len() > RANGES_MAX {
        return Err(EngineError::invalid(format!("user id map has more than {RANGES_MAX} ranges")));
    }
    if !ranges.iter().any(|r| r.container == 0) {
        return Err(EngineError::invalid("user id map does not map the container's root (id 0)")
            .with_hint("add a range such as 0:100000:65536"));
    }
    Ok(ranges)
}
