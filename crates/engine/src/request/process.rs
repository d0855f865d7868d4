//! What concerns the process: names, environment, hosts, ulimits, sysctls, OOM score.

use std::net::IpAddr;
use std::path::Path;

use berth_oci::runtime::PosixRlimitType;

use super::namespaces::{NamespaceModes, NetworkMode, NsMode};
use crate::config::{ContainerConfig, HostConfig};
use crate::error::{EngineError, Result};
use crate::host::{CAP_SYS_RESOURCE, HostFacts};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub(crate) kind: PosixRlimitType,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// The kernel's limits for a whole execve (MAX_ARG_STRLEN); more would fail in the container with a bare E2BIG.
const STRING_BYTES_MAX: usize = 128 * 1024;

pub(crate) fn check(config: &ContainerConfig) -> Result<()> {
    let strings = config.cmd.iter().chain(&config.entrypoint).flatten().chain(&config.env);
    for text in strings.chain([&config.user, &config.working_dir, &config.hostname, &config.domainname]) {
        if text.contains('\0') {
            return Err(EngineError::invalid("an argument, variable or name contains a zero byte"));
        }
        if text.len() >= STRING_BYTES_MAX {
            return Err(EngineError::invalid(
                "an argument or variable is longer than 128 KiB, which the kernel does not take",
            ));
        }
    }
    if let Some(bad) = config.env.iter().find(|variable| variable.starts_with('=')) {
        return Err(EngineError::invalid(format!("invalid environment variable: {bad:?}")));
    }
    if !config.working_dir.is_empty() && !Path::new(&config.working_dir).is_absolute() {
        return Err(EngineError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for (what, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        let is_legal = name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            && !name.starts_with(['-', '.']);
        if !is_legal {
            return Err(EngineError::invalid(format!("invalid {what} {name:?}: at most 63 letters, digits, - and .")));
        }
    }
    if config.stop_timeout_seconds.is_some_and(|t| t < -1) {
        return Err(EngineError::invalid("stop timeout must be -1 (wait for ever), 0 or more seconds"));
    }
    check_user(&config.user)
}

/// CVE-2024-40635: a number that does not fit is refused, never wrapped. Names are looked up in the container at start.
pub(crate) fn check_user(user: &str) -> Result<()> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    for part in user.splitn(2, ':') {
        if is_number(part) && part.parse::<u32>().ok().filter(|id| *id <= i32::MAX.unsigned_abs()).is_none() {
            return Err(EngineError::invalid(format!(
                "user or group id {part} is out of range: 0 to 2147483647 are valid"
            )));
        }
    }
    if user.contains(['\n', '\0']) || user.matches(':').count() > 1 {
        let shown: String = user.chars().take(60).collect();
        return Err(EngineError::invalid(format!("invalid user {shown:?}: expected USER or USER:GROUP")));
    }
    Ok(())
}

pub(crate) fn check_network_files(
    config: &ContainerConfig,
    host: &HostConfig,
    namespaces: &NamespaceModes,
) -> Result<()> {
    let is_joined = matches!(&namespaces.network, NetworkMode::Joined(NsMode::Container(_)));
    if is_joined {
        let conflicts = [
            ("hostname", !config.hostname.is_empty()),
            ("dns", !(host.dns.is_empty() && host.dns_options.is_empty() && host.dns_search.is_empty())),
            ("add-host", !host.extra_hosts.is_empty()),
        ];
        if let Some((flag, _)) = conflicts.into_iter().find(|(_, is_set)| *is_set) {
            return Err(EngineError::invalid(format!(
                "conflicting options: {flag} and the network mode of another container"
            )));
        }
    }
    for server in &host.dns {
        if server.parse::<IpAddr>().is_err() {
            return Err(EngineError::invalid(format!("bad DNS address {server:?}")).with_hint("as in --dns 192.0.2.1"));
        }
    }
    for text in host.dns_search.iter().chain(&host.dns_options) {
        if text.is_empty() || text.contains(char::is_whitespace) || text.contains('\0') {
            return Err(EngineError::invalid(format!("bad DNS option or search domain {text:?}")));
        }
    }
    host.extra_hosts.iter().try_for_each(|entry| extra_host(entry).map(drop))
}

/// `name:address`, or `name=address`; `host-gateway` is the bridge's address.
pub(crate) fn extra_host(entry: &str) -> Result<(&str, &str)> {
    let wrong = || {
        EngineError::invalid(format!("invalid extra host {entry:?}"))
            .with_hint("as in --add-host name:192.0.2.7 or name:host-gateway")
    };
    let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':')).ok_or_else(wrong)?;
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if is_name && (bare == "host-gateway" || bare.parse::<IpAddr>().is_ok()) { Ok((name, bare)) } else { Err(wrong()) }
}

fn rlimit_kind(name: &str) -> Option<PosixRlimitType> {
    use PosixRlimitType as T;
    Some(match name {
        "core" => T::RlimitCore,
        "cpu" => T::RlimitCpu,
        "data" => T::RlimitData,
        "fsize" => T::RlimitFsize,
        "locks" => T::RlimitLocks,
        "memlock" => T::RlimitMemlock,
        "msgqueue" => T::RlimitMsgqueue,
        "nice" => T::RlimitNice,
        "nofile" => T::RlimitNofile,
        "nproc" => T::RlimitNproc,
        "rss" => T::RlimitRss,
        "rtprio" => T::RlimitRtprio,
        "rttime" => T::RlimitRttime,
        "sigpending" => T::RlimitSigpending,
        "stack" => T::RlimitStack,
        _ => return None,
    })
}

pub(crate) fn rlimits(host: &HostConfig, facts: &HostFacts, warnings: &mut Vec<String>) -> Result<Vec<Rlimit>> {
    let mut rlimits: Vec<Rlimit> = Vec::new();
    for ulimit in &host.ulimits {
        let name = ulimit.name.to_ascii_lowercase();
        let Some(kind) = rlimit_kind(&name) else {
            return Err(EngineError::invalid(format!("invalid ulimit type: {}", ulimit.name))
                .with_hint("as in --ulimit nofile=1024:2048"));
        };
        let value = |n: i64| u64::try_from(n).unwrap_or(u64::MAX); // -1: unlimited
        if ulimit.soft < -1 || ulimit.hard < -1 {
            return Err(EngineError::invalid(format!("ulimit {name}: values are -1 (unlimited), 0 or more")));
        }
        let (mut soft, mut hard) = (value(ulimit.soft), value(ulimit.hard));
        if soft > hard {
            return Err(EngineError::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard} ({name})"
            )));
        }
        if rlimits.iter().any(|r| r.kind == kind) {
            return Err(EngineError::invalid(format!("ulimit {name} is given twice")));
        }
        if let Some(own) = facts.hard_limits.get(name.as_str()).copied().filter(|own| hard > *own)
            && !facts.has_capability(CAP_SYS_RESOURCE)
        {
            warnings.push(format!(
                "ulimit {name}: this host does not let berthd raise it above {own}, which is used instead of {hard}"
            ));
            hard = own;
            soft = soft.min(own);
        }
        rlimits.push(Rlimit { kind, soft, hard });
    }
    Ok(rlimits)
}

pub(crate) fn oom_score_adj(host: &HostConfig, facts: &HostFacts, warnings: &mut Vec<String>) -> Result<i32> {
    let Some(asked) = host.oom_score_adj else { return Ok(facts.oom_score_adj) };
    let Some(score) = i32::try_from(asked).ok().filter(|s| (-1000..=1000).contains(s)) else {
        return Err(EngineError::invalid(format!("Invalid value {asked}, range for oom score adj is [-1000, 1000]")));
    };
    if score < facts.oom_score_adj && !facts.has_capability(CAP_SYS_RESOURCE) {
        warnings.push(format!(
            "oom-score-adj {score}: this host does not let berthd go below {}, which is used instead",
            facts.oom_score_adj
        ));
        return Ok(facts.oom_score_adj);
    }
    Ok(score)
}

/// Only sysctls of a namespace the container has for itself (CVE-2022-0532): others would change the host.
pub(crate) fn check_sysctls(host: &HostConfig, namespaces: &NamespaceModes) -> Result<()> {
    const IPC: [&str; 7] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni"];
    for (name, value) in &host.sysctls {
        let has_legal_form = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
            && !name.split(['.', '/']).any(str::is_empty);
        if !has_legal_form || value.contains(['\0', '\n']) {
            return Err(EngineError::invalid(format!("invalid sysctl {name:?}"))
                .with_hint("as in --sysctl net.ipv4.ip_forward=1"));
        }
        let dotted = name.replace('/', ".");
        let is_ipc = dotted.strip_prefix("kernel.").is_some_and(|n| IPC.contains(&n) || n == "shm_rmid_forced")
            || dotted.starts_with("fs.mqueue.");
        let is_own = if is_ipc {
            namespaces.ipc == NsMode::Private
        } else if dotted.starts_with("net.") {
            namespaces.has_own_network()
        } else if matches!(dotted.as_str(), "kernel.hostname" | "kernel.domainname") {
            return Err(EngineError::invalid(format!("sysctl {name}: use --hostname and --domainname")));
        } else {
            return Err(EngineError::invalid(format!(
                "sysctl {name} is not of a namespace: it would change the whole host"
            ))
            .with_hint("allowed are net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*"));
        };
        if !is_own {
            return Err(EngineError::invalid(format!(
                "sysctl {name} is not allowed: the container shares that namespace"
            )));
        }
    }
    Ok(())
}
