//! Limits of the host that many containers, or one demanding one, run into.

use rustix::process::{Resource, getrlimit};

use super::{Check, number};

const AREA: &str = "limits";
const OPEN_FILES: u64 = 65_536;

/// A sysctl, what it should at least be, and what fails below.
const SYSCTLS: [(&str, &str, u64, &str); 7] = [
    (
        "inotify instances",
        "/proc/sys/fs/inotify/max_user_instances",
        512,
        "each follower of a log and, on cgroup v2, each shim needs one: sysctl fs.inotify.max_user_instances=1024",
    ),
    (
        "inotify watches",
        "/proc/sys/fs/inotify/max_user_watches",
        8_192,
        "programs that watch trees fail: sysctl fs.inotify.max_user_watches=524288",
    ),
    (
        "keys of root",
        "/proc/sys/kernel/keys/root_maxkeys",
        10_000,
        "each container has a session keyring: sysctl kernel.keys.root_maxkeys=1000000",
    ),
    ("process ids", "/proc/sys/kernel/pid_max", 32_768, "all containers share them: sysctl kernel.pid_max=4194304"),
    (
        "memory maps per process",
        "/proc/sys/vm/max_map_count",
        65_530,
        "databases and search engines refuse to start: sysctl vm.max_map_count=262144",
    ),
    (
        "pseudo terminals",
        "/proc/sys/kernel/pty/max",
        1_024,
        "containers with -t need one each: sysctl kernel.pty.max=4096",
    ),
    (
        "neighbour table",
        "/proc/sys/net/ipv4/neigh/default/gc_thresh3",
        1_024,
        "more containers than this on a bridge lose each other: sysctl net.ipv4.neigh.default.gc_thresh3=8192",
    ),
];

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![open_files(getrlimit(Resource::Nofile).maximum)];
    checks.extend(
        SYSCTLS.iter().filter_map(|(name, path, least, advice)| Some(sysctl(name, number(path)?, *least, advice))),
    );
    checks
}

/// The hard limit: the daemon and its shims raise the soft one by themselves up to it. `None`: unlimited.
fn open_files(limit: Option<u64>) -> Check {
    let found = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let is_enough = limit.is_none_or(|limit| limit >= OPEN_FILES);
    Check::when(
        is_enough,
        Check::warn,
        AREA,
        "open files (RLIMIT_NOFILE)",
        found,
        "a busy daemon and --ulimit nofile need more: LimitNOFILE=1048576 in its unit, or ulimit -Hn",
    )
}

fn sysctl(name: &'static str, found: u64, least: u64, advice: &str) -> Check {
    Check::when(found >= least, Check::warn, AREA, name, found.to_string(), advice)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn enough_or_not() {
        assert_eq!(open_files(Some(1024)).state, State::Warn);
        assert_eq!(open_files(None).found, "unlimited");
        assert_eq!(sysctl("x", 5, 6, "more").advice, "more");
        assert_eq!(sysctl("x", 6, 6, "more").state, State::Good);
    }
}
