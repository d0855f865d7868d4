//! Limits of the cgroup, through the command line (checklist 1.3 and 1.4). On a v2 host the file names differ: see `tests/vm`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_testkit::{Instance, wait_until};

/// The container's directory of a v1 controller.
fn cgroup(berth: &Instance, container: &str, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", berth.pid(container))).unwrap();
    let path = text
        .lines()
        .find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let names = fields.nth(1)?;
            names.split(',').any(|name| name == controller).then(|| fields.next().unwrap().to_owned())
        })
        .unwrap_or_else(|| panic!("{controller} in {text}"));
    PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}"))
}

fn file(berth: &Instance, container: &str, controller: &str, name: &str) -> String {
    fs::read_to_string(cgroup(berth, container, controller).join(name)).unwrap().trim().to_owned()
}

/// S-041, S-042, S-043, S-051, S-060, S-074: what was asked for is what the kernel's files say.
#[test]
fn s041_files_say_what_was_asked() {
    let berth = Instance::with_busybox();
    berth.sleeper(
        "c1",
        &[
            "-m",
            "64m",
            "--memory-reservation",
            "32m",
            "--cpu-shares",
            "512",
            "--cpus",
            "0.5",
            "--cpuset-cpus",
            "0",
            "--cpuset-mems",
            "0",
            "--pids-limit",
            "20",
        ],
    );
    let pid = berth.pid("c1").to_string();
    for controller in ["memory", "cpu", "pids", "devices", "freezer", "blkio", "cpuset"] {
        assert!(file(&berth, "c1", controller, "cgroup.procs").lines().any(|line| line == pid), "{controller}");
    }
    for (controller, name, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "20"),
    ] {
        assert_eq!(file(&berth, "c1", controller, name), value, "{name}");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"));
}

/// S-050: shares of two busy containers on one processor come out as their CPU time.
#[test]
fn s050_shares() {
    let berth = Instance::with_busybox();
    for (name, shares) in [("a1", "1024"), ("b1", "256")] {
        berth
            .berth(&[
                "run",
                "-d",
                "--name",
                name,
                "--cpuset-cpus",
                "1",
                "--cpu-shares",
                shares,
                "busybox",
                "sh",
                "-c",
                "while :; do :; done",
            ])
            .ok();
    }
    let used = |name: &str| file(&berth, name, "cpuacct", "cpuacct.usage").parse::<u64>().unwrap();
    let (a0, b0) = (used("a1"), used("b1"));
    let (a, b) = wait_until("both used some CPU time", || {
        let (a, b) = (used("a1") - a0, used("b1") - b0);
        (a + b > 1_500_000_000).then_some((a, b))
    });
    let ratio = a as f64 / b as f64;
    assert!((2.8..5.5).contains(&ratio), "4:1 in shares came out as {ratio:.2}:1");
}

/// S-051: half a processor is half a processor, and the throttling is counted.
#[test]
fn s051_quota() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "-d", "--name", "c1", "--cpus", "0.5", "busybox", "sh", "-c", "while :; do :; done"]).ok();
    let used = || file(&berth, "c1", "cpuacct", "cpuacct.usage").parse::<u64>().unwrap();
    let (start, used_before) = (Instant::now(), used());
    wait_until("a second has passed", || (start.elapsed() > Duration::from_secs(1)).then_some(()));
    let share = (used() - used_before) as f64 / start.elapsed().as_nanos() as f64;
    assert!(share <= 0.65, "used {share:.2} of a processor");
    // On a machine too busy to give it its half, there is nothing to throttle.
    let stat = file(&berth, "c1", "cpu", "cpu.stat");
    let throttled: u64 = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap().parse().unwrap();
    assert!(throttled > 0 || share < 0.45, "used {share:.2} of a processor without being throttled: {stat}");
}

/// S-052: more memory than allowed ends the process: 137, OOMKilled, and an event before the exit.
#[test]
fn s052_out_of_memory() {
    let berth = Instance::with_busybox();
    let killed = berth.berth(&[
        "run",
        "--name",
        "c1",
        "-m",
        "32m",
        "--memory-swap",
        "32m",
        "busybox",
        "sh",
        "-c",
        "exec tail -c 200m /dev/zero",
    ]);
    assert_eq!(killed.code, 137, "{killed:?}");
    assert_eq!(berth.inspect("c1", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    let events = berth.berth(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "container=c1",
        "--format",
        "{{.Action}}",
    ]);
    let actions: Vec<&str> = events.ok().lines().collect();
    let place =
        |action: &str| actions.iter().position(|a| *a == action).unwrap_or_else(|| panic!("{action} in {actions:?}"));
    assert!(place("oom") < place("die"), "{actions:?}");
}

/// S-053: the default devices and no others; a device needs its node and its rule.
#[test]
fn s053_devices() {
    let berth = Instance::with_busybox();
    let listed = berth.busybox(&[], &["ls", "/dev"]);
    let mut names: Vec<&str> = listed.ok().split_whitespace().collect();
    // A link to /proc/kcore, where the kernel has one.
    names.retain(|name| *name != "core");
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
            "urandom", "zero"
        ]
    );
    let refused = berth.busybox(&[], &["sh", "-c", "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg"]);
    assert!(refused.stderr.contains("Operation not permitted"), "{refused:?}");
    let read = berth.busybox(&["--device", "/dev/zero:/dev/nil:r"], &["sh", "-c", "head -c 3 /dev/nil | wc -c"]);
    assert_eq!(read.ok(), "3");
    let rule_only = berth.busybox(
        &["--device-cgroup-rule", "c 1:11 rm"],
        &["sh", "-c", "mknod /tmp/kmsg c 1 11 && test -c /tmp/kmsg && echo made"],
    );
    assert_eq!(rule_only.ok(), "made");
}

/// S-054, S-055: a fork bomb is gone after rm -f, all of it, every time.
#[test]
fn s055_no_fork_escapes() {
    let berth = Instance::with_busybox();
    for round in 0..10 {
        berth
            .berth(&[
                "run",
                "-d",
                "--name",
                "bomb",
                "--pids-limit",
                "200",
                "busybox",
                "awk",
                "BEGIN { while (1) system(\"sleep 1 & sleep 1 &\") }",
            ])
            .ok();
        let directory = cgroup(&berth, "bomb", "pids");
        wait_until("it forks", || {
            (fs::read_to_string(directory.join("pids.current")).ok()?.trim().parse::<u32>().ok()? > 20).then_some(())
        });
        berth.berth(&["rm", "-f", "bomb"]).ok();
        assert!(!directory.exists(), "round {round}: the cgroup is gone, so no process is left in it");
    }
}

/// S-056: paused processes stand still, unpaused they go on; exec into a paused container is refused with its reason.
#[test]
fn s056_pause() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", "while :; do :; done"]).ok();
    berth.berth(&["pause", "c1"]).ok();
    assert_eq!(file(&berth, "c1", "freezer", "freezer.state"), "FROZEN");
    assert_eq!(berth.inspect("c1", "{{.State.Status}}"), "paused");
    let used = || file(&berth, "c1", "cpuacct", "cpuacct.usage");
    let before = used();
    let refused = berth.berth(&["exec", "c1", "true"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("paused"), "{refused:?}");
    assert_eq!(used(), before);
    berth.berth(&["unpause", "c1"]).ok();
    wait_until("it runs again", || (used() != before).then_some(()));
    assert_eq!(berth.berth(&["unpause", "c1"]).code, 125, "unpausing twice is an error");
}

/// S-057, S-058, S-059: throttles are in the kernel's files; on v1 the caveat about buffered writes is told.
#[test]
fn s057_throttles() {
    let berth = Instance::with_busybox();
    let disk = fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .find(|n| n.starts_with("vd") || n.starts_with("sd") || n.starts_with("nvme"));
    let disk = disk.expect("a disk");
    let number = fs::read_to_string(format!("/sys/block/{disk}/dev")).unwrap().trim().to_owned();
    let device = format!("/dev/{disk}");
    let created = berth.berth(&[
        "run",
        "-d",
        "--name",
        "c1",
        "--device-write-iops",
        &format!("{device}:100"),
        "--device-read-bps",
        &format!("{device}:1mb"),
        "busybox",
        "sleep",
        "1000",
    ]);
    created.ok();
    assert_eq!(file(&berth, "c1", "blkio", "blkio.throttle.write_iops_device"), format!("{number} 100"));
    assert_eq!(file(&berth, "c1", "blkio", "blkio.throttle.read_bps_device"), format!("{number} 1048576"));
    assert!(created.stderr.contains("direct"), "the v1 caveat is told: {created:?}");
}

/// S-060: the fork over the limit fails with EAGAIN.
#[test]
fn s060_pids() {
    let berth = Instance::with_busybox();
    let full =
        berth.busybox(&["--pids-limit", "8"], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait"]);
    assert!(full.stderr.contains("Resource temporarily unavailable") || full.stderr.contains("can't fork"), "{full:?}");
}

/// Limits change while the container runs.
#[test]
fn update_changes_limits_live() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &["-m", "64m"]);
    berth.berth(&["update", "-m", "128m", "--memory-swap", "256m", "--cpus", "1.5", "--pids-limit", "33", "c1"]).ok();
    assert_eq!(file(&berth, "c1", "memory", "memory.limit_in_bytes"), "134217728");
    assert_eq!(file(&berth, "c1", "cpu", "cpu.cfs_quota_us"), "150000");
    assert_eq!(file(&berth, "c1", "pids", "pids.max"), "33");
    assert_eq!(berth.inspect("c1", "{{.HostConfig.Memory}}"), "134217728");
}
