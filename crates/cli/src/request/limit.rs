//! Limits: sizes, CPUs, ulimits, restart policies; the flags that `run`, `create` and `update` share.

use berth_types::{ByteCount, Signal};
use bollard_stubs::models::{HostConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum};
use clap::Args;

use crate::failure::{Failure, Outcome};

// No doc comment on flattened groups: clap would take it for the command's description.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitOptions {
    /// Memory limit (64m, 1.5g)
    #[arg(short = 'm', long, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory_reservation: Option<String>,
    /// Memory plus swap; -1 is unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Number of CPUs (1.5)
    #[arg(long, value_name = "DECIMAL")]
    pub(crate) cpus: Option<String>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long, value_name = "INT")]
    pub(crate) cpu_shares: Option<i64>,
    /// CPU CFS period, microseconds
    #[arg(long, value_name = "INT")]
    pub(crate) cpu_period: Option<i64>,
    /// CPU CFS quota, microseconds
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU real-time period, microseconds
    #[arg(long, value_name = "INT")]
    pub(crate) cpu_rt_period: Option<i64>,
    /// CPU real-time runtime, microseconds
    #[arg(long, value_name = "INT")]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPUs to run on (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Number of processes and threads; -1 is unlimited
    #[arg(long, value_name = "INT", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Block I/O weight, 10 to 1000, 0 is none
    #[arg(long, value_name = "INT")]
    pub(crate) blkio_weight: Option<u16>,
}

impl LimitOptions {
    /// Writes what was given into `host`; what was not stays.
    pub(crate) fn apply(&self, host: &mut HostConfig) -> Outcome<()> {
        host.memory = optional_bytes("--memory", self.memory.as_deref())?;
        host.memory_reservation = optional_bytes("--memory-reservation", self.memory_reservation.as_deref())?;
        host.memory_swap = match self.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            text => optional_bytes("--memory-swap", text)?,
        };
        host.nano_cpus = self.cpus.as_deref().map(nano_cpus).transpose()?;
        if self.cpus.is_some() && (self.cpu_quota.is_some() || self.cpu_period.is_some()) {
            return Err(Failure::new("--cpus excludes --cpu-period and --cpu-quota"));
        }
        host.cpu_shares = self.cpu_shares;
        host.cpu_period = self.cpu_period;
        host.cpu_quota = self.cpu_quota;
        host.cpu_realtime_period = self.cpu_rt_period;
        host.cpu_realtime_runtime = self.cpu_rt_runtime;
        host.cpuset_cpus.clone_from(&self.cpuset_cpus);
        host.cpuset_mems.clone_from(&self.cpuset_mems);
        host.pids_limit = self.pids_limit;
        if self.blkio_weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
            return Err(Failure::new("invalid --blkio-weight: it is 10 to 1000, or 0"));
        }
        host.blkio_weight = self.blkio_weight;
        Ok(())
    }
}

pub(super) fn bytes(flag: &str, text: &str) -> Outcome<i64> {
    let count =
        text.parse::<ByteCount>().map_err(|error| Failure::new(format!("invalid {flag} {text:?}")).because(&error))?;
    i64::try_from(count.0).map_err(|_| Failure::new(format!("invalid {flag} {text:?}: it is too large")))
}

fn optional_bytes(flag: &str, text: Option<&str>) -> Outcome<Option<i64>> {
    text.map(|text| bytes(flag, text)).transpose()
}

/// Exact: at most nine decimals, no floating point.
fn nano_cpus(text: &str) -> Outcome<i64> {
    let wrong = || Failure::new(format!("invalid --cpus {text:?}")).hint("write a decimal number, as in 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| wrong())? };
    let fraction = format!("{fraction:0<9}").parse::<i64>().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(fraction)).ok_or_else(wrong)
}

const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`; -1 is unlimited.
pub(super) fn parse_ulimit(text: &str) -> Outcome<ResourcesUlimits> {
    let wrong = |why: &str| {
        Failure::new(format!("invalid --ulimit {text:?}: {why}")).hint("for example --ulimit nofile=1024:2048")
    };
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("expected name=soft[:hard]"))?;
    if !ULIMITS.contains(&name) {
        return Err(wrong(&format!("unknown name; there are {}", ULIMITS.join(", "))));
    }
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "unlimited" => Some(-1),
        text => text.parse::<i64>().ok().filter(|number| *number >= -1),
    };
    let (Some(soft), Some(hard)) = (number(soft), number(hard)) else {
        return Err(wrong("a limit is a number, or -1"));
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(wrong("the soft limit is above the hard one"));
    }
    Ok(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:retries]`.
pub(crate) fn restart_policy(text: &str) -> Outcome<RestartPolicy> {
    let wrong = || {
        Failure::new(format!("invalid --restart {text:?}"))
            .hint("it is no, always, unless-stopped or on-failure[:retries]")
    };
    let (name, retries) = match text.split_once(':') {
        Some((name, retries)) => (name, Some(retries)),
        None => (text, None),
    };
    let name = match name {
        "" | "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => return Err(wrong()),
    };
    let retries = match retries {
        None => 0,
        Some(_) if name != RestartPolicyNameEnum::ON_FAILURE => return Err(wrong()),
        Some(text) => i64::from(text.parse::<u32>().map_err(|_| wrong())?),
    };
    Ok(RestartPolicy { name: Some(name), maximum_retry_count: Some(retries) })
}

/// A signal as the daemon takes it, checked here so that the error names the flag.
pub(super) fn check_signal(flag: &str, text: &str) -> Outcome<String> {
    text.parse::<Signal>()
        .map(|_| text.to_owned())
        .map_err(|error| Failure::new(format!("invalid {flag} {text:?}")).because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus() {
        for (text, nanos) in
            [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("1.000000001", 1_000_000_001)]
        {
            assert_eq!(nano_cpus(text).unwrap(), nanos, "{text}");
        }
        for bad in ["", ".", "-1", "1e3", "1.0000000001", "a", "99999999999999999999"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits() {
        let shown = |text: &str| parse_ulimit(text).map(|u| (u.soft.unwrap(), u.hard.unwrap())).map_err(|f| f.message);
        assert_eq!(shown("nofile=1024:2048"), Ok((1024, 2048)));
        assert_eq!(shown("core=-1"), Ok((-1, -1)));
        assert_eq!(shown("nproc=5"), Ok((5, 5)));
        for bad in ["nofile", "nope=1", "nofile=a", "nofile=3:2", "nofile=-1:2", "nofile=-2"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn restart() {
        let shown = |text: &str| serde_json::to_value(restart_policy(text).unwrap()).unwrap();
        assert_eq!(shown("on-failure:3"), serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 3}));
        assert_eq!(shown("always")["Name"], "always");
        for bad in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(restart_policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("--memory", "64m").unwrap(), 64 << 20);
        let failure = bytes("--memory", "64q").unwrap_err();
        assert_eq!(failure.message, "invalid --memory \"64q\"");
        assert_eq!(failure.because.len(), 1);
    }
}
