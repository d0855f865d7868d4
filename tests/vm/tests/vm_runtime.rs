//! `runb` on cgroup v2, each test with both cgroup drivers (S-040). Run inside the virtual machine by `tests/vm/run.sh`.

use std::time::{Duration, Instant};

use berth_vm_tests::{Bundle, DRIVERS, Driver, until};
use serde_json::json;

fn with_each_driver(test: impl Fn(Driver)) {
    DRIVERS.into_iter().for_each(test);
}

/// S-040, S-041, S-042, S-043, S-051, S-060: the process is in the group, the limits are in the files; `update` changes them.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s040_s041_s042_s043_s051_s060_limits_are_in_force() {
    with_each_driver(|driver| {
        let resources = json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
            "pids": {"limit": 20},
        });
        let bundle = Bundle::new(driver, "limits", "exec sleep 1000", resources);
        bundle.start();
        let state: serde_json::Value =
            serde_json::from_str(&bundle.runb(&["state", &bundle.name]).ok()).expect("state is JSON");
        assert_eq!(bundle.read("cgroup.procs"), state["pid"].to_string());
        let files = || ["memory.max", "memory.low", "memory.swap.max", "cpu.weight", "cpu.max", "pids.max"];
        let read = || files().map(|file| bundle.read(file));
        let swap = if bundle.cgroup().join("memory.swap.max").exists() { "33554432" } else { "" };
        let shown = read();
        assert_eq!(shown[..2], ["67108864", "33554432"]);
        assert!(swap.is_empty() || shown[2] == swap);
        assert_eq!(shown[3..], ["59", "50000 100000", "20"]);
        let update =
            ["update", "--memory", "134217728", "--memory-swap", "-1", "--pids-limit", "30", "--cpu-quota", "20000"];
        bundle.runb(&[&update[..], &["--cpu-share", "2048", &bundle.name]].concat()).ok();
        let shown = read();
        assert_eq!((shown[0].as_str(), shown[4].as_str(), shown[5].as_str()), ("134217728", "20000 100000", "30"));
        assert_eq!(shown[3], "174", "2048 shares");
        if driver == Driver::Systemd {
            let reload = std::process::Command::new("systemctl").arg("daemon-reload").status();
            assert!(reload.expect("systemctl").success());
            assert_eq!(read(), shown, "S-045: after a reload");
        }
    });
}

/// S-060: the fork above the limit fails and is counted. A limit of one leaves room for the container itself.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s060_forks_above_the_limit_fail() {
    with_each_driver(|driver| {
        let script = "sleep 0 & sleep 0 & sleep 0; cat /sys/fs/cgroup/pids.events /sys/fs/cgroup/pids.max";
        let bundle = Bundle::new(driver, "pids", script, json!({"pids": {"limit": 1}}));
        let outcome = bundle.run();
        assert!(outcome.stderr.contains("fork"), "{outcome:?}");
        bundle.edit(|config| config["process"]["args"] = json!(["cat", "/sys/fs/cgroup/pids.max"]));
        assert_eq!(bundle.run().ok(), "1");
    });
}

/// S-026, S-027, S-028: with its own cgroup namespace a container sees its group as the root, makes groups below it, and can neither
/// raise its own limit nor leave.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s026_s027_s028_a_private_namespace_is_a_root_of_its_own() {
    with_each_driver(|driver| {
        let script = "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat cgroup.procs | head -1; mkdir inner; \
                      echo 0 > inner/cgroup.procs; cat /proc/self/cgroup; cat cgroup.procs; \
                      (echo max > memory.max) 2>&1; (echo 1 > ../cgroup.procs) 2>&1; ls ..; echo end";
        let bundle = Bundle::new(driver, "private", script, json!({"memory": {"limit": 67_108_864}}));
        bundle.edit(|config| {
            for mount in config["mounts"].as_array_mut().expect("mounts") {
                if mount["destination"] == "/sys/fs/cgroup" {
                    mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
                }
            }
        });
        let outcome = bundle.run();
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[..3], ["0::/", "1", "0::/inner"], "{outcome:?}");
        let text = outcome.stdout.as_str();
        assert!(text.contains("Operation not permitted") || text.contains("Permission denied"), "{outcome:?}");
        assert_eq!(lines.last(), Some(&"end"));
        // `..` of the mount is the container's own /sys/fs.
        assert!(lines.contains(&"cgroup"), "{text}");
    });
}

/// S-052: the kernel kills for lack of memory, the command shows it.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s052_too_much_memory_is_killed() {
    with_each_driver(|driver| {
        let script = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
        let bundle = Bundle::new(driver, "oom", script, json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}}));
        let outcome = bundle.run();
        assert_eq!(outcome.code, 137, "{outcome:?}");
    });
}

/// S-054, S-055: a thousand processes go at once, by `cgroup.kill`.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s054_s055_a_thousand_processes_go_at_once() {
    with_each_driver(|driver| {
        let script = "i=0; while [ $i -lt 999 ]; do sleep 1000 & i=$((i+1)); done; wait";
        let bundle = Bundle::new(driver, "thousand", script, json!({}));
        bundle.start();
        until("a thousand processes", || bundle.pids() == 1000);
        let begun = Instant::now();
        bundle.runb(&["delete", "--force", &bundle.name]).ok();
        assert!(!bundle.cgroup().exists());
        println!("{driver:?}: 1,000 processes gone and removed in {:?}", begun.elapsed());
    });
}

/// S-055: a fork bomb leaves nobody, again and again. `BERTH_BOMBS` says how often (1,000 for the long form).
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s055_fork_bombs_leave_nobody() {
    let rounds = std::env::var_os("BERTH_BOMBS").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(8);
    with_each_driver(|driver| {
        // A refused fork ends no process of it (a shell would give up).
        let bundle =
            Bundle::new(driver, "bomb", "exec /usr/bin/perl -e 'fork while 1'", json!({"pids": {"limit": 64}}));
        bundle.bind_usr();
        for round in 0..rounds {
            bundle.start();
            until("it multiplies", || bundle.pids() > 32);
            bundle.runb(&["delete", "--force", &bundle.name]).ok();
            assert!(!bundle.cgroup().exists(), "round {round}");
            let shells = std::process::Command::new("pgrep").args(["-f", "fork while 1"]).output().expect("pgrep");
            assert_eq!(String::from_utf8_lossy(&shells.stdout), "", "round {round}: escaped");
        }
    });
}

/// S-056: a paused container uses no processor time, refuses exec, and goes on.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s056_a_paused_container_stands_still() {
    with_each_driver(|driver| {
        let bundle = Bundle::new(driver, "pause", "while :; do :; done", json!({"cpu": {"quota": 20_000}}));
        bundle.start();
        let used = || bundle.count("cpu.stat", "usage_usec");
        until("it runs", || used() > 10_000);
        bundle.runb(&["pause", &bundle.name]).ok();
        assert!(bundle.read("cgroup.events").contains("frozen 1"));
        let before = used();
        let refused = bundle.runb(&["exec", &bundle.name, "true"]);
        assert!(refused.code != 0 && refused.stderr.contains("paused"), "{refused:?}");
        assert_eq!(used(), before);
        bundle.runb(&["resume", &bundle.name]).ok();
        until("it goes on", || used() > before);
    });
}

/// S-051: a quota throttles: the group gets its share of each period and no more.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s051_a_quota_throttles() {
    with_each_driver(|driver| {
        // A period is charged up to a tick too much, 10 ms in UML; the quota is several of them.
        let resources = json!({"cpu": {"quota": 40_000, "period": 200_000}});
        let bundle = Bundle::new(driver, "quota", "while :; do :; done", resources);
        bundle.start();
        let stat = |key: &str| bundle.count("cpu.stat", key);
        until("five periods", || stat("nr_periods") >= 5);
        assert!(stat("nr_throttled") > 0);
        // Each period's 40 ms, and what a tick is late; the first period counts from its middle.
        let (periods, used) = (stat("nr_periods") + 1, stat("usage_usec"));
        assert!(used <= periods * 40_000 * 3 / 2 + 20_000, "{used} us in {periods} periods");
    });
}

/// S-058, S-059: on v2 a rate holds for direct and for buffered writes.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s058_s059_buffered_writes_are_throttled_too() {
    const RATE: u64 = 2 << 20;
    with_each_driver(|driver| {
        for (name, flags) in [("direct", "oflag=direct"), ("buffered", "conv=fsync")] {
            let script = format!(
                "dd if=/dev/zero of=/tmp/file bs=512k count=12 {flags} 2>/dev/null && cat /sys/fs/cgroup/io.max"
            );
            let bundle = Bundle::new(driver, name, &script, json!({}));
            let (major, minor) = bundle.disk();
            bundle.edit(|config| {
                let rate = json!([{"major": major, "minor": minor, "rate": RATE}]);
                config["linux"]["resources"] = json!({"blockIO": {"throttleWriteBpsDevice": rate}});
            });
            let begun = Instant::now();
            let shown = bundle.run().ok();
            let elapsed = begun.elapsed();
            assert_eq!(shown, format!("{major}:{minor} rbps=max wbps={RATE} riops=max wiops=max"));
            // 6 MiB at 2 MiB/s, less the burst of a slice that the kernel lets pass.
            assert!(elapsed > Duration::from_millis(2200), "{driver:?} {name}: {elapsed:?}");
        }
    });
}

/// S-076: a v2 file by name; S-070: what v2 does not have is refused by name.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s070_s076_unified_and_what_v2_lacks() {
    with_each_driver(|driver| {
        let script = "cat /sys/fs/cgroup/memory.high /sys/fs/cgroup/cgroup.max.descendants";
        let unified = json!({"memory.high": "33554432", "cgroup.max.descendants": "7"});
        let bundle = Bundle::new(driver, "unified", script, json!({"unified": unified}));
        assert_eq!(bundle.run().ok(), "33554432\n7");
        for (resources, named) in [
            (json!({"unified": {"hugetlb.2MB.max": "0"}}), "hugetlb"),
            (json!({"network": {"classID": 1}}), "net_cls.classid"),
            (json!({"memory": {"swappiness": 1}}), "memory.swappiness"),
        ] {
            if named == "hugetlb" && std::path::Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
                continue;
            }
            bundle.edit(|config| config["linux"]["resources"] = resources);
            let refused = bundle.run();
            assert!(refused.code != 0 && refused.stderr.contains(named), "{refused:?}");
            assert!(!bundle.cgroup().exists(), "left behind after {named}");
        }
    });
}

fn has_controller(name: &str) -> bool {
    let all = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    all.split_whitespace().any(|own| own == name)
}

/// S-051, S-074: processors and memory nodes are in force, also after a reload of systemd; a kernel without the controller refuses
/// them by name.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s051_s074_cpusets() {
    with_each_driver(|driver| {
        let script = "cat /sys/fs/cgroup/cpuset.cpus.effective /sys/fs/cgroup/cpuset.mems.effective; \
                      while read key value; do [ $key = Cpus_allowed_list: ] && echo $value; done < /proc/self/status; true";
        let bundle = Bundle::new(driver, "cpuset", script, json!({"cpu": {"cpus": "0", "mems": "0"}}));
        if !has_controller("cpuset") {
            let refused = bundle.run();
            assert!(refused.code != 0 && refused.stderr.contains("cpu.cpus"), "{refused:?}");
            return;
        }
        assert_eq!(bundle.run().ok(), "0\n0\n0");
        bundle.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
        bundle.start();
        if driver == Driver::Systemd {
            let mut reload = std::process::Command::new("systemctl");
            assert!(reload.arg("daemon-reload").status().unwrap().success());
            let mut show = std::process::Command::new("systemctl");
            show.args(["show", &format!("berth-{}.scope", bundle.name), "-p", "AllowedCPUs,AllowedMemoryNodes"]);
            assert_eq!(berth_vm_tests::Outcome::of(&mut show).ok(), "AllowedCPUs=0\nAllowedMemoryNodes=0");
        }
        assert_eq!(bundle.read("cpuset.cpus"), "0");
    });
}

/// S-072: huge pages beyond the limit are refused when they are asked for.
#[test]
#[ignore = "needs systemd and cgroup v2: run in the test VM"]
fn s072_huge_pages_are_limited() {
    if !has_controller("hugetlb") {
        return;
    }
    std::fs::write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8").unwrap();
    with_each_driver(|driver| {
        let script = "cat /sys/fs/cgroup/hugetlb.2MB.max /sys/fs/cgroup/hugetlb.2MB.rsvd.max; \
                      fallocate -l 4M /huge/one && echo fits; fallocate -l 8M /huge/two || echo refused";
        let limit = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]});
        let bundle = Bundle::new(driver, "huge", script, limit);
        bundle.bind_usr();
        bundle.edit(|config| {
            let huge =
                json!({"destination": "/huge", "source": "none", "type": "hugetlbfs", "options": ["pagesize=2M"]});
            config["mounts"].as_array_mut().unwrap().push(huge);
            config["process"]["env"] = json!(["PATH=/bin:/usr/bin"]);
        });
        let outcome = bundle.run();
        assert_eq!(outcome.stdout, "4194304\n4194304\nfits\nrefused", "{outcome:?}");
    });
}
