//! Flags of the verbs that change a running container.

use crate::cases::Case;
use crate::cases::Effect::{Inspects, Prints, Refused, Takes};
use crate::special;

/// `exec FLAGS changed sh -c SCRIPT`.
pub(crate) const EXEC: &[Case] = &[
    ("--detach", &[], Takes(special::exec_detaches)),
    ("--detach-keys", &[], Takes(special::exec_detach_keys)),
    ("--env", &["-e", "ONE=1"], Prints("env", "ONE=1")),
    ("--env-file", &["--env-file", "DIR/env"], Prints("env", "FROM_FILE=yes")),
    ("--interactive", &["-i"], Prints("cat", "from the client")),
    ("--privileged", &["--privileged"], Prints("cat /proc/self/status", "CapEff:\t000001f")),
    ("--tty", &["-t"], Prints("tty", "/dev/pts/")),
    ("--user", &["-u", "7:8"], Prints("id", "uid=7 gid=8")),
    ("--workdir", &["-w", "/usr"], Prints("pwd", "/usr")),
    ("--trace", &["--trace"], Prints("true", "runtime")),
    ("--help", &["--help"], Prints("true", "Usage")),
];

/// `update FLAGS changed`, and what the kernel or the record then says.
pub(crate) const UPDATE: &[Case] = &[
    ("--memory", &["-m", "64m"], Prints("cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864")),
    (
        "--memory-reservation",
        &["--memory-reservation", "32m"],
        Prints("cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes", "33554432"),
    ),
    ("--memory-swap", &["-m", "64m", "--memory-swap", "96m"], Inspects("{{.HostConfig.MemorySwap}}", "100663296")),
    ("--cpus", &["--cpus", "0.5"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")),
    ("--cpu-shares", &["-c", "512"], Prints("cat /sys/fs/cgroup/cpu/cpu.shares", "512")),
    ("--cpu-period", &["--cpu-period", "60000"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_period_us", "60000")),
    ("--cpu-quota", &["--cpu-quota", "30000"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "30000")),
    ("--cpu-rt-period", &["--cpu-rt-period", "500000"], Prints("cat /sys/fs/cgroup/cpu/cpu.rt_period_us", "500000")),
    ("--cpu-rt-runtime", &["--cpu-rt-runtime", "100000"], Refused("rt_runtime")),
    ("--cpuset-cpus", &["--cpuset-cpus", "1"], Prints("cat /sys/fs/cgroup/cpuset/cpuset.cpus", "1")),
    ("--cpuset-mems", &["--cpuset-mems", "77"], Refused("77")),
    ("--pids-limit", &["--pids-limit", "21"], Prints("cat /sys/fs/cgroup/pids/pids.max", "21")),
    ("--blkio-weight", &["--blkio-weight", "300"], Prints("cat /sys/fs/cgroup/blkio/blkio.bfq.weight", "300")),
    ("--memory-swappiness", &["--memory-swappiness", "3"], Prints("cat /sys/fs/cgroup/memory/memory.swappiness", "3")),
    ("--restart", &["--restart", "on-failure:3"], Inspects("{{.HostConfig.RestartPolicy}}", "on-failure")),
    ("--kernel-memory", &[], Takes(special::kernel_memory_of_update)),
    ("--help", &[], Takes(special::update_help)),
];
