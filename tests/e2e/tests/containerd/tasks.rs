//! Containers and tasks made by `ctr`, on our own shim.

use std::path::PathBuf;

use berth_containerd_api::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_containerd_api::containerd::services::containers::v1::{GetContainerRequest, UpdateContainerRequest};
use berth_containerd_api::containerd::services::tasks::v1::CreateTaskRequest;
use berth_testkit::{Instance, wait_until};

use super::checkpoint::Task;
use super::client::{Client, block_on};
use super::{ctr_exec, ctr_run, fifo_dir, rows};

pub(super) fn task(instance: &Instance, id: &str) -> Option<(u32, String)> {
    let listed = instance.ctr(&["tasks", "ls"]);
    let row = rows(listed.ok()).into_iter().find(|row| row[0] == id)?;
    Some((row[1].parse().unwrap(), row[2].to_owned()))
}

/// S-112, S-151 to S-154: `ctr run` end to end; exit code, both streams; nothing is left.
#[test]
fn s112_run() {
    let instance = Instance::with_busybox();
    let ran = ctr_run(&instance, &["--rm"], "c1", &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (7, "out\n", "err\n"), "{ran:?}");
    assert_eq!(instance.ctr(&["containers", "ls", "-q"]).ok(), "");
    let snapshots = instance.ctr(&["snapshots", "ls"]);
    assert!(!rows(snapshots.ok()).iter().any(|row| row.last() == Some(&"Active")), "{snapshots:?}");
    let missing = ctr_run(&instance, &["--rm"], "c2", &["/no/such/program"]);
    assert!(missing.code != 0 && missing.stderr.contains("/no/such/program"), "{missing:?}");
    // As with containerd a task whose start failed stays until somebody deletes it.
    instance.ctr(&["tasks", "rm", "c2"]);
    instance.berth(&["rm", "-f", "c2"]).ok();
    assert_eq!(instance.ctr(&["tasks", "ls", "-q"]).ok(), "");
}

/// S-110, S-119: a task's life by `ctr`, and every step of it in Docker's words; S-004 the other way round.
#[test]
fn s004_life_cycle_in_both_faces() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d", "--label", "tier=front"], "web", &["sleep", "1000"]).ok();
    let (pid, status) = task(&instance, "web").unwrap();
    assert_eq!(status, "RUNNING");
    assert_eq!(instance.inspect("web", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    assert_eq!(instance.berth(&["ps", "-q", "--filter", "label=tier=front"]).ok(), "web");
    let twice = ctr_run(&instance, &["-d"], "web", &["sleep", "1"]);
    assert!(twice.stderr.contains("already exists"), "{twice:?}");
    instance.ctr(&["tasks", "pause", "web"]).ok();
    assert_eq!(instance.inspect("web", "{{.State.Status}}"), "paused");
    instance.berth(&["unpause", "web"]).ok();
    assert_eq!(task(&instance, "web").unwrap().1, "RUNNING");
    let running = instance.ctr(&["tasks", "rm", "web"]);
    assert!(running.code != 0, "{running:?}");
    assert!(!ctr_exec(&instance, "web", "e1", &["sh", "-c", "echo $$"]).ok().is_empty());
    let pids = instance.ctr(&["tasks", "ps", "web"]);
    assert_eq!(rows(pids.ok()), [[pid.to_string().as_str(), "-"]]);
    let logs = instance.berth(&["logs", "web"]);
    assert!(logs.code != 0 && logs.stderr.contains("containerd's API"), "{logs:?}");
    instance.berth(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(task(&instance, "web").unwrap().1, "STOPPED");
    assert_eq!(instance.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    instance.docker(&["rm", "web"]).ok();
    assert_eq!(instance.ctr(&["containers", "ls", "-q"]).ok(), "");
    assert_eq!(instance.berth(&["ps", "-aq"]).ok(), "");
}

/// S-004: a container of Docker's API is a task for `ctr`: listed, measured, joined, signalled; its engine removes it.
#[test]
fn s004_docker_tasks_are_driven() {
    let instance = Instance::with_busybox();
    let id = instance.sleeper("web", &[]);
    let (pid, status) = task(&instance, &id).unwrap();
    assert_eq!((pid, status.as_str()), (instance.pid("web"), "RUNNING"));
    assert_eq!(ctr_exec(&instance, &id, "e1", &["cat", "/etc/hostname"]).ok(), &id[..12]);
    instance.ctr(&["tasks", "pause", &id]).ok();
    assert_eq!(instance.inspect("web", "{{.State.Status}}"), "paused");
    instance.ctr(&["tasks", "resume", &id]).ok();
    instance.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]).ok();
    instance.berth(&["wait", "web"]).ok();
    assert!(task(&instance, &id).is_none());
    instance.ctr(&["containers", "rm", &id]).ok();
    assert_eq!(instance.berth(&["ps", "-aq"]).ok(), "");
}

/// A process in a cgroup named `name` below `parent`.
fn process_in(parent: &str, name: &str) -> Option<rustix::process::Pid> {
    let end = format!("/{name}");
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        groups.lines().any(|line| line.ends_with(&end) && line.contains(parent)).then(|| entry.file_name())
    })?;
    rustix::process::Pid::from_raw(found.to_str()?.parse().ok()?)
}

/// S-132: the daemon is killed; the task runs on, is found again, and its exit code is still there.
#[test]
fn s132_tasks_outlive_the_daemon() {
    let mut instance = Instance::with_busybox();
    let script = "trap 'exit 42' TERM; while :; do sleep 0.05; done";
    ctr_run(&instance, &["-d"], "one", &["sh", "-c", script]).ok();
    ctr_run(&instance, &["-d"], "two", &["sh", "-c", script]).ok();
    let before = task(&instance, "one").unwrap();
    instance.kill_daemon();
    // The second one ends while nobody looks.
    let pid = process_in(&instance.cgroup_parent(), "two").unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    instance.spawn();
    assert_eq!(task(&instance, "one").unwrap(), before);
    wait_until("the end is known", || (task(&instance, "two")?.1 == "STOPPED").then_some(()));
    instance.ctr(&["tasks", "kill", "-s", "SIGTERM", "one"]).ok();
    assert_eq!(instance.berth(&["wait", "one"]).ok(), "42");
    let removed = instance.ctr(&["tasks", "rm", "one"]);
    assert!(removed.stderr.contains("42"), "{removed:?}");
    instance.ctr(&["containers", "rm", "one"]).ok();
    instance.berth(&["rm", "two"]).ok();
}

/// S-110: the shim is killed: the task is told dead, its processes end, everything can be removed.
#[test]
fn s155_a_dead_shim_leaves_nothing() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    let bundle = instance.state().join("shims/default/web");
    let shim: i32 = std::fs::read_to_string(bundle.join("shim.pid")).unwrap().trim().parse().unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    wait_until("the task is gone", || task(&instance, "web").is_none().then_some(()));
    wait_until("its bundle is gone", || (!bundle.exists()).then_some(()));
    let kept = instance.berth(&["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"]);
    let actions: Vec<&str> = kept.ok().lines().filter(|line| *line == "die").collect();
    assert_eq!(actions, ["die"], "{kept:?}");
    instance.ctr(&["containers", "rm", "web"]).ok();
}

/// A task in whose making a hook says that it is there and waits.
struct Hooked {
    here: PathBuf,
    gate: PathBuf,
}

impl Hooked {
    fn new(instance: &Instance) -> Self {
        let (here, gate) = (instance.directory.join("here"), instance.directory.join("gate"));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Self { here, gate }
    }

    fn script(&self) -> String {
        format!("echo here > {}; read go < {}", self.here.display(), self.gate.display())
    }

    /// Kills the shim of what is being made once the hook runs; with the daemon, if one says so.
    async fn kill(&self, instance: &mut Instance, is_daemon_killed: bool) {
        let begun = std::time::Instant::now();
        while !self.here.exists() {
            assert!(begun.elapsed().as_secs() < 60, "the hook does not run");
            tokio::task::yield_now().await;
        }
        assert!(groups(instance) > 0, "it has its groups already");
        let shim = std::fs::read_to_string(bundle(instance).join("shim.pid")).unwrap().trim().parse().unwrap();
        if is_daemon_killed {
            instance.kill_daemon();
        }
        let shim = rustix::process::Pid::from_raw(shim).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    }

    fn assert_nothing_left(&self, instance: &Instance) {
        wait_until("its groups are gone", || (groups(instance) == 0).then_some(()));
        wait_until("its bundle is gone", || (!bundle(instance).exists()).then_some(()));
        // A hook is somebody else's program, and ends by itself.
        std::fs::write(&self.gate, "go\n").unwrap();
        std::fs::remove_file(&self.here).unwrap();
    }
}

fn bundle(instance: &Instance) -> PathBuf {
    instance.state().join("shims/default/web")
}

fn groups(instance: &Instance) -> usize {
    let all = berth_testkit::leak::Picture::take(&instance.cgroup_parent()).cgroups;
    all.iter().filter(|name| name.ends_with("/web")).count()
}

/// S-155: the shim is killed in the middle of a create, in which a hook runs, or with the daemon: its cgroup is known to nobody but by the document,
/// and goes all the same.
#[test]
fn s155_a_shim_killed_in_a_create_leaves_nothing() {
    let mut instance = Instance::with_busybox();
    let hooked = Hooked::new(&instance);
    ctr_run(&instance, &[], "web", &["true"]).ok();
    block_on(hook(&instance, "web", &hooked.script()));
    for is_daemon_killed in [false, true] {
        block_on(async {
            let client = Client::connect(&instance, "default").await;
            let task = Task { client: &client, id: "web" };
            let creating = task.create(CreateTaskRequest::default());
            let (created, ()) = tokio::join!(creating, hooked.kill(&mut instance, is_daemon_killed));
            created.unwrap_err();
        });
        if is_daemon_killed {
            instance.spawn();
        }
        hooked.assert_nothing_left(&instance);
    }
    instance.ctr(&["containers", "rm", "web"]).ok();
}

/// S-155: the same in the middle of a restore, with criu at work in the container's cgroup.
#[test]
fn s155_a_shim_killed_in_a_restore_leaves_nothing() {
    let Some(directory) = super::checkpoint::criu() else { return };
    let mut instance = Instance::start_on_path(&directory);
    instance.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    let hooked = Hooked::new(&instance);
    ctr_run(&instance, &["-d", "--runtime", "io.containerd.berth.v1"], "web", &["sleep", "1000"]).ok();
    let checkpoint = block_on(async {
        let client = Client::connect(&instance, "default").await;
        Task { client: &client, id: "web" }.save().await
    });
    block_on(hook(&instance, "web", &hooked.script()));
    for is_daemon_killed in [false, true] {
        block_on(async {
            let client = Client::connect(&instance, "default").await;
            let task = Task { client: &client, id: "web" };
            let checkpoint = Some(checkpoint.clone());
            task.create(CreateTaskRequest { checkpoint, ..Default::default() }).await.unwrap();
            let (started, ()) = tokio::join!(task.start(), hooked.kill(&mut instance, is_daemon_killed));
            started.unwrap_err();
        });
        if is_daemon_killed {
            instance.spawn();
        }
        hooked.assert_nothing_left(&instance);
    }
    instance.ctr(&["containers", "rm", "web"]).ok();
}

/// Gives a container's document a hook of its creation.
async fn hook(instance: &Instance, id: &str, script: &str) {
    let client = Client::connect(instance, "default").await;
    let mut containers = ContainersClient::new(client.channel.clone());
    let get = client.request(GetContainerRequest { id: id.to_owned() });
    let mut container = containers.get(get).await.unwrap().into_inner().container.unwrap();
    let spec = container.spec.as_mut().unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&spec.value).unwrap();
    let hook = serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
    document["hooks"] = serde_json::json!({"createRuntime": [hook]});
    spec.value = document.to_string().into_bytes();
    let update = UpdateContainerRequest { container: Some(container), ..Default::default() };
    containers.update(client.request(update)).await.unwrap();
}

/// S-133: bytes through FIFOs, exact, 64 MiB each way (1 GiB with BERTH_LONG_IO); then a terminal.
#[test]
fn s133_io_is_byte_exact() {
    let instance = Instance::with_busybox();
    let mebibytes: usize = std::env::var_os("BERTH_LONG_IO").map_or(64, |_| 1024);
    let input: Vec<u8> = (0..mebibytes << 20).map(|n: usize| (n ^ (n >> 8) ^ (n >> 16)).to_le_bytes()[0]).collect();
    let fifos = fifo_dir(&instance);
    let cgroup = super::cgroup(&instance, "io");
    let run = ["run", "--rm", "--fifo-dir", &fifos, "--cgroup", &cgroup];
    let mut command = instance.ctr_command(&[&run[..], &[super::BUSYBOX, "io", "cat"]].concat());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::io::Write::write_all(&mut stdin, &input).unwrap();
            drop(stdin);
        });
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{:?}", output.status);
    let differs = output.stdout.iter().zip(&input).position(|(got, sent)| got != sent);
    assert!(output.stdout == input, "{} bytes of {}, other ones from {differs:?} on", output.stdout.len(), input.len());

    let terminal = [super::BUSYBOX, "tty", "sh", "-c", "'tty; echo tty-ok'"];
    let ctr = instance.ctr_command(&[&run[..], &["-t"], &terminal].concat());
    let line: Vec<String> = std::iter::once(ctr.get_program())
        .chain(ctr.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line.join(" "), "/dev/null"]);
    let ran = berth_testkit::instance::run(script, b"");
    assert!(ran.stdout.contains("/dev/pts/0") && ran.stdout.contains("tty-ok"), "{ran:?}");
}

/// S-133: a client that closes its FIFOs when it is told of the end (`ctr` below 1.7 does) has everything by then, though its own reader is slow.
#[test]
fn s133_the_end_is_told_after_the_output() {
    let instance = Instance::with_busybox();
    let fifos = fifo_dir(&instance);
    let cgroup = super::cgroup(&instance, "io");
    let run = ["run", "--rm", "--fifo-dir", &fifos, "--cgroup", &cgroup, super::BUSYBOX, "io"];
    let mut command = instance.ctr_command(&[&run[..], &["head", "-c", "400000", "/dev/zero"]].concat());
    command.stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 1];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    // What it wrote lies in pipes and with the shim when it ends; nobody takes it from ctr before.
    wait_until("the process has ended", || process_in(&instance.cgroup_parent(), "io").is_none().then_some(()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout.len(), 400_000 - first.len());
}

/// S-110: a storm of added processes: 200 (10,000 with BERTH_LONG_STORM); no descriptor or thread of the shim stays.
#[test]
fn exec_storm_leaks_nothing() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    let shim = std::fs::read_to_string(instance.state().join("shims/default/web/shim.pid")).unwrap();
    let open = |pid: &str, what: &str| std::fs::read_dir(format!("/proc/{}/{what}", pid.trim())).unwrap().count();
    let daemon = instance.daemon_pid().to_string();
    ctr_exec(&instance, "web", "warm", &["true"]).ok();
    let settled = |what: &str| (open(&shim, what), open(&daemon, what));
    let before = (open(&shim, "fd"), open(&shim, "task"));
    let rounds = std::env::var_os("BERTH_LONG_STORM").map_or(25, |_| 1250);
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for lane in 0..8 {
                let instance = &instance;
                scope.spawn(move || ctr_exec(instance, "web", &format!("e{round}-{lane}"), &["true"]).ok().to_owned());
            }
        });
    }
    wait_until("the shim holds no more than before", || {
        (open(&shim, "fd") <= before.0 && open(&shim, "task") <= before.1).then_some(())
    });
    assert!(settled("fd").1 < 100, "descriptors of the daemon: {:?}", settled("fd"));
    assert_eq!(std::fs::read_dir(instance.directory.join("fifo")).unwrap().count(), 1, "the task's own");
    instance.berth(&["rm", "-f", "web"]).ok();
}

/// S-113: `Tasks.Metrics` gives what the kernel's files say.
#[test]
fn s113_metrics_equal_the_kernels_files() {
    let instance = Instance::with_busybox();
    ctr_run(&instance, &["-d", "--memory-limit", "67108864"], "web", &["sleep", "1000"]).ok();
    let (pid, _) = task(&instance, "web").unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |controller: &str| {
        let line = cgroups.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|c| c == controller));
        line.map(|line| format!("/sys/fs/cgroup/{controller}{}", line.splitn(3, ':').nth(2).unwrap()))
    };
    let read =
        |file: String| std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}")).trim().to_owned();
    let files = match (path("memory"), path("pids")) {
        (Some(memory), Some(pids)) => vec![
            ("memory.limit_in_bytes", format!("{memory}/memory.limit_in_bytes")),
            ("memory.usage_in_bytes", format!("{memory}/memory.usage_in_bytes")),
            ("pids.current", format!("{pids}/pids.current")),
        ],
        _ => {
            let group = format!("/sys/fs/cgroup{}", cgroups.lines().next().unwrap().trim_start_matches("0::"));
            vec![("memory.usage", format!("{group}/memory.current")), ("pids.current", format!("{group}/pids.current"))]
        }
    };
    let in_the_kernel = || files.iter().map(|(_, file)| read(file.clone())).collect::<Vec<_>>();
    // What the kernel counts changes while the container starts: only what was the same before and after can be compared.
    let (shown, counted) = wait_until("the figures stay", || {
        let before = in_the_kernel();
        let shown = instance.ctr(&["tasks", "metrics", "web"]);
        (in_the_kernel() == before).then_some((shown, before))
    });
    for ((name, _), counted) in files.iter().zip(counted) {
        let row = rows(shown.ok()).into_iter().find(|row| row.first() == Some(name));
        assert_eq!(row.unwrap_or_else(|| panic!("{name}: {shown:?}"))[1], counted, "{name}");
    }
    instance.berth(&["rm", "-f", "web"]).ok();
}
