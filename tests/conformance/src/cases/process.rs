//! runtime-spec config, "Process".

use std::fs;
use std::os::fd::AsFd;

use serde_json::json;

use crate::bundle::Container;
use crate::console::{DescriptorSocket, read_until, type_line};
use crate::runtime::{Outcome, Runtime};

pub fn arguments_environment_and_directory(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "echo $0 $1 $A-$B; pwd; env | sort");
    container.push("/process/args", json!("zero")).push("/process/args", json!("one two"));
    container
        .set("/process/env", json!(["PATH=/bin", "A=a b", "B=", "HOME=/data"]))
        .set("/process/cwd", json!("/data"));
    let output = container.run();
    assert_eq!(output.ok(), "zero one two a b-\n/data\nA=a b\nB=\nHOME=/data\nPATH=/bin\nPWD=/data\nSHLVL=1");
    Ok(())
}

pub fn a_missing_directory_is_made(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "pwd");
    container.set("/process/cwd", json!("/new/deep"));
    assert_eq!(container.run().ok(), "/new/deep");
    Ok(())
}

pub fn user_and_groups(runtime: &Runtime) -> Outcome {
    let mut container =
        Container::with_script(runtime, "grep -E '^(Uid|Gid|Groups):' /proc/self/status | tr '\\t' ' '");
    container.set("/process/user", json!({"uid": 1234, "gid": 5678, "additionalGids": [9, 10]}));
    let said = container.run().ok().to_owned();
    assert!(said.contains("Uid: 1234 1234 1234 1234") && said.contains("Gid: 5678 5678 5678 5678"), "{said}");
    let groups = said.lines().find_map(|line| line.strip_prefix("Groups: ")).unwrap();
    let groups: Vec<&str> = groups.split_whitespace().filter(|gid| *gid != "5678").collect();
    assert_eq!(groups, ["9", "10"]);
    Ok(())
}

pub fn umask(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "umask");
    assert_eq!(container.run().ok(), "0022", "the default");
    container.set("/process/user/umask", json!(0o077));
    assert_eq!(container.run().ok(), "0077");
    Ok(())
}

fn status_bits(container: &Container<'_>) -> String {
    container.run().ok().replace('\t', " ")
}

pub fn capabilities_are_exactly_those(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "grep ^Cap /proc/self/status");
    let names = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let sets =
        json!({"bounding": ["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"], "effective": names, "permitted": names});
    container.set("/process/capabilities", sets);
    let said = status_bits(&container);
    for line in ["CapPrm: 0000000000000421", "CapBnd: 0000000000000421", "CapAmb: 0000000000000000"] {
        // The exec of root raises permitted to the bounding set.
        assert!(said.contains(line), "{line} is not in {said}");
    }
    container.set("/process/user", json!({"uid": 7, "gid": 7}));
    let said = status_bits(&container);
    assert!(said.contains("CapPrm: 0000000000000000") && said.contains("CapEff: 0000000000000000"), "{said}");
    Ok(())
}

pub fn ambient_capabilities(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "grep ^Cap /proc/self/status");
    let names = json!(["CAP_NET_BIND_SERVICE"]);
    let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
    let sets: serde_json::Map<_, _> = sets.iter().map(|set| ((*set).to_owned(), names.clone())).collect();
    container.set("/process/capabilities", sets.into()).set("/process/user", json!({"uid": 7, "gid": 7}));
    let said = status_bits(&container);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(said.contains(&format!("{set}: 0000000000000400")), "{said}");
    }
    Ok(())
}

pub fn no_capabilities_at_all(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "grep ^Cap /proc/self/status");
    container.set("/process/capabilities", json!({}));
    let said = status_bits(&container);
    assert_eq!(said.matches("0000000000000000").count(), 5, "{said}");
    Ok(())
}

pub fn no_new_privileges(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "grep NoNewPrivs /proc/self/status | cut -f2");
    assert_eq!(container.run().ok(), "0");
    container.set("/process/noNewPrivileges", json!(true));
    assert_eq!(container.run().ok(), "1");
    Ok(())
}

pub fn rlimits(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "grep -E 'open files|core file|address' /proc/self/limits");
    container.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]),
    );
    let said = container.run().ok().to_owned();
    let fields = |name: &str| -> Vec<String> {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(
        (fields("Max open files"), fields("Max core file size")),
        (vec!["123".into(), "456".into()], vec!["0".into(), "0".into()])
    );
    container.set("/process/rlimits", json!([{"type": "RLIMIT_NONE_SUCH", "soft": 1, "hard": 1}]));
    assert_ne!(container.run().code, 0);
    Ok(())
}

pub fn oom_score(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "cat /proc/self/oom_score_adj");
    container.set("/process/oomScoreAdj", json!(321));
    assert_eq!(container.run().ok(), "321");
    Ok(())
}

pub fn home_comes_from_passwd(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "echo $HOME");
    assert_eq!(container.run().ok(), "/root");
    container.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(container.run().ok(), "/home/user");
    container.set("/process/user", json!({"uid": 4321, "gid": 0}));
    assert_eq!(container.run().ok(), "/");
    Ok(())
}

pub fn console_socket(runtime: &Runtime) -> Outcome {
    let mut container =
        Container::with_script(runtime, "tty; stty size; echo ready; read line; echo got $line; read end");
    container.set("/process/terminal", json!(true)).set("/process/consoleSize", json!({"height": 33, "width": 99}));
    let socket = DescriptorSocket::listen(&container.directory.join("console"));
    container.write_config();
    // Its output is read to the end, as engines do: init must not hold it open.
    let bundle = container.bundle();
    let flags = ["create", "--bundle", bundle.to_str().unwrap(), "--console-socket", socket.path()];
    container.verb(&flags).ok();
    let mut master = socket.receive();
    assert!(rustix::termios::isatty(master.as_fd()));
    container.start();
    let said = read_until(&mut master, "ready");
    assert!(said.contains("/dev/pts/0") || said.contains("/dev/console"), "{said}");
    assert!(said.contains("33 99"), "{said}");
    type_line(&mut master, "hello");
    read_until(&mut master, "got hello");
    Ok(())
}

pub fn console_needs_a_reader(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    container.set("/process/terminal", json!(true));
    let output = container.try_create(&[]);
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("cannot allocate tty"), "{}", output.stderr);
    container.set("/process/terminal", json!(false));
    let output = container.try_create(&["--console-socket", "/no/such/socket"]);
    assert_ne!(output.code, 0);
    assert_eq!(container.call(&["list", "-q"]).stdout, "");
    Ok(())
}

/// A shell opens the descriptors, for a parent's own are close-on-exec.
fn with_descriptors(container: &Container<'_>, words: &str, environment: &[(&str, &str)]) -> std::process::Output {
    let (root, bundle) = (container.directory.join("root"), container.bundle());
    fs::write(container.directory.join("three"), "three\n").unwrap();
    fs::write(container.directory.join("four"), "four\n").unwrap();
    let script = format!(
        "exec 3<{0}/three 4<{0}/four 5>&-; exec {1} --root {2} {words} --bundle {3} {4}",
        container.directory.display(),
        container.runtime.path().display(),
        root.display(),
        bundle.display(),
        container.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    for (key, value) in container.runtime.command().get_envs() {
        command.env(key, value.unwrap());
    }
    command.envs(environment.iter().copied()).args(["-c", &script]).output().unwrap()
}

pub fn preserved_descriptors(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "cat <&3; cat <&4");
    container.write_config();
    let output = with_descriptors(&container, "run --preserve-fds 2", &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "three\nfour\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!with_descriptors(&container, "run --preserve-fds 40", &[]).status.success(), "42 is not open");
    Ok(())
}

pub fn listen_descriptors(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "echo $LISTEN_FDS $LISTEN_PID; cat <&3");
    container.write_config();
    // The shell becomes the runtime, so that the number is its own.
    let (root, bundle) = (container.directory.join("root"), container.bundle());
    fs::write(container.directory.join("three"), "three\n").unwrap();
    let script = format!(
        "exec 3<{}/three; LISTEN_FDS=1 LISTEN_PID=$$ exec {} --root {} run --bundle {} {}",
        container.directory.display(),
        runtime.path().display(),
        root.display(),
        bundle.display(),
        container.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    for (key, value) in runtime.command().get_envs() {
        command.env(key, value.unwrap());
    }
    let output = command.args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 1\nthree\n", "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub fn not_executable(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    fs::write(container.rootfs().join("data/plain"), "text").unwrap();
    container.set("/process/args", json!(["/data/plain"]));
    let output = container.run();
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("permission denied"), "{}", output.stderr);
    Ok(())
}

pub fn no_descriptor_leaks(runtime: &Runtime) -> Outcome {
    // The listing itself has one open: 3.
    let container = Container::with_script(runtime, "ls /proc/self/fd | tr '\\n' ' '");
    container.write_config();
    let output = with_descriptors(&container, "run", &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0 1 2 3");
    Ok(())
}

pub fn pidfd_socket(runtime: &Runtime) -> Outcome {
    runtime.needs_flag("create", "--pidfd-socket")?;
    let container = Container::with_script(runtime, "sleep 60");
    let socket = DescriptorSocket::listen(&container.directory.join("pidfd"));
    let output = container.try_create(&["--pidfd-socket", socket.path()]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let pidfd = socket.receive();
    rustix::process::pidfd_send_signal(pidfd.as_fd(), rustix::process::Signal::KILL).unwrap();
    container.wait_for_status("stopped");
    Ok(())
}
