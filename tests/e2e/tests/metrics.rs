//! Metrics against the kernel's own files, and the configuration of a running daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use berth_testkit::{Instance, peers};

/// A port that is free now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Samples by their line's left side, and types by family.
fn scrape(address: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    let mut samples = BTreeMap::new();
    let mut types = BTreeMap::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.insert(name.to_owned(), kind.to_owned());
        } else if let Some((name, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            samples.insert(name.to_owned(), value.to_owned());
        }
    }
    (samples, types)
}

/// S-113: the values are those of the kernel's files at the same moment: the container stands still meanwhile.
#[test]
fn s113_values_are_the_kernels() {
    let address = free_address();
    let berth = Instance::start_with(&["--metrics-address", &address]);
    berth.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    let work = "head -c 3000000 /dev/zero > /tmp/x; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo ready; exec sleep 1000";
    berth
        .berth(&[
            "run",
            "-d",
            "--name",
            "c1",
            "-m",
            "64m",
            "--pids-limit",
            "30",
            "--cpus",
            "1",
            "busybox",
            "sh",
            "-c",
            work,
        ])
        .ok();
    berth_testkit::wait_until("it has worked", || berth.berth(&["logs", "c1"]).stdout.contains("ready").then_some(()));
    berth.berth(&["pause", "c1"]).ok();
    let pid = berth.pid("c1");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let file = |controller: &str, name: &str| {
        let line = groups
            .lines()
            .find(|line| line.split(':').nth(1).unwrap().split(',').any(|own| own == controller))
            .unwrap();
        fs::read_to_string(format!("/sys/fs/cgroup/{controller}{}/{name}", line.rsplit(':').next().unwrap())).unwrap()
    };
    let stat = |text: String, key: &str| {
        text.lines().find_map(|line| line.strip_prefix(&format!("{key} "))).unwrap().trim().to_owned()
    };
    let seconds = |nanoseconds: String| {
        let ns: u64 = nanoseconds.trim().parse().unwrap();
        format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
    };
    let expected = || {
        let usage: u64 = file("memory", "memory.usage_in_bytes").trim().parse().unwrap();
        let inactive: u64 = stat(file("memory", "memory.stat"), "total_inactive_file").parse().unwrap();
        [
            ("berth_container_cpu_usage_seconds_total", seconds(file("cpuacct", "cpuacct.usage"))),
            ("berth_container_cpu_user_seconds_total", seconds(file("cpuacct", "cpuacct.usage_user"))),
            ("berth_container_cpu_periods_total", stat(file("cpu", "cpu.stat"), "nr_periods")),
            ("berth_container_memory_usage_bytes", usage.to_string()),
            ("berth_container_memory_working_set_bytes", (usage - inactive).to_string()),
            ("berth_container_memory_limit_bytes", file("memory", "memory.limit_in_bytes").trim().to_owned()),
            ("berth_container_memory_peak_bytes", file("memory", "memory.max_usage_in_bytes").trim().to_owned()),
            ("berth_container_memory_cache_bytes", stat(file("memory", "memory.stat"), "total_cache")),
            ("berth_container_memory_anon_bytes", stat(file("memory", "memory.stat"), "total_rss")),
            ("berth_container_memory_kernel_bytes", file("memory", "memory.kmem.usage_in_bytes").trim().to_owned()),
            ("berth_container_oom_kills_total", stat(file("memory", "memory.oom_control"), "oom_kill")),
            ("berth_container_processes", file("pids", "pids.current").trim().to_owned()),
            ("berth_container_processes_limit", "30".to_owned()),
            ("berth_container_forks_refused_total", stat(file("pids", "pids.events"), "max")),
        ]
    };
    // The kernel gives cached pages back in its own time: the files must be the same before and after.
    let (expected, (samples, types)) = berth_testkit::wait_until("the kernel's files stand still", || {
        let before = expected();
        let scraped = scrape(&address);
        (expected() == before).then_some((before, scraped))
    });
    let network = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    // PSI: where the kernel has it, the totals of the v2 directory.
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let psi = fs::read_to_string(format!("/sys/fs/cgroup/unified{unified}/memory.pressure"));
    // Before anything can fail.
    berth.berth(&["unpause", "c1"]).ok();
    let sample = |family: &str| {
        let found =
            samples.iter().find(|(name, _)| name.starts_with(&format!("{family}{{")) && name.contains("name=\"c1\""));
        found.unwrap_or_else(|| panic!("{family} in {samples:#?}")).1.clone()
    };
    for (family, expected) in expected {
        assert_eq!(sample(family), expected, "{family}");
    }
    let eth0: Vec<&str> =
        network.lines().find_map(|l| l.trim().strip_prefix("eth0:")).unwrap().split_whitespace().collect();
    let received: u64 = sample("berth_container_network_receive_bytes_total").parse().unwrap();
    assert!(received <= eth0[0].parse().unwrap(), "counters only grow: {received} and {network}");
    let has_pressure = samples.keys().any(|name| name.starts_with("berth_container_pressure_seconds_total{"));
    assert_eq!(has_pressure, psi.is_ok(), "{psi:?}");
    assert_eq!(types["berth_operation_seconds"], "histogram");
    assert_eq!(types["berth_container_cpu_usage_seconds_total"], "counter");
}

/// The daemon's own: operations by result, jobs, commits, events, descriptors, memory.
#[test]
fn the_daemon_itself() {
    let address = free_address();
    let berth = Instance::start_with(&["--metrics-address", &address]);
    berth.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    berth.sleeper("c1", &[]);
    berth.berth(&["exec", "c1", "true"]).ok();
    assert_ne!(berth.berth(&["start", "nobody"]).code, 0);
    berth.ctr(&["namespaces", "ls"]).ok();
    assert_ne!(berth.ctr(&["tasks", "rm", "nobody"]).code, 0);
    let gone = berth_testkit::Image::new("gone:1").layer(vec![berth_testkit::LayerFile::text("a", "b")]);
    berth.load(&gone.docker_archive()).ok();
    berth.berth(&["rmi", "gone:1"]).ok();
    let (samples, _) = scrape(&address);
    let number =
        |name: &str| samples.get(name).unwrap_or_else(|| panic!("{name} in {samples:#?}")).parse::<f64>().unwrap();
    for (operation, result) in [
        ("container.create", "ok"),
        ("container.start", "ok"),
        ("exec.start", "ok"),
        ("container.start", "error"),
        ("namespaces.v1.Namespaces/List", "ok"),
        ("containers.v1.Containers/Get", "error"),
    ] {
        assert_eq!(
            number(&format!("berth_operation_seconds_count{{operation=\"{operation}\",result=\"{result}\"}}")),
            1.0
        );
        let bucket =
            format!("berth_operation_seconds_bucket{{operation=\"{operation}\",result=\"{result}\",le=\"+Inf\"}}");
        assert_eq!(number(&bucket), 1.0);
    }
    assert_eq!(number("berth_containers{state=\"running\"}"), 1.0);
    assert!(number("berth_jobs") >= 1.0);
    assert!(number("berth_metadata_commits_total{durability=\"immediate\"}") >= 2.0);
    assert!(number("berth_events_total") >= 3.0);
    assert!(number("berth_gc_runs_total") >= 1.0);
    assert!(number("berth_gc_removed_total{kind=\"blob\"}") >= 1.0);
    let pid = berth.daemon_pid();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as f64;
    assert!(
        (number("process_open_fds") - descriptors).abs() <= 4.0,
        "{} against {descriptors}",
        number("process_open_fds")
    );
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident: f64 =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap().parse().unwrap();
    assert!((number("process_resident_memory_bytes") / 1024.0 - resident).abs() < resident / 2.0);
}

/// Others than the loopback only with leave; the file gives defaults, flags win, mistakes are named with their line.
#[test]
fn configuration() {
    let berthd = |words: &[&str]| Command::new(peers::binaries().join("berthd")).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let refused = berthd(&[
        "--config",
        "/dev/null",
        "--metrics-address",
        "0.0.0.0:1",
        "--root",
        "/no/such/x",
        "--state",
        "/no/such/y",
    ]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("--metrics-allow-remote"), "{refused:?}");
    let directory = tempfile_directory();
    let file = directory.join("config.toml");
    fs::write(
        &file,
        "log-opt = [\"max-size=8k\", \"max-file=2\"]\ndefault-ulimit = [\"nofile=321:654\"]\nbrigde = \"x\"\n",
    )
    .unwrap();
    let path = file.display().to_string();
    let refused = berthd(&["config", "validate", &path]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("config.toml, line 3: unknown key \"brigde\"; is bridge meant?"),
        "{refused:?}"
    );
    let fixed = fs::read_to_string(&file).unwrap().replace("brigde", "bridge");
    fs::write(&file, fixed).unwrap();
    assert!(text(&berthd(&["config", "validate", &path]).stdout).contains("3 keys, all valid"));
    let dumped = text(&berthd(&["--config", &path, "--bridge", "y", "config", "dump"]).stdout);
    assert!(
        dumped.contains("bridge = \"y\" # flag --bridge\n") && dumped.contains("config.toml, line 2\n"),
        "{dumped}"
    );
    // A daemon with the file: containers get its defaults, and what they ask for themselves.
    let berth = Instance::start_with(&["--config", &path]);
    berth.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    assert_eq!(berth.busybox(&[], &["sh", "-c", "ulimit -Sn; ulimit -Hn"]).ok(), "321\n654");
    assert_eq!(berth.busybox(&["--ulimit", "nofile=64:64"], &["sh", "-c", "ulimit -Sn"]).ok(), "64");
    berth
        .berth(&[
            "run",
            "--name",
            "c1",
            "busybox",
            "sh",
            "-c",
            "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo 0123456789012345678901234567890123456789; done",
        ])
        .ok();
    let logs = fs::read_dir(berth.root().join("containers"))
        .unwrap()
        .flatten()
        .flat_map(|entry| fs::read_dir(entry.path()).unwrap().flatten());
    let rotated: Vec<_> = logs
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(".log"))
        .collect();
    assert_eq!(rotated.len(), 2, "{rotated:?}");
    drop(berth);
    fs::remove_dir_all(directory).unwrap();
}

fn tempfile_directory() -> std::path::PathBuf {
    let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, Into::into);
    let directory = root.join(format!("config-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}
