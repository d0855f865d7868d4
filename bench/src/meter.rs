//! Processor time of one candidate and of all it sets in motion: a group of its own in the `cpuacct` hierarchy, in which its daemons,
//! clients, shims and containers are. On a pure cgroup v2 host the whole machine's time stands for it.

use std::fs;
use std::path::{Path, PathBuf};

/// Parent of all groups that a benchmark makes, in every hierarchy.
pub const CGROUP_PARENT: &str = "/berth-bench";

const ACCOUNTING: &str = "/sys/fs/cgroup/cpuacct";

#[derive(Debug)]
pub struct Meter {
    /// `None` on v2.
    group: Option<PathBuf>,
    path: String,
}

impl Meter {
    pub fn new(name: &str) -> Self {
        let path = format!("{CGROUP_PARENT}/{name}");
        let group = Path::new(ACCOUNTING).is_dir().then(|| PathBuf::from(format!("{ACCOUNTING}{path}")));
        if let Some(group) = &group {
            fs::create_dir_all(group).unwrap();
        }
        Self { group, path }
    }

    /// Where the candidate's containers belong.
    pub fn cgroup_path(&self) -> &str {
        &self.path
    }

    /// Whatever this process starts from now on is counted here.
    pub fn enter(&self) {
        if let Some(group) = &self.group {
            fs::write(group.join("cgroup.procs"), "0").unwrap();
        }
    }

    /// Nanoseconds so far.
    pub fn usage_ns(&self) -> u64 {
        match &self.group {
            Some(group) => {
                let text = fs::read_to_string(group.join("cpuacct.usage")).unwrap();
                text.trim().parse().expect("cpuacct.usage is a number")
            }
            None => {
                let text = fs::read_to_string("/sys/fs/cgroup/cpu.stat").expect("a cgroup hierarchy is mounted");
                let usage =
                    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("cpu.stat has usage_usec");
                usage.parse::<u64>().expect("usage_usec is a number") * 1000
            }
        }
    }
}

/// Leaves every group and removes what the benchmark made, in all hierarchies.
pub fn remove_all() {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let root = hierarchy.path();
        let ours = root.join(CGROUP_PARENT.trim_start_matches('/'));
        if ours.is_dir() {
            fs::write(root.join("cgroup.procs"), "0").unwrap();
            remove_tree(&ours);
        }
    }
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(group) {
        eprintln!("cannot remove {}: {error}", group.display());
    }
}
