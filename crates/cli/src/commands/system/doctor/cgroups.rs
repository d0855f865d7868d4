//! Control groups: layout, controllers, and which limits can be enforced.

use std::path::{Path, PathBuf};

use super::{Check, line};

const AREA: &str = "control groups";
const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers by their v1 and v2 names, and the flags that need them.
const CONTROLLERS: [(&str, &str, &str); 7] = [
    ("memory", "memory", "-m and all memory limits"),
    ("cpu", "cpu", "--cpus, --cpu-shares, --cpu-quota"),
    ("cpuset", "cpuset", "--cpuset-cpus, --cpuset-mems"),
    ("pids", "pids", "--pids-limit"),
    ("blkio", "io", "--device-read-bps and alike, --blkio-weight"),
    ("hugetlb", "hugetlb", "limits of huge pages"),
    ("rdma", "rdma", "limits of RDMA"),
];
/// Without these a container is not held together.
const NEEDED_V1: [&str; 2] = ["devices", "freezer"];

pub(super) fn checks() -> Vec<Check> {
    let unified = Path::new(MOUNT).join("cgroup.controllers");
    if let Ok(controllers) = std::fs::read_to_string(unified) {
        return v2(&controllers, Path::new(MOUNT));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    v1(&v1_mounts(&mounts), Path::new(MOUNT).join("unified").exists())
}

fn v2(controllers: &str, mount: &Path) -> Vec<Check> {
    let has = |name: &str| controllers.split_whitespace().any(|own| own == name);
    let mut checks = vec![Check::good(AREA, "layout", "v2")];
    checks.extend(CONTROLLERS.iter().map(|(_, name, flags)| controller(name, has(name), flags, "enable it for the root group (cgroup.subtree_control), or with cgroup_enable= on the kernel's command line")));
    let swap = std::fs::read_dir(mount)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path().join("memory.swap.max").exists());
    checks.push(swap_check(swap || !has("memory")));
    checks.push(pressure());
    checks
}

/// Controllers of a v1 hierarchy and where it is mounted.
fn v1_mounts(mounts: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [_, target, "cgroup", options, ..] = words.as_slice() {
            found.extend(options.split(',').map(|option| (option.to_owned(), PathBuf::from(target))));
        }
    }
    found
}

fn v1(mounts: &[(String, PathBuf)], is_hybrid: bool) -> Vec<Check> {
    let place = |name: &str| mounts.iter().find(|(own, _)| own == name).map(|(_, path)| path);
    if mounts.is_empty() {
        return vec![Check::bad(
            AREA,
            "layout",
            "none is mounted",
            "nothing can be limited or stopped reliably: mount -t cgroup2 none /sys/fs/cgroup",
        )];
    }
    let mut checks =
        vec![Check::good(AREA, "layout", if is_hybrid { "v1 with a v2 hierarchy beside it (hybrid)" } else { "v1" })];
    checks.extend(CONTROLLERS.iter().map(|(name, _, flags)| {
        controller(name, place(name).is_some(), flags, "mount its hierarchy below /sys/fs/cgroup")
    }));
    for name in NEEDED_V1 {
        let has = place(name).is_some();
        checks.push(Check::when(
            has,
            Check::bad,
            AREA,
            name,
            if has { "yes" } else { "no" },
            "containers would not be held together: mount its hierarchy below /sys/fs/cgroup",
        ));
    }
    let swap = place("memory").is_none_or(|memory| memory.join("memory.memsw.limit_in_bytes").exists());
    checks.push(swap_check(swap));
    checks.push(pressure());
    checks
}

fn controller(name: &'static str, has: bool, flags: &str, way_out: &str) -> Check {
    Check::when(has, Check::warn, AREA, name, if has { "yes" } else { "no" }, &format!("{flags} fail: {way_out}"))
}

fn swap_check(has: bool) -> Check {
    Check::when(
        has,
        Check::warn,
        AREA,
        "swap accounting",
        if has { "yes" } else { "no" },
        "--memory-swap fails: boot with swapaccount=1",
    )
}

fn pressure() -> Check {
    let has = line("/proc/pressure/memory").is_some();
    Check::when(
        has,
        Check::warn,
        AREA,
        "pressure (PSI)",
        if has { "yes" } else { "no" },
        "metrics have no pressure: boot with psi=1",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn state(checks: &[Check], name: &str) -> State {
        checks.iter().find(|check| check.name == name).unwrap().state
    }

    #[test]
    fn layouts() {
        let mounts =
            v1_mounts("cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /x cgroup rw,devices,freezer 0 0\n");
        let checks = v1(&mounts, false);
        assert_eq!((state(&checks, "memory"), state(&checks, "pids")), (State::Good, State::Warn));
        assert_eq!((state(&checks, "devices"), state(&checks, "freezer")), (State::Good, State::Good));
        assert_eq!(state(&v1(&[], false), "layout"), State::Bad);
        let checks = v2("cpu io memory pids", Path::new("/nowhere"));
        assert_eq!((state(&checks, "io"), state(&checks, "cpuset")), (State::Good, State::Warn));
        assert_eq!(state(&checks, "swap accounting"), State::Warn);
    }
}
