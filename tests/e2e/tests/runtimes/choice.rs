//! How a runtime is named, listed and missed.

use berth_testkit::{Instance, peers, wait_until};

use super::instance;

/// S-122: a runtime that is not there is named with the place where it was looked for; nothing is made.
#[test]
fn s122_missing_runtimes() {
    let berth = Instance::with_busybox();
    for (name, words) in [
        ("youki", "no executable youki in "),
        ("io.containerd.kata.v2", "no shim \"containerd-shim-kata-v2\""),
        ("/nowhere/runc", "no executable /nowhere/runc"),
        ("a/b", "unknown or invalid runtime name: a/b"),
    ] {
        let refused = berth.busybox(&["--runtime", name], &["true"]);
        assert_eq!(refused.code, 125, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    assert_eq!(berth.berth(&["ps", "-aq"]).ok(), "");
}

/// S-122: runtimes of the configuration with arguments and options, in both clients; `info` lists them.
#[test]
fn s122_configured_runtimes() {
    let directory = berth_testkit::instance::test_root().join(format!("berth-test-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let runc = peers::peer("usr/bin/runc").display().to_string();
    let file = directory.join("config.toml");
    let text = format!(
        "[runtimes.plain]\npath = \"{runc}\"\nargs = [\"--debug\"]\n\n[runtimes.shim]\ntype = \"io.containerd.runc.v2\"\n\
         options = {{ BinaryName = \"{runc}\", Root = \"{}\" }}\n",
        directory.join("runc-root").display()
    );
    std::fs::write(&file, text).unwrap();
    let berth = instance(&["--config", file.to_str().unwrap(), "--default-runtime", "plain"]);
    let info =
        berth.docker(&["info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}{{.DefaultRuntime}}"]);
    for name in ["crun", "io.containerd.berth.v1", "io.containerd.runc.v2", "plain", "runc", "shim"] {
        assert!(info.ok().split(' ').any(|word| word == name), "{info:?}");
    }
    assert!(info.ok().ends_with(" plain"), "{info:?}");
    for runtime in ["plain", "shim"] {
        let ran = berth.docker(&["run", "--rm", "--runtime", runtime, "busybox", "echo", runtime]);
        assert_eq!(ran.ok(), runtime);
    }
    berth.sleeper("c1", &[]);
    assert_eq!(berth.inspect("c1", "{{.HostConfig.Runtime}}"), "plain");
    let state = berth.state().join("tasks").join(berth.inspect("c1", "{{.Id}}")).join("oci/state");
    assert!(state.join(berth.inspect("c1", "{{.Id}}")).exists(), "runc keeps its state in the bundle");
    berth.berth(&["rm", "-f", "c1"]).ok();
    drop(berth);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The shim in front is killed: the container behind, another runtime's state and another shim go with it.
#[test]
fn s132_a_killed_shim_takes_what_is_behind_it() {
    let berth = instance(&[]);
    for runtime in ["runc", "io.containerd.runc.v2"] {
        let id = berth.sleeper("c1", &["--runtime", runtime]);
        let pid = berth.pid("c1");
        let shim = berth.state().join("tasks").join(&id).join("shim.pid");
        let shim: i32 = std::fs::read_to_string(shim).unwrap().trim().parse().unwrap();
        let shim = rustix::process::Pid::from_raw(shim).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
        wait_until("the container is known to be dead", || {
            (berth.inspect("c1", "{{.State.Status}}") == "exited").then_some(())
        });
        wait_until("its process is gone", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
        berth.berth(&["rm", "c1"]).ok();
    }
}
