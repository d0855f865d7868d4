//! The controllers by the names both versions use, and the core files that belong to none.

use std::fmt;

/// A resource controller. One name for both versions: `BlockIo` is `blkio` on v1 and `io` on v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Devices,
    Freezer,
    BlockIo,
    Pids,
    Hugetlb,
    NetCls,
    NetPrio,
    PerfEvent,
    Rdma,
    Misc,
    Dmem,
    /// Files of the hierarchy itself (`cgroup.*`) on v2.
    Core,
}

impl Controller {
    const ALL: [Self; 15] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::BlockIo,
        Self::Pids,
        Self::Hugetlb,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
        Self::Rdma,
        Self::Misc,
        Self::Dmem,
    ];

    /// Its name in a v1 hierarchy's mount options and `/proc/self/cgroup`.
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::BlockIo => "blkio",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
            Self::Dmem => "dmem",
            Self::Core => "cgroup",
        }
    }

    /// Its name in `cgroup.controllers` and as the prefix of v2 files.
    pub fn v2_name(self) -> &'static str {
        match self {
            Self::BlockIo => "io",
            Self::Cpuacct => "cpu",
            other => other.v1_name(),
        }
    }

    /// The controller a v2 file belongs to, by the part of its name before the first dot.
    pub fn of_v2_file(file: &str) -> Option<Self> {
        let (prefix, _) = file.split_once('.')?;
        if prefix == "cgroup" {
            return Some(Self::Core);
        }
        Self::ALL.into_iter().find(|controller| *controller != Self::Cpuacct && controller.v2_name() == prefix)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.v1_name())
    }
}
