//! Secure containers. gVisor itself (Debian's `runsc`) by its command line, on both faces and under Debian's containerd; and how Kata's and gVisor's shims are called. Those are not here, and Kata
//! wants a machine monitor: what answers is a stand-in under their names, so this shows that they are found, get their options and are asked
//! what they are asked elsewhere; not that a guest boots.

use std::path::{Path, PathBuf};

use berth_testkit::containerd::Containerd;
use berth_testkit::{Output, peers, wait_until};

use super::{Shims, ctr_run};

const KATA: &str = "containerd-shim-kata-v2";
const RUNSC: &str = "containerd-shim-runsc-v1";
/// `runtimeoptions.v1.Options { config_path }`, as both take it.
const OPTIONS: &str = "runtimeoptions.v1.Options";

/// S-135, S-136, S-138, S-139, S-141: by the naming rule, with a configuration of theirs, from Docker's face; one scenario for both.
#[test]
fn s135_s136_invocation_under_dockers_api() {
    let shims = Shims::new(&[KATA, RUNSC]);
    let entry =
        |name: &str, kind: &str| format!(r#"{name}={{"type":"{kind}","options":{{"ConfigPath":"/etc/{name}.toml"}}}}"#);
    let (kata, gvisor) = (entry("kata", "io.containerd.kata.v2"), entry("gvisor", "io.containerd.runsc.v1"));
    let berth = shims.instance(&["--add-runtime", &kata, "--add-runtime", &gvisor]);
    for (runtime, kind, binary) in [("kata", "kata", KATA), ("gvisor", "runsc", RUNSC)] {
        berth.sleeper("c1", &["--runtime", runtime]);
        assert_eq!(berth.berth(&["exec", "c1", "echo", "joined"]).ok(), "joined");
        berth.berth(&["update", "--cpus", "0.5", "c1"]).ok();
        berth.berth(&["pause", "c1"]).ok();
        berth.berth(&["unpause", "c1"]).ok();
        berth.berth(&["rm", "-f", "c1"]).ok();
        wait_until("the shim ends", || shims.processes(binary).is_empty().then_some(()));
        let path = format!("/etc/{runtime}.toml");
        let length = char::from(u8::try_from(path.len()).unwrap()).escape_debug().to_string();
        let calls: Vec<String> = shims.calls().into_iter().filter(|line| line.starts_with(kind)).collect();
        for call in [
            format!("{kind} start {OPTIONS} \\u{{12}}{length}{path}"),
            format!("{kind} create {OPTIONS} \\u{{12}}{length}{path}"),
            format!("{kind} start-process"),
            format!("{kind} exec types.containerd.io/opencontainers/runtime-spec/1/Process"),
            format!("{kind} update types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"),
            format!("{kind} pause"),
            format!("{kind} resume"),
            format!("{kind} kill 9"),
            format!("{kind} delete"),
            format!("{kind} shutdown"),
        ] {
            assert!(calls.contains(&call), "{call:?} in {calls:#?}");
        }
    }
}

/// S-136, S-122: gVisor itself, driven by our shim: a kernel of its own with its banner, exit codes, exec, pause, kill, and the daemon's restart.
#[test]
fn s136_gvisor_by_its_command_line() {
    let runsc = peers::peer("usr/bin/runsc");
    let arguments = r#""--platform=ptrace","--network=none","--ignore-cgroups""#;
    let entry = format!(r#"gvisor={{"path":"{}","args":[{arguments}]}}"#, runsc.display());
    let mut berth = berth_testkit::Instance::start_with(&["--add-runtime", &entry]);
    berth.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    let options = ["--runtime", "gvisor", "--network", "none"];
    assert!(berth.busybox(&options, &["dmesg"]).ok().contains("Starting gVisor"));
    let ran = berth.busybox(&options, &["sh", "-c", "uname -r; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, "err\n"), "{ran:?}");
    let host = rustix::system::uname().release().to_string_lossy().into_owned();
    assert_ne!(ran.stdout.trim_end(), host, "the guest's kernel is not the host's");
    berth.sleeper("c1", &options);
    let joined = berth.berth(&["exec", "c1", "sh", "-c", "echo joined; exit 4"]);
    assert_eq!((joined.code, joined.stdout.as_str()), (4, "joined\n"), "{joined:?}");
    berth.berth(&["pause", "c1"]).ok();
    berth.berth(&["unpause", "c1"]).ok();
    let top = berth.berth(&["top", "c1"]);
    assert!(top.ok().contains("runsc"), "what the host has of it: {top:?}");
    assert_eq!(berth.berth(&["stats", "--no-stream", "--format", "{{.Name}}", "c1"]).ok(), "c1");
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(berth.berth(&["exec", "c1", "echo", "again"]).ok(), "again");
    berth.berth(&["kill", "c1"]).ok();
    assert_eq!(berth.berth(&["wait", "c1"]).ok(), "137");
    let terminal = berth.busybox(&[&options[..], &["-t"]].concat(), &["sh", "-c", "test -t 1 && echo a terminal"]);
    assert_eq!(terminal.ok(), "a terminal\r");
    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    berth.berth(&[&["run", "-d", "--name", "c2"], &options[..], &["busybox", "sh", "-c", script]].concat()).ok();
    wait_until("it is ready", || (berth.berth(&["logs", "c2"]).ok() == "ready").then_some(()));
    berth.berth(&["stop", "c2"]).ok();
    assert_eq!(berth.inspect("c2", "{{.State.ExitCode}}"), "5");
    assert_eq!(berth.berth(&["logs", "c2"]).ok(), "ready\nasked");
    berth.berth(&["rm", "c1", "c2"]).ok();
}

/// `runsc` with what this machine asks for, as a user would wrap it.
fn runsc(into: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let file = into.join("runsc");
    let binary = peers::peer("usr/bin/runsc");
    let text =
        format!("#!/bin/sh\nexec {} --platform=ptrace --network=none --ignore-cgroups \"$@\"\n", binary.display());
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

/// A container's life in gVisor by `ctr`, whatever daemon is behind it; `c1` is removed at the end.
fn life_in_gvisor(ctr: impl Fn(&[&str]) -> Output, run: impl Fn(&[&str], &str, &[&str]) -> Output) {
    let ran = run(&["--rm"], "c0", &["sh", "-c", "dmesg; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, "err\n"), "{ran:?}");
    assert!(ran.stdout.contains("Starting gVisor"), "{ran:?}");
    run(&["-d"], "c1", &["sleep", "1000"]).ok();
    let state = || {
        let listed = ctr(&["tasks", "ls"]);
        let line = listed.ok().lines().find(|line| line.starts_with("c1 ")).map(str::to_owned);
        line.and_then(|line| line.split_whitespace().last().map(str::to_owned)).unwrap_or_default()
    };
    let joined = ctr(&["tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo joined; exit 4"]);
    assert_eq!((joined.code, joined.stdout.as_str()), (4, "joined\n"), "{joined:?}");
    assert!(ctr(&["tasks", "ps", "c1"]).ok().lines().count() > 1);
    ctr(&["tasks", "metrics", "c1"]).ok();
    ctr(&["tasks", "pause", "c1"]).ok();
    assert_eq!(state(), "PAUSED");
    ctr(&["tasks", "resume", "c1"]).ok();
    assert_eq!(state(), "RUNNING");
    ctr(&["tasks", "kill", "-s", "SIGKILL", "c1"]).ok();
    wait_until("it is dead", || (state() == "STOPPED").then_some(()));
    ctr(&["tasks", "delete", "c1"]).ok();
    ctr(&["containers", "rm", "c1"]).ok();
}

/// S-136, S-137: the same by containerd's API: the runtime that the options name, under our shim.
#[test]
fn s136_gvisor_by_containerds_options() {
    let berth = berth_testkit::Instance::with_busybox();
    let binary = runsc(&berth.directory).display().to_string();
    let run = |options: &[&str], id: &str, words: &[&str]| {
        ctr_run(&berth, &[&["--runc-binary", &binary], options].concat(), id, words)
    };
    life_in_gvisor(|words| berth.ctr(words), run);
}

/// S-136, S-138: gVisor by our shim in the place of runc's, under Debian's containerd.
#[test]
fn s136_gvisor_by_our_shim_under_containerd() {
    let bin = berth_testkit::instance::test_root().join(format!("gvisor-bin-{}", std::process::id()));
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy(peers::binaries().join("containerd-shim-berth-v1"), bin.join("containerd-shim-runc-v2")).unwrap();
    let binary = runsc(&bin).display().to_string();
    {
        let containerd = Containerd::with_busybox(&bin);
        let run = |options: &[&str], id: &str, words: &[&str]| {
            containerd.run(&[&["--runc-binary", &binary], options].concat(), id, words)
        };
        life_in_gvisor(|words| containerd.ctr(words), run);
    }
    std::fs::remove_dir_all(&bin).unwrap();
}

/// S-136: gVisor's shim says of a paused task that its state is unknown; it is shown so, and is resumed, killed and deleted like any other, by a daemon
/// that was started meanwhile, too.
#[test]
fn s136_a_shim_that_does_not_say_the_state() {
    let shims = Shims::new(&[RUNSC]);
    let mut berth = shims.instance(&[]);
    let runtime = ["-d", "--runtime", "io.containerd.runsc.v1"];
    ctr_run(&berth, &runtime, "c1", &["sleep", "1000"]).ok();
    berth.ctr(&["tasks", "pause", "c1"]).ok();
    let listed = berth.ctr(&["tasks", "ls"]);
    assert!(listed.ok().contains("UNKNOWN"), "{listed:?}");
    berth.kill_daemon();
    berth.spawn();
    let listed = berth.berth(&["ps", "--format", "{{.Names}} {{.State}}"]);
    assert_eq!(listed.ok(), "c1 running");
    berth.ctr(&["tasks", "resume", "c1"]).ok();
    assert!(berth.ctr(&["tasks", "ls"]).ok().contains("RUNNING"));
    berth.ctr(&["tasks", "pause", "c1"]).ok();
    berth.ctr(&["tasks", "kill", "-s", "SIGKILL", "c1"]).ok();
    wait_until("it is dead", || berth.ctr(&["tasks", "ls"]).ok().contains("STOPPED").then_some(()));
    berth.ctr(&["tasks", "delete", "c1"]).ok();
    berth.ctr(&["containers", "rm", "c1"]).ok();
    wait_until("the shim ends", || shims.processes(RUNSC).is_empty().then_some(()));
}

/// S-142, S-143: a pod of Kata's: one shim process for the sandbox and its containers, no further one beside it; `berth shim ls`
/// shows one shim and its tasks.
#[test]
fn s142_s143_one_shim_for_a_pod_of_katas() {
    let shims = Shims::new(&[KATA]);
    let berth = shims.instance(&[]);
    let pod = ["-d", "--runtime", "io.containerd.kata.v2", "--annotation", "io.kubernetes.cri.sandbox-id=pod"];
    for (id, kind) in [("pod", "sandbox"), ("a", "container"), ("b", "container"), ("c", "container")] {
        let kind = format!("io.kubernetes.cri.container-type={kind}");
        ctr_run(&berth, &[&pod[..], &["--annotation", &kind]].concat(), id, &["sleep", "1000"]).ok();
    }
    assert_eq!(shims.processes("containerd-shim").len(), 1, "{:?}", shims.processes(""));
    let listed = berth.berth(&["shim", "ls", "--format", "{{.Shim}} {{.Runtimes}} {{.Count}} {{.Tasks}}"]);
    assert_eq!(listed.ok(), "containerd-shim-kata-v2 io.containerd.kata.v2 4 a,b,c,pod");
    for id in ["a", "b", "c", "pod"] {
        berth.berth(&["rm", "-f", id]).ok();
    }
    wait_until("the pod's shim ends", || shims.processes(KATA).is_empty().then_some(()));
}

/// S-143: the same with our own shim, and with Debian's; a container alone has a shim for itself.
#[test]
fn s143_pods_of_our_own_shim() {
    let bin = peers::peer("usr/bin/containerd-shim-runc-v2").parent().unwrap().to_owned();
    let berth = berth_testkit::Instance::start_so(&[], &[&bin]);
    berth.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    for runtime in ["io.containerd.berth.v1", "io.containerd.runc.v2"] {
        let pod = ["-d", "--runtime", runtime, "--annotation", "io.kubernetes.cri.sandbox-id=p0"];
        for id in ["p0", "p1", "p2", "p3"] {
            let cgroup = format!("{}/{id}", berth.cgroup_parent());
            ctr_run(&berth, &[&pod[..], &["--cgroup", &cgroup]].concat(), id, &["sleep", "1000"]).ok();
        }
        let name = format!("alone-{}", berth.bridge());
        berth.sleeper(&name, &[]);
        let listed = berth.berth(&["shim", "ls", "--format", "{{.Runtimes}} {{.Count}} {{.Tasks}}"]);
        let alone = berth.inspect(&name, "{{.Id}}")[..12].to_owned();
        let mut lines: Vec<&str> = listed.ok().lines().collect();
        lines.sort_unstable();
        let mut expected = [format!("{runtime} 4 p0,p1,p2,p3"), format!("io.containerd.berth.v1 1 {alone}")];
        expected.sort_unstable();
        assert_eq!(lines, expected, "{listed:?}");
        for id in [&name, "p1", "p0", "p3", "p2"] {
            berth.berth(&["rm", "-f", id]).ok();
        }
        wait_until("no shim is left", || berth.berth(&["shim", "ls", "--json"]).ok().is_empty().then_some(()));
    }
}
