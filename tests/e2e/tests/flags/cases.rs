//! Each flag, what it is given, and what must be seen.

use berth_testkit::Instance;

use crate::{Client, special};

/// What shows that a flag does something.
pub(crate) enum Effect {
    /// `run --rm FLAGS busybox sh -c SCRIPT` prints a line that contains the text.
    Prints(&'static str, &'static str),
    /// `inspect --format TEMPLATE` of a container created with it contains the text.
    Inspects(&'static str, &'static str),
    /// The engine refuses it on this host (code 125) and says this.
    Refused(&'static str),
    /// It takes more than one command to see.
    Takes(fn(&Instance, Client<'_>)),
}
use Effect::{Inspects, Prints, Refused, Takes};

const MEMORY: &str = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
const STATUS: &str = "cat /proc/self/status";

/// Flag, the words it is given with, its effect. `DIR` in the words is a directory of the host with some files.
pub(crate) type Case = (&'static str, &'static [&'static str], Effect);

pub(crate) const CASES: &[Case] = &[
    ("--detach", &[], Takes(special::detaches)),
    ("--detach-keys", &[], Takes(special::detach_keys)),
    ("--sig-proxy", &[], Takes(special::signals)),
    ("--interactive", &["-i"], Prints("cat; echo end", "from the client")),
    ("--tty", &["-t"], Prints("tty", "/dev/pts/0")),
    ("--attach", &[], Takes(special::attaches_one)),
    ("--entrypoint", &["--entrypoint", "/bin/echo"], Prints("x", "-c x")),
    ("--env", &["-e", "ONE=1"], Prints("env", "ONE=1")),
    ("--env-file", &["--env-file", "DIR/env"], Prints("env", "FROM_FILE=yes")),
    ("--user", &["-u", "7:8"], Prints("id", "uid=7 gid=8")),
    ("--group-add", &["--group-add", "77"], Prints("id", "77")),
    ("--workdir", &["-w", "/usr"], Prints("pwd", "/usr")),
    ("--init", &["--init"], Prints("cat /proc/1/comm", "docker-init")),
    ("--stop-signal", &["--stop-signal", "USR1"], Inspects("{{.Config.StopSignal}}", "USR1")),
    ("--stop-timeout", &["--stop-timeout", "7"], Inspects("{{.Config.StopTimeout}}", "7")),
    // Accepted where every other flag of health checks is refused: none is run.
    ("--no-healthcheck", &["--no-healthcheck"], Inspects("{{.State.Status}}", "created")),
    ("--volume", &["-v", "DIR:/given"], Prints("ls /given", "env")),
    ("--volumes-from", &["--volumes-from", "neighbour"], Prints("ls /shared", "env")),
    ("--volume-driver", &["--volume-driver", "nonsense", "-v", "named:/x"], Refused("nonsense")),
    (
        "--mount",
        &["--mount", "type=bind,source=DIR,target=/given,readonly"],
        Prints("touch /given/x 2>&1", "Read-only"),
    ),
    ("--tmpfs", &["--tmpfs", "/given:size=64k"], Prints("grep given /proc/mounts", "size=64k")),
    ("--read-only", &["--read-only"], Prints("touch /x 2>&1", "Read-only")),
    ("--shm-size", &["--shm-size", "1m"], Prints("grep /dev/shm /proc/mounts", "size=1024k")),
    ("--device", &["--device", "/dev/null:/dev/mine"], Prints("ls -l /dev/mine", "1,   3")),
    (
        "--device-cgroup-rule",
        &["--device-cgroup-rule", "c 10:229 r"],
        Prints("cat /sys/fs/cgroup/devices/devices.list", "c 10:229 r"),
    ),
    ("--network", &["--network", "none"], Prints("ls /sys/class/net | tr '\\n' ' '; echo end", "lo end")),
    ("--publish", &["-p", "127.0.0.1::80"], Inspects("{{.HostConfig.PortBindings}}", "127.0.0.1")),
    ("--expose", &["--expose", "81"], Inspects("{{.Config.ExposedPorts}}", "81/tcp")),
    ("--hostname", &["-h", "called"], Prints("hostname", "called")),
    ("--domainname", &["--domainname", "dom.ain"], Prints("cat /proc/sys/kernel/domainname", "dom.ain")),
    ("--add-host", &["--add-host", "far:192.0.2.9"], Prints("cat /etc/hosts", "192.0.2.9\tfar")),
    ("--dns", &["--dns", "192.0.2.53"], Prints("cat /etc/resolv.conf", "nameserver 192.0.2.53")),
    ("--dns-option", &["--dns-option", "ndots:3"], Prints("cat /etc/resolv.conf", "ndots:3")),
    ("--dns-search", &["--dns-search", "find.me"], Prints("cat /etc/resolv.conf", "find.me")),
    ("--cap-add", &["--cap-add", "SYS_TIME"], Prints(STATUS, "CapEff:\t00000000aa0425fb")),
    ("--cap-drop", &["--cap-drop", "ALL"], Prints(STATUS, "CapEff:\t0000000000000000")),
    ("--privileged", &["--privileged"], Prints(STATUS, "Seccomp:\t0")),
    ("--security-opt", &["--security-opt", "no-new-privileges"], Prints(STATUS, "NoNewPrivs:\t1")),
    ("--pid", &["--pid", "container:neighbour"], Prints("cat /proc/1/cmdline", "sleep")),
    ("--ipc", &["--ipc", "none"], Prints("ls -d /dev/shm 2>&1", "No such file")),
    ("--uts", &["--uts", "host"], Inspects("{{.HostConfig.UTSMode}}", "host")),
    ("--cgroupns", &["--cgroupns", "private"], Prints("cat /proc/self/cgroup", ":memory:/\n")),
    ("--userns", &[], Takes(special::user_namespace)),
    ("--sysctl", &["--sysctl", "kernel.msgmax=4096"], Prints("cat /proc/sys/kernel/msgmax", "4096")),
    ("--runtime", &["--runtime", "no-such-runtime"], Refused("no-such-runtime")),
    ("--memory", &["-m", "64m"], Prints(MEMORY, "67108864")),
    (
        "--memory-reservation",
        &["--memory-reservation", "32m"],
        Prints("cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes", "33554432"),
    ),
    ("--memory-swap", &["-m", "64m", "--memory-swap", "64m"], Inspects("{{.HostConfig.MemorySwap}}", "67108864")),
    ("--cpus", &["--cpus", "0.5"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")),
    ("--cpu-shares", &["-c", "512"], Prints("cat /sys/fs/cgroup/cpu/cpu.shares", "512")),
    ("--cpu-period", &["--cpu-period", "50000"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000")),
    ("--cpu-quota", &["--cpu-quota", "20000"], Prints("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "20000")),
    ("--cpu-rt-period", &["--cpu-rt-period", "500000"], Prints("cat /sys/fs/cgroup/cpu/cpu.rt_period_us", "500000")),
    ("--cpu-rt-runtime", &["--cpu-rt-runtime", "100000"], Refused("cpu.rt_runtime_us")),
    ("--cpuset-cpus", &["--cpuset-cpus", "0"], Prints(STATUS, "Cpus_allowed_list:\t0\n")),
    // A host of one node has no other to show.
    ("--cpuset-mems", &["--cpuset-mems", "77"], Refused("77")),
    ("--pids-limit", &["--pids-limit", "21"], Prints("cat /sys/fs/cgroup/pids/pids.max", "21")),
    ("--blkio-weight", &["--blkio-weight", "300"], Prints("cat /sys/fs/cgroup/blkio/blkio.bfq.weight", "300")),
    ("--blkio-weight-device", &["--blkio-weight-device", "/dev/vda:300"], Refused("weight")),
    ("--memory-swappiness", &["--memory-swappiness", "3"], Prints("cat /sys/fs/cgroup/memory/memory.swappiness", "3")),
    (
        "--oom-kill-disable",
        &["-m", "64m", "--oom-kill-disable"],
        Prints("cat /sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 1"),
    ),
    ("--oom-score-adj", &["--oom-score-adj", "321"], Prints("cat /proc/self/oom_score_adj", "321")),
    ("--ulimit", &["--ulimit", "nofile=99:100"], Prints("cat /proc/self/limits", "99                   100")),
    ("--cgroup-parent", &[], Takes(special::cgroup_parent)),
    (
        "--device-read-bps",
        &["--device-read-bps", "/dev/vda:1048576"],
        Prints("cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device", " 1048576"),
    ),
    (
        "--device-write-bps",
        &["--device-write-bps", "/dev/vda:2097152"],
        Prints("cat /sys/fs/cgroup/blkio/blkio.throttle.write_bps_device", " 2097152"),
    ),
    (
        "--device-read-iops",
        &["--device-read-iops", "/dev/vda:111"],
        Prints("cat /sys/fs/cgroup/blkio/blkio.throttle.read_iops_device", " 111"),
    ),
    (
        "--device-write-iops",
        &["--device-write-iops", "/dev/vda:222"],
        Prints("cat /sys/fs/cgroup/blkio/blkio.throttle.write_iops_device", " 222"),
    ),
    ("--name", &["--name", "given-name"], Inspects("{{.Name}}", "/given-name")),
    ("--label", &["-l", "k=v"], Inspects("{{.Config.Labels}}", "k:v")),
    ("--label-file", &["--label-file", "DIR/labels"], Inspects("{{.Config.Labels}}", "from:file")),
    ("--annotation", &["--annotation", "a.b=c"], Inspects("{{.HostConfig.Annotations}}", "a.b:c")),
    ("--rm", &["--rm"], Inspects("{{.HostConfig.AutoRemove}}", "true")),
    ("--restart", &["--restart", "on-failure:3"], Inspects("{{.HostConfig.RestartPolicy}}", "on-failure")),
    ("--log-driver", &["--log-driver", "nonsense"], Refused("nonsense")),
    ("--log-opt", &["--log-opt", "max-size=8k"], Inspects("{{.HostConfig.LogConfig.Config}}", "max-size:8k")),
    ("--cidfile", &[], Takes(special::cidfile)),
    ("--pull", &["--pull", "nonsense"], Refused("nonsense")),
    ("--platform", &["--platform", "linux/s390x"], Refused("s390x")),
    ("--quiet", &[], Takes(special::quiet)),
    ("--trace", &["--trace"], Prints("true", "runtime")),
    ("--plan", &["--plan"], Prints("true", "cgroup")),
    ("--help", &["--help"], Prints("true", "Usage")),
    // The stock client's own.
    ("--disable-content-trust", &[], Takes(special::content_trust)),
    ("--gpus", &["--gpus", "all"], Refused("gpu")),
    ("--health-cmd", &["--health-cmd", "true"], Refused("health")),
    ("--health-interval", &["--health-interval", "9s"], Refused("health")),
    ("--health-retries", &["--health-retries", "9"], Refused("health")),
    ("--health-start-period", &["--health-start-period", "9s"], Refused("health")),
    ("--health-start-interval", &["--health-start-interval", "9s"], Refused("health")),
    ("--health-timeout", &["--health-timeout", "9s"], Refused("health")),
    ("--ip", &["--ip", "192.0.2.77"], Refused("address")),
    ("--ip6", &["--ip6", "2001:db8::77"], Refused("address")),
    ("--isolation", &["--isolation", "hyperv"], Refused("isolation")),
    ("--kernel-memory", &[], Takes(special::kernel_memory_of_run)),
    ("--link", &["--link", "neighbour:n"], Refused("link")),
    ("--link-local-ip", &["--link-local-ip", "169.254.3.3"], Refused("link")),
    ("--mac-address", &["--mac-address", "02:42:ac:11:00:77"], Refused("MAC")),
    ("--network-alias", &["--network-alias", "other"], Refused("alias")),
    ("--publish-all", &["-P", "--expose", "82"], Inspects("{{.HostConfig.PublishAllPorts}}", "true")),
    ("--use-api-socket", &["--use-api-socket"], Prints("ls -l /var/run/docker.sock", "srw")),
    ("--storage-opt", &["--storage-opt", "size=1g"], Refused("storage")),
];
