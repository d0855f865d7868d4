//! `exec`: a further process, with every flag.

use std::fs;

use berth_testkit::wait_until;
use serde_json::json;

use crate::bundle::Container;
use crate::console::{DescriptorSocket, read_until, type_line};
use crate::runtime::{Outcome, Runtime};

fn sleeper(runtime: &Runtime) -> Container<'_> {
    let container = Container::with_script(runtime, "sleep 60");
    container.create_and_start();
    container
}

pub fn environment_user_and_directory(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let flags = ["--env", "A=1", "--env", "B=2 3", "--cwd", "/data", "--user", "1000:1000"];
    let output = container.exec(&flags, &["sh", "-c", "echo $A $B; pwd; id -u; id -g; echo $PATH"]);
    assert_eq!(output.ok(), "1 2 3\n/data\n1000\n1000\n/bin");
    assert_eq!(container.exec(&["-u", "5"], &["sh", "-c", "id -u; id -g"]).ok(), "5\n0");
    for user in ["name", "1:x"] {
        assert_ne!(container.exec(&["--user", user], &["true"]).code, 0, "{user}");
    }
    Ok(())
}

pub fn codes(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    assert_eq!(container.exec(&[], &["sh", "-c", "exit 42"]).code, 42);
    assert_eq!(container.exec(&[], &["sh", "-c", "kill -9 $$"]).code, 137);
    let missing = container.exec(&[], &["no-such-program"]);
    assert_eq!(missing.code, 255);
    assert!(missing.stderr.contains("executable file not found in $PATH"), "{missing:?}");
    assert_eq!(container.exec(&[], &[]).code, 255, "nothing to run");
    assert_eq!(container.status(), "running");
    Ok(())
}

pub fn process_document(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let file = container.directory.join("process.json");
    let document = json!({"args": ["/bin/sh", "-c", "echo $X; pwd; id -u; umask"], "cwd": "/tmp", "env": ["PATH=/bin", "X=y"],
        "user": {"uid": 12, "gid": 13, "umask": 0o27}});
    fs::write(&file, document.to_string()).unwrap();
    let output = container.exec(&["--process", file.to_str().unwrap()], &[]);
    assert!(output.ok().starts_with("y\n/tmp\n12\n"), "{output:?}");
    fs::write(&file, "{}").unwrap();
    assert_ne!(container.exec(&["-p", file.to_str().unwrap()], &[]).code, 0);
    Ok(())
}

pub fn capabilities(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let status = "grep CapBnd /proc/self/status";
    let plain = container.exec(&[], &["sh", "-c", status]).ok().to_owned();
    let more = container.exec(&["--cap", "CAP_NET_RAW"], &["sh", "-c", status]).ok().to_owned();
    let bits = |text: &str| u64::from_str_radix(text.rsplit('\t').next().unwrap(), 16).unwrap();
    assert_eq!(bits(&more), bits(&plain) | 1 << 13);
    Ok(())
}

pub fn detached_with_pid_file(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let pid_file = container.directory.join("exec-pid");
    let mut command = container.command(&[
        "exec",
        "--detach",
        "--pid-file",
        pid_file.to_str().unwrap(),
        &container.id,
        "sleep",
        "63",
    ]);
    let quiet = || fs::File::options().write(true).open("/dev/null").unwrap();
    assert!(command.stdout(quiet()).stderr(quiet()).status().unwrap().success());
    let pid: u32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let command_line = wait_until("it is the program", || {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).ok().filter(|line| line.starts_with("sleep"))
    });
    assert_eq!(command_line, "sleep\x0063\0");
    Ok(())
}

pub fn terminal(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let socket = DescriptorSocket::listen(&container.directory.join("exec-console"));
    let script = "tty; echo ready; read line; echo got $line; read end";
    let words = ["exec", "--tty", "--detach", "--console-socket", socket.path(), &container.id, "sh", "-c", script];
    let output = container.call(&words);
    assert_eq!(output.code, 0, "{output:?}");
    let mut master = socket.receive();
    let said = read_until(&mut master, "ready");
    assert!(said.contains("/dev/pts/"), "{said}");
    type_line(&mut master, "hello");
    read_until(&mut master, "got hello");
    let refused = container.exec(&["--tty", "--detach"], &["true"]);
    assert!(refused.code != 0 && refused.stderr.contains("cannot allocate tty"), "{refused:?}");
    Ok(())
}

pub fn refused_when_paused(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    container.pause();
    let output = container.exec(&[], &["true"]);
    assert!(output.code != 0 && output.stderr.contains("paused"), "{output:?}");
    container.verb(&["resume"]).ok();
    assert_eq!(container.exec(&[], &["true"]).code, 0);
    Ok(())
}

pub fn waits_when_told_to(runtime: &Runtime) -> Outcome {
    runtime.needs_flag("exec", "--ignore-paused")?;
    let container = sleeper(runtime);
    container.pause();
    let mark = container.rootfs().join("data/mark");
    let mut child =
        container.command(&["exec", "--ignore-paused", &container.id, "touch", "/data/mark"]).spawn().unwrap();
    // Two processes are in the group once the new one waits there.
    let group = crate::cgroup::directory(&container, "freezer").join("cgroup.procs");
    wait_until("it joined", || (fs::read_to_string(&group).unwrap_or_default().lines().count() >= 2).then_some(()));
    assert!(!mark.exists());
    container.verb(&["resume"]).ok();
    assert!(child.wait().unwrap().success());
    assert!(mark.exists());
    Ok(())
}

pub fn groups(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let script = "grep Groups: /proc/self/status | cut -f2";
    let output = container.exec(&["-g", "100", "-g", "65534", "-u", "1:2"], &["sh", "-c", script]);
    let groups: Vec<&str> = output.ok().split_whitespace().filter(|gid| *gid != "2").collect();
    assert_eq!(groups, ["100", "65534"]);
    Ok(())
}

pub fn joins_the_namespaces(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let script = "for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done";
    let pid = container.state()["pid"].clone();
    let expected = ["pid", "net", "ipc", "uts", "mnt"]
        .map(|file| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().display().to_string());
    assert_eq!(container.exec(&[], &["sh", "-c", script]).ok(), expected.join("\n"));
    Ok(())
}

pub fn no_new_privileges_by_flag(runtime: &Runtime) -> Outcome {
    let container = sleeper(runtime);
    let script = "grep NoNewPrivs /proc/self/status | cut -f2";
    assert_eq!(container.exec(&[], &["sh", "-c", script]).ok(), "0");
    assert_eq!(container.exec(&["--no-new-privs"], &["sh", "-c", script]).ok(), "1");
    Ok(())
}

pub fn preserves_descriptors(runtime: &Runtime) -> Outcome {
    runtime.needs_flag("exec", "--preserve-fds")?;
    let container = sleeper(runtime);
    fs::write(container.directory.join("three"), "three\n").unwrap();
    let mut command = std::process::Command::new("/bin/sh");
    for (key, value) in runtime.command().get_envs() {
        command.env(key, value.unwrap());
    }
    let script = format!(
        "exec 3<{0}/three; exec {1} --root {0}/root exec --preserve-fds 1 {2} sh -c 'cat <&3'",
        container.directory.display(),
        runtime.path().display(),
        container.id
    );
    let output = command.args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "three\n", "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
