//! The picture of what tests may leave behind: mounts, cgroups, links, processes. Taken before and after; both must agree.

use std::collections::BTreeSet;
use std::path::Path;

/// What there is of a kind of thing, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub mounts: BTreeSet<String>,
    pub cgroups: BTreeSet<String>,
    pub links: BTreeSet<String>,
    /// Processes whose executable is one of ours.
    pub processes: BTreeSet<String>,
}

impl Picture {
    /// `cgroup_parent`: the parent below which tests make theirs (`/berth-test`).
    pub fn take(cgroup_parent: &str) -> Self {
        Self { mounts: mounts(), cgroups: cgroups(cgroup_parent), links: links(), processes: processes() }
    }

    /// What is here and not in `before`, one line each.
    pub fn new_since(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, now, then) in [
            ("mount", &self.mounts, &before.mounts),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("link", &self.links, &before.links),
            ("process", &self.processes, &before.processes),
        ] {
            lines.extend(now.difference(then).map(|name| format!("{kind} {name}")));
        }
        lines
    }
}

fn mounts() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

fn cgroups(parent: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let parent = parent.trim_start_matches('/');
    let mut roots = vec![Path::new("/sys/fs/cgroup").to_owned()];
    roots.extend(std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()));
    for root in roots {
        let mut pending = vec![root.join(parent)];
        while let Some(directory) = pending.pop() {
            if !directory.is_dir() {
                continue;
            }
            pending.extend(
                std::fs::read_dir(&directory).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()),
            );
            found.insert(directory.display().to_string());
        }
    }
    found
}

/// Takes away the groups of a parent that nothing is in; runtimes leave the ones above their own.
pub fn remove_empty_groups(parent: &str) {
    // The deepest first. One that is in use stays, and is found by the next look.
    for directory in cgroups(parent).into_iter().rev() {
        std::fs::remove_dir(directory).unwrap_or(());
    }
}

fn links() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    text.lines().skip(2).filter_map(|line| line.split(':').next()).map(|name| name.trim().to_owned()).collect()
}

fn processes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if ["berthd", "containerd-shim", "runb", "berth"].iter().any(|ours| name.starts_with(ours)) {
            found.insert(format!("{pid} {}", name.trim()));
        }
    }
    found
}
