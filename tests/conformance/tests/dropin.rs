//! `runb` in runc's place below Debian's containerd, dockerd and podman, unmodified: they run, exec, attach terminals, pause, update,
//! measure, stop and delete, and each call goes to `runb`.

use std::process::Command;

use berth_conformance::Runtime;
use berth_conformance::engine::{Place, on_terminal, output, wait_for};
use berth_testkit::{Output, wait_until};

#[test]
fn below_containerd() {
    let mut place = Place::new(&Runtime::tested());
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"/run/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"/run/c.sock\"\n",
        place.directory.display()
    );
    std::fs::write(place.directory.join("config.toml"), config).unwrap();
    let mut daemon = place.command("usr/bin/containerd");
    daemon.args(["--config", &place.path("config.toml")]);
    place.daemon(daemon);
    let ctr = |words: &[&str]| -> Command {
        let mut command = place.command("usr/bin/ctr");
        command.args(["--address", "/run/c.sock"]).args(words);
        command
    };
    wait_for("containerd answers", || ctr(&["version"]));
    output(ctr(&["images", "import", "--snapshotter", "native", &place.path("busybox.tar")])).ok();
    let (runtime, parent) = (place.runtime(), place.cgroup_parent());
    let image = "docker.io/library/busybox:latest";
    let run = |flags: &[&str], id: &str, words: &[&str]| -> Command {
        let cgroup = format!("{parent}/{id}");
        let fixed = ["run", "--snapshotter", "native", "--runc-binary", &runtime, "--cgroup", &cgroup];
        ctr(&[&fixed, flags, &[image, id], words].concat())
    };
    let one = output(run(&["--rm"], "one", &["sh", "-c", "echo out; exit 5"]));
    assert_eq!((one.code, one.stdout.as_str()), (5, "out\n"), "{one:?}");
    assert!(on_terminal(run(&["--rm", "--tty"], "two", &["tty"])).contains("/dev/pts/0"));
    let missing = output(run(&["--rm"], "three", &["no-such-program"]));
    assert!(missing.stderr.contains("executable file not found in $PATH"), "{missing:?}");

    output(run(&["--detach"], "long", &["sleep", "1000"])).ok();
    let exec = |id: &str, words: &[&str]| output(ctr(&[&["task", "exec", "--exec-id", id, "long"], words].concat()));
    assert_eq!(exec("e1", &["sh", "-c", "echo in; exit 7"]).code, 7);
    let mut on_tty = ctr(&["task", "exec", "--tty", "--exec-id", "e2", "long", "tty"]);
    on_tty.env("TERM", "xterm");
    assert!(on_terminal(on_tty).contains("/dev/pts/"));
    if every_hierarchy_is_mounted() {
        assert!(output(ctr(&["task", "metrics", "long"])).ok().contains("memory"));
    }
    assert!(output(ctr(&["task", "ps", "long"])).ok().lines().count() >= 2);
    output(ctr(&["task", "pause", "long"])).ok();
    assert!(output(ctr(&["task", "ls"])).ok().contains("PAUSED"));
    output(ctr(&["task", "resume", "long"])).ok();
    output(ctr(&["task", "kill", "--signal", "SIGKILL", "long"])).ok();
    wait_for("the task is gone", || ctr(&["task", "rm", "long"]));
    output(ctr(&["containers", "rm", "long"])).ok();
    place.assert_called(&["create", "start", "exec", "pause", "resume", "kill", "delete"]);
}

/// containerd 1.6 measures nothing on a host that uses a v1 hierarchy (`/proc/self/cgroup`) which is mounted nowhere.
fn every_hierarchy_is_mounted() -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    groups
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .all(|names| names.is_empty() || mounts.lines().any(|line| line.contains(" cgroup ") && line.contains(names)))
}

#[test]
fn below_docker() {
    let mut place = Place::new(&Runtime::tested());
    let mut daemon = place.command("usr/sbin/dockerd");
    daemon.args(["--data-root", &place.path("root"), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"]);
    daemon.args(["-H", "unix:///run/docker.sock", "--bridge", "none", "--iptables=false", "--ip-forward=false"]);
    daemon.args(["--storage-driver", "vfs", "--cgroup-parent", &place.cgroup_parent()]);
    daemon.args(["--add-runtime", &format!("runb={}", place.runtime()), "--default-runtime", "runb"]);
    place.daemon(daemon);
    let docker = |words: &[&str]| -> Command {
        let mut command = place.command("usr/bin/docker");
        command.env("DOCKER_HOST", "unix:///run/docker.sock").args(words);
        command
    };
    let call = |words: &[&str]| -> Output { output(docker(words)) };
    wait_for("dockerd answers", || docker(&["version"]));
    call(&["load", "-i", &place.path("busybox.tar")]).ok();
    let one = call(&["run", "--rm", "busybox", "sh", "-c", "echo out; exit 5"]);
    assert_eq!((one.code, one.stdout.as_str()), (5, "out\n"), "{one:?}");
    assert_eq!(call(&["run", "--rm", "-t", "busybox", "tty"]).ok().trim(), "/dev/pts/0");
    assert_eq!(call(&["run", "--rm", "busybox", "no-such-program"]).code, 127);
    assert_eq!(call(&["run", "--rm", "busybox", "/etc"]).code, 126);
    let flags =
        ["--memory", "32m", "--pids-limit", "50", "--read-only", "--tmpfs", "/t", "--cap-drop", "ALL", "-u", "7:8"];
    let words = ["run", "-d", "--name", "long"];
    call(&[words.as_slice(), &flags, &["busybox", "sleep", "1000"]].concat()).ok();
    assert_eq!(call(&["exec", "long", "sh", "-c", "id -u; touch /x 2>/dev/null; exit 9"]).code, 9);
    assert!(call(&["exec", "-t", "long", "tty"]).ok().contains("/dev/pts/"));
    // As with runc: docker 20.10 tells 127 from 126 for run only.
    assert_eq!(call(&["exec", "long", "no-such-program"]).code, 126);
    assert!(call(&["top", "long"]).ok().contains("sleep 1000"));
    call(&["pause", "long"]).ok();
    assert_eq!(call(&["inspect", "-f", "{{.State.Status}}", "long"]).ok(), "paused");
    call(&["unpause", "long"]).ok();
    call(&["update", "--memory", "48m", "--memory-swap", "48m", "long"]).ok();
    if every_hierarchy_is_mounted() {
        let stats = call(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "long"]);
        assert!(stats.ok().contains("48MiB"), "{stats:?}");
    }
    call(&["stop", "-t", "0", "long"]).ok();
    assert_eq!(call(&["inspect", "-f", "{{.State.ExitCode}} {{.HostConfig.Runtime}}", "long"]).ok(), "137 runb");
    call(&["start", "long"]).ok();
    call(&["rm", "-f", "long"]).ok();
    place.assert_called(&["create", "start", "exec", "pause", "resume", "update", "kill", "delete"]);
}

#[test]
fn below_podman() {
    let place = Place::new(&Runtime::tested());
    // Without CAP_SYS_RESOURCE podman's own default limits could not be set.
    let conf = format!(
        "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\nnetns=\"none\"\n\
         [engine]\nevents_logger=\"file\"\nconmon_path=[\"{}\"]\n[engine.runtimes]\nrunb=[\"{}\"]\n",
        berth_testkit::peers::peer("usr/bin/conmon").display(),
        place.runtime()
    );
    std::fs::write(place.directory.join("containers.conf"), conf).unwrap();
    let rootfs = place.directory.join("rootfs/bin");
    for folder in ["bin", "proc", "sys", "dev", "etc"] {
        std::fs::create_dir_all(place.directory.join("rootfs").join(folder)).unwrap();
    }
    std::fs::copy(berth_testkit::peers::busybox(), rootfs.join("busybox")).unwrap();
    for applet in ["sh", "sleep", "tty", "echo"] {
        std::os::unix::fs::symlink("busybox", rootfs.join(applet)).unwrap();
    }
    let podman = |words: &[&str]| -> Output {
        let mut command = place.command("usr/bin/podman");
        command.env("CONTAINERS_CONF", place.path("containers.conf"));
        command.args(["--root", &place.path("root"), "--runroot", "/run/podman", "--tmpdir", "/run/podman-tmp"]);
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runb"]).args(words);
        output(command)
    };
    let (root, parent) = (place.path("rootfs"), place.cgroup_parent());
    let run = |flags: &[&str], words: &[&str]| {
        podman(&[&["run", "--cgroup-parent", &parent], flags, &["--rootfs", &root], words].concat())
    };
    let one = run(&["--rm"], &["sh", "-c", "echo out; exit 5"]);
    assert_eq!((one.code, one.stdout.as_str()), (5, "out\n"), "{one:?}");
    assert_eq!(run(&["--rm"], &["no-such-program"]).code, 127);
    run(&["-d", "--name", "long", "--memory", "32m"], &["sleep", "1000"]).ok();
    assert_eq!(podman(&["exec", "long", "sh", "-c", "exit 9"]).code, 9);
    assert!(podman(&["exec", "-t", "long", "tty"]).ok().contains("/dev/pts/"));
    podman(&["pause", "long"]).ok();
    podman(&["unpause", "long"]).ok();
    podman(&["update", "--memory", "48m", "long"]).ok();
    assert!(podman(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "long"]).ok().contains("MB"));
    podman(&["stop", "-t", "0", "long"]).ok();
    podman(&["rm", "-f", "long"]).ok();
    wait_until("conmon has cleaned up", || place.calls().iter().any(|verb| verb == "delete").then_some(()));
    place.assert_called(&["create", "start", "exec", "pause", "resume", "update", "kill", "delete"]);
}
