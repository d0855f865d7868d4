//! The resource groups this process is in, and the limits in force there.

use crate::json::Value;
use crate::mounts::Mount;
use crate::page::{Row, Section};
use crate::unit;

/// One line of `/proc/self/cgroup`: `id:controllers:path`. No controllers: the v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    controllers: String,
    path: String,
}

/// Controller, file, label: what we look for in version 1 and in version 2.
const LIMITS_V1: [(&str, &str, &str); 10] = [
    ("memory", "memory.limit_in_bytes", "memory"),
    ("memory", "memory.memsw.limit_in_bytes", "memory and swap"),
    ("memory", "memory.soft_limit_in_bytes", "memory reservation"),
    ("cpu", "cpu.shares", "cpu shares"),
    ("cpu", "cpu.cfs_quota_us", "cpu quota"),
    ("cpuset", "cpuset.cpus", "processors"),
    ("cpuset", "cpuset.mems", "memory nodes"),
    ("pids", "pids.max", "processes"),
    ("blkio", "blkio.weight", "disk weight"),
    ("devices", "devices.list", "devices"),
];
const LIMITS_V2: [(&str, &str); 8] = [
    ("memory.max", "memory"),
    ("memory.swap.max", "swap"),
    ("memory.low", "memory reservation"),
    ("cpu.max", "cpu quota"),
    ("cpu.weight", "cpu weight"),
    ("cpuset.cpus.effective", "processors"),
    ("pids.max", "processes"),
    ("io.max", "disk rates"),
];

/// Version 1 says "no limit" with the largest multiple of a page.
const UNLIMITED_V1: u64 = 0x7fff_ffff_ffff_f000;

pub(crate) fn section(mounts: &[Mount]) -> Section {
    let memberships: Vec<Membership> = unit::read("/proc/self/cgroup")
        .map(|text| text.lines().filter_map(Membership::parse).collect())
        .unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    for membership in &memberships {
        let name = if membership.controllers.is_empty() { "v2" } else { &membership.controllers };
        rows.push(Row::new(format!("group {name}"), &membership.path, ""));
    }
    let mut limits = Vec::new();
    for (controller, file, label) in LIMITS_V1 {
        let membership = memberships.iter().find(|it| it.controllers.split(',').any(|name| name == controller));
        if let Some(directory) = membership.and_then(|it| it.directory(mounts, Some(controller))) {
            push_limit(&mut rows, &mut limits, &directory, file, label);
        }
    }
    let unified = memberships.iter().find(|it| it.controllers.is_empty());
    if let Some(directory) = unified.and_then(|it| it.directory(mounts, None)) {
        for (file, label) in LIMITS_V2 {
            push_limit(&mut rows, &mut limits, &directory, file, label);
        }
    }
    if limits.is_empty() {
        rows.push(Row::new("limits", "unreadable", "no group of this process is mounted here"));
    }
    let groups = memberships
        .into_iter()
        .map(|it| Value::object([("controllers", Value::from(it.controllers)), ("path", it.path.into())]));
    let json = Value::object([("groups", Value::list(groups)), ("limits", Value::object(limits))]);
    Section {
        key: "cgroups",
        title: "Cgroups",
        meaning: "what it may use of the machine, as the kernel enforces it",
        rows,
        json,
    }
}

fn push_limit(rows: &mut Vec<Row>, limits: &mut Vec<(String, Value)>, directory: &str, file: &str, label: &str) {
    let Some(text) = unit::read(format!("{directory}/{file}")) else { return };
    let period = unit::read(format!("{directory}/cpu.cfs_period_us"));
    rows.push(Row::new(label, meaning(file, &text, period.as_deref()), file));
    limits.push((file.to_owned(), text.into()));
}

impl Membership {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ':').skip(1);
        Some(Self { controllers: parts.next()?.to_owned(), path: parts.next()?.to_owned() })
    }

    /// Where the group is mounted, if it is: the mount shows the tree below its own root.
    fn directory(&self, mounts: &[Mount], controller: Option<&str>) -> Option<String> {
        let fits = |mount: &&Mount| match controller {
            Some(name) => mount.kind == "cgroup" && mount.super_options.split(',').any(|option| option == name),
            None => mount.kind == "cgroup2",
        };
        mounts.iter().filter(fits).find_map(|mount| {
            let below = self.path.strip_prefix(mount.root.trim_end_matches('/'))?;
            let below = below.trim_end_matches('/');
            (below.is_empty() || below.starts_with('/')).then(|| format!("{}{below}", mount.target))
        })
    }
}

/// The content of a file, in words.
fn meaning(file: &str, text: &str, period: Option<&str>) -> String {
    let number = text.parse::<u64>().ok();
    match (file, number) {
        (_, None) if text == "max" => "no limit".to_owned(),
        (_, Some(bytes)) if file.starts_with("memory.") && bytes >= UNLIMITED_V1 => "no limit".to_owned(),
        (_, Some(bytes)) if file.starts_with("memory.") => unit::bytes(bytes),
        ("cpu.cfs_quota_us", _) if text.starts_with('-') => "no limit".to_owned(),
        ("cpu.cfs_quota_us", Some(quota)) => processors(quota, period.and_then(|text| text.parse().ok())),
        ("cpu.max", _) => match text.split_once(' ') {
            Some(("max", _)) => "no limit".to_owned(),
            Some((quota, period)) => processors(quota.parse().unwrap_or_default(), period.parse().ok()),
            None => text.to_owned(),
        },
        ("devices.list", _) if text == "a *:* rwm" => "all".to_owned(),
        ("devices.list", _) => unit::plural(text.lines().count(), "rule", "rules"),
        _ if text.is_empty() => "none".to_owned(),
        _ => text.replace('\n', "; "),
    }
}

fn processors(quota: u64, period: Option<u64>) -> String {
    match period {
        Some(period) if period > 0 => {
            let hundredths = u128::from(quota) * 100 / u128::from(period);
            format!("{}.{:02} processors", hundredths / 100, hundredths % 100)
        }
        _ => format!("{quota} us in each period"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_words() {
        assert_eq!(meaning("memory.limit_in_bytes", "67108864", None), "64 MiB");
        assert_eq!(meaning("memory.limit_in_bytes", "9223372036854771712", None), "no limit");
        assert_eq!(meaning("memory.max", "max", None), "no limit");
        assert_eq!(meaning("cpu.cfs_quota_us", "-1", Some("100000")), "no limit");
        assert_eq!(meaning("cpu.cfs_quota_us", "150000", Some("100000")), "1.50 processors");
        assert_eq!(meaning("cpu.max", "50000 100000", None), "0.50 processors");
        assert_eq!(meaning("devices.list", "c 1:3 rwm\nc 1:5 rwm", None), "2 rules");
        assert_eq!(meaning("pids.max", "100", None), "100");
    }

    #[test]
    fn the_directory_of_a_group() {
        let mount = |root: &str, target: &str, kind: &str, options: &str| Mount {
            root: root.to_owned(),
            target: target.to_owned(),
            options: "rw".to_owned(),
            kind: kind.to_owned(),
            source: "cgroup".to_owned(),
            super_options: options.to_owned(),
        };
        let mounts = [
            mount("/berth/abc", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            mount("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
        ];
        let member = |line| Membership::parse(line).unwrap();
        let found = member("4:memory:/berth/abc/x").directory(&mounts, Some("memory"));
        assert_eq!(found.as_deref(), Some("/sys/fs/cgroup/memory/x"));
        assert_eq!(member("4:memory:/berth/abcd").directory(&mounts, Some("memory")), None);
        assert_eq!(member("0::/").directory(&mounts, None).as_deref(), Some("/sys/fs/cgroup/unified"));
    }
}
