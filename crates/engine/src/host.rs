//! What this host has, read once at start: processors, memory, control groups, our own limits. Everything that plans gets it as data.

use std::collections::BTreeMap;
use std::path::Path;

use berth_cgroup::Layout;
use rustix::process::Resource;

use crate::api::CgroupDriver;
use crate::error::{EngineError, Result};

/// Facts that decide whether a request can be honoured. Tests make their own.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    pub(crate) cpus: usize,
    /// `0-3,8`, as the kernel lists them.
    pub(crate) cpu_list: String,
    pub(crate) memory_node_list: String,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel_release: String,
    /// 1 or 2; a hybrid host counts as 1.
    pub(crate) cgroup_version: u8,
    pub(crate) cgroups: Option<Layout>,
    pub(crate) cgroup_driver: CgroupDriver,
    /// Bit per capability number that we have and could give.
    pub(crate) capabilities: u64,
    /// Hard limits of the daemon itself, by `ulimit` name; absent: unlimited.
    pub(crate) hard_limits: BTreeMap<&'static str, u64>,
    pub(crate) oom_score_adj: i32,
    pub(crate) has_apparmor: bool,
    pub(crate) has_selinux: bool,
    /// `thermal_throttle` directories of the processors: counters that tell other tenants' load.
    pub(crate) thermal_paths: Vec<String>,
}

pub(crate) const CAP_SYS_RESOURCE: u32 = 24;

/// `ulimit` names of Docker and the kernel's numbers.
pub(crate) const LIMITS: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl HostFacts {
    /// Reads them from `/proc` and `/sys`.
    ///
    /// # Errors
    /// When no control groups are mounted: nothing could be limited or stopped reliably.
    pub(crate) fn read(cgroup_driver: CgroupDriver) -> Result<Self> {
        check_driver(cgroup_driver, Path::new("/run/systemd/system").exists())?;
        let cgroups = Layout::detect()?;
        let cpu_list = first_line("/sys/devices/system/cpu/online", "0");
        let lsm = first_line("/sys/kernel/security/lsm", "");
        let has_lsm = |name: &str| lsm.split(',').any(|l| l == name);
        let processors = list_items(&cpu_list).unwrap_or_default();
        let thermal = |cpu: &u32| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
        Ok(Self {
            thermal_paths: processors.iter().map(thermal).filter(|path| Path::new(path).exists()).collect(),
            cpus: processors.len().max(1),
            cpu_list,
            memory_node_list: first_line("/sys/devices/system/node/online", "0"),
            memory_bytes: memory_bytes(),
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            cgroup_version: if cgroups.version_text() == "2" { 2 } else { 1 },
            cgroups: Some(cgroups),
            cgroup_driver,
            capabilities: own_capabilities(),
            hard_limits: hard_limits(),
            oom_score_adj: first_line("/proc/self/oom_score_adj", "0").parse().unwrap_or(0),
            has_apparmor: has_lsm("apparmor") || first_line("/sys/module/apparmor/parameters/enabled", "N") == "Y",
            has_selinux: has_lsm("selinux") || Path::new("/sys/fs/selinux/enforce").exists(),
        })
    }

    pub(crate) const fn has_capability(&self, number: u32) -> bool {
        self.capabilities & (1 << number) != 0
    }

    /// Major and minor of the kernel (6, 18).
    pub(crate) fn kernel(&self) -> (u32, u32) {
        let mut numbers = self.kernel_release.split(['.', '-', '+']).map_while(|n| n.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

fn first_line(path: &str, otherwise: &str) -> String {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| otherwise.to_owned())
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

fn own_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    bounding.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn hard_limits() -> BTreeMap<&'static str, u64> {
    LIMITS.iter().filter_map(|(name, resource)| Some((*name, rustix::process::getrlimit(*resource).maximum?))).collect()
}

/// The numbers of a kernel list such as `0-2,7`; `None` when it is not one (or longer than any kernel's).
pub(crate) fn list_items(text: &str) -> Option<Vec<u32>> {
    const ITEMS_MAX: u32 = 8192;
    let mut items = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_digits(first)?, parse_digits(last)?);
        if first > last || last >= ITEMS_MAX {
            return None;
        }
        items.extend(first..=last);
    }
    items.sort_unstable();
    items.dedup();
    Some(items)
}

fn parse_digits(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// sd_booted(3): the directory is there where systemd is process 1.
fn check_driver(driver: CgroupDriver, has_systemd: bool) -> Result<()> {
    if driver == CgroupDriver::Systemd && !has_systemd {
        let message = "the cgroup driver systemd is asked, but this host was not booted by systemd";
        return Err(EngineError::conflict(message).with_hint("use --cgroup-manager cgroupfs"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// S-046: a driver this host cannot have is refused when the daemon starts.
    #[test]
    fn s046_systemd_is_asked_where_it_is() {
        assert!(
            check_driver(CgroupDriver::Systemd, true).is_ok() && check_driver(CgroupDriver::Cgroupfs, false).is_ok()
        );
        let error = check_driver(CgroupDriver::Systemd, false).unwrap_err();
        assert!(error.message.contains("systemd") && error.hint.unwrap().contains("cgroupfs"));
    }

    /// A host of four processors and 8 GiB, cgroup v2, all capabilities.
    pub(crate) fn facts() -> HostFacts {
        HostFacts {
            cpus: 4,
            cpu_list: "0-3".to_owned(),
            memory_node_list: "0".to_owned(),
            memory_bytes: 8 << 30,
            kernel_release: "6.18.5".to_owned(),
            cgroup_version: 2,
            cgroups: None,
            cgroup_driver: CgroupDriver::Cgroupfs,
            capabilities: (1 << 41) - 1,
            hard_limits: BTreeMap::from([("nofile", 20_000)]),
            oom_score_adj: 0,
            has_apparmor: false,
            has_selinux: false,
            thermal_paths: Vec::new(),
        }
    }

    #[test]
    fn kernel_lists() {
        assert_eq!(list_items("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert_eq!(list_items("3,3"), Some(vec![3]));
        for bad in ["", "a", "2-1", "0-", "-1", "1,,2", "0-99999999", "+1"] {
            assert_eq!(list_items(bad), None, "{bad}");
        }
        assert_eq!(facts().kernel(), (6, 18));
    }
}
