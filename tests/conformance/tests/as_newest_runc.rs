//! What runc's newest releases do and Debian's 1.1.5 does not yet, so it is no case of the common list: found with runc's own integration
//! tests. Ours only.

use std::fs;

use berth_conformance::{Container, Runtime, cgroup};
use serde_json::json;

fn said(container: &Container<'_>) -> String {
    let output = container.run();
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

/// A caller that is pinned to one processor does not pin the container, nor what joins it.
#[test]
fn a_pinned_caller_does_not_pin_the_container() {
    let runtime = Runtime::tested();
    let cpus = rustix::thread::sched_getaffinity(None).unwrap().count();
    if cpus < 2 {
        println!("does not apply: one processor");
        return;
    }
    let script = "grep Cpus_allowed_list /proc/self/status";
    let container = Container::with_script(&runtime, script);
    container.write_config();
    let inner = container.run_command(&[]);
    let mut pinned = std::process::Command::new("taskset");
    pinned.args(["-c", "0"]).arg(inner.get_program()).args(inner.get_args());
    let output = pinned.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.trim() != "Cpus_allowed_list:\t0", "{text}");
}

/// The last of repeated entries counts, an empty HOME is none, and an entry without a name is refused.
#[test]
fn environment_entries_are_unique() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "env | sort");
    container.set("/process/env", json!(["A=1", "PATH=/bin", "HOME=/x", "A=2", "HOME="]));
    let text = said(&container);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("A=") || line.starts_with("HOME=")).collect();
    assert_eq!(lines, ["A=2", "HOME=/root"], "{text}");
    container.set("/process/env", json!(["PATH=/bin", "=x"]));
    assert_ne!(container.run().code, 0);
}

/// Ids as runc takes them.
#[test]
fn ids_with_plus_and_underscore() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "exit 3");
    for id in ["_first", "a+b.c-d"] {
        id.clone_into(&mut container.id);
        container.set("/linux/cgroupsPath", json!(format!("/berth-test/{id}-{}", std::process::id())));
        assert_eq!(container.run().code, 3, "{id}");
    }
}

/// A process document needs no user, and what it leaves out is the container's.
#[test]
fn a_process_document_may_be_short() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "sleep 60");
    container.set("/process/capabilities", json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]}));
    container.set("/linux/personality", json!({"domain": "LINUX32"}));
    container.create_and_start();
    let file = container.directory.join("process.json");
    let script = "grep CapBnd /proc/self/status; cat /proc/self/personality";
    fs::write(&file, json!({"cwd": "/", "args": ["/bin/sh", "-c", script]}).to_string()).unwrap();
    let output = container.call(&["exec", "--process", file.to_str().unwrap(), &container.id]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.stdout, "CapBnd:\t0000000000000020\n00000008\n");
}

/// A group that is frozen, or lived in, is refused at once.
#[test]
fn a_frozen_or_inhabited_group_is_refused() {
    let runtime = Runtime::tested();
    let container = Container::with_script(&runtime, "sleep 60");
    container.create_and_start();
    let mut other = Container::beside(&container, "true");
    other.set("/linux/cgroupsPath", container.config["linux"]["cgroupsPath"].clone());
    let refused = other.run();
    assert!(refused.code != 0 && refused.stderr.contains("container's cgroup is not empty"), "{refused:?}");
    let own = format!("/berth-test/frozen-{}", std::process::id());
    other.set("/linux/cgroupsPath", json!(own));
    let group = cgroup::directory(&other, "freezer");
    fs::create_dir_all(&group).unwrap();
    let (file, frozen, thawed) =
        if cgroup::is_v2() { ("cgroup.freeze", "1", "0") } else { ("freezer.state", "FROZEN", "THAWED") };
    fs::write(group.join(file), frozen).unwrap();
    let refused = other.run();
    fs::write(group.join(file), thawed).unwrap();
    fs::remove_dir(&group).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("container's cgroup unexpectedly frozen"), "{refused:?}");
}

/// A startContainer hook is a file of the container's: it has the program's user, capabilities, filter and environment.
#[test]
fn a_hook_inside_may_do_what_the_program_may() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "cat /data/hook");
    let script = "(echo $FOO; id -u; grep -E '^(CapEff|Seccomp):' /proc/self/status) >/data/hook";
    let path = container.rootfs().join("data");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    container.set("/hooks", json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}));
    container.set("/process/env", json!(["PATH=/bin", "FOO=bar"])).set("/process/user", json!({"uid": 7, "gid": 7}));
    container.set("/process/capabilities", json!({})).set("/process/noNewPrivileges", json!(true));
    container.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    assert_eq!(said(&container), "bar\n7\nCapEff:\t0000000000000000\nSeccomp:\t2\n");
}

/// A filter that denies the newer calls is no obstacle for what is done after it is loaded.
#[test]
fn a_filter_may_deny_what_the_runtime_itself_likes() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "echo ran");
    let names = ["close_range", "fsopen", "fsconfig", "openat2", "open_tree", "move_mount", "mount_setattr"];
    container.set("/process/noNewPrivileges", json!(false)).set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}),
    );
    assert_eq!(said(&container), "ran\n");
}

/// A bind that names an attribute has those that it names; one that names none keeps its source's; access times are kept as they were
/// until another way is named.
#[test]
fn binds_have_the_attributes_they_name() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "grep -E ' /m[0-9] ' /proc/mounts | cut -d' ' -f2,4");
    let host = container.host_folder("host");
    let status = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "nosuid,nodev,noatime", "tmpfs"])
        .arg(&host)
        .status()
        .unwrap();
    assert!(status.success());
    for (number, options) in
        [&["bind"][..], &["bind", "ro"], &["bind", "noexec", "atime"], &["bind", "relatime"]].into_iter().enumerate()
    {
        container.mount(&format!("/m{number}"), "bind", host.to_str().unwrap(), options);
    }
    let output = container.run();
    let _status = std::process::Command::new("umount").arg(&host).status().unwrap();
    let expected = "/m0 rw,nosuid,nodev,noatime\n/m1 ro,noatime\n/m2 rw,noexec,noatime\n/m3 rw,relatime\n";
    assert_eq!(output.stdout, expected, "{output:?}");
}

/// A /dev that shall be read-only is filled first; a tmpfs over a directory made for it has its own mode; a path is masked once.
#[test]
fn mounts_as_runc_makes_them() {
    let runtime = Runtime::tested();
    let script = "grep '^tmpfs /dev ' /proc/mounts | tail -1 | cut -d' ' -f4 | cut -d, -f1; stat -c %a /made/for/it; \
                  grep -c ' /proc/acpi ' /proc/mounts; echo x >/dev/null && echo written";
    let mut container = Container::with_script(&runtime, script);
    container.mount("/made/for/it", "tmpfs", "tmpfs", &["nosuid"]);
    container.mount("/dev", "tmpfs", "tmpfs", &["nosuid", "ro", "mode=755"]);
    container.set("/linux/maskedPaths", json!(["/proc/acpi", "/proc/acpi"]));
    let text = said(&container);
    let masked = if std::path::Path::new("/proc/acpi").exists() { "1" } else { "0" };
    assert_eq!(text, format!("ro\n1777\n{masked}\nwritten\n"));
}

/// Flags may follow the id, signal 0 looks, an event begins with its type, a limit of no process is one of one.
#[test]
fn the_command_line_as_scripts_use_it() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "sleep 60");
    container.set("/linux/resources/pids", json!({"limit": 0}));
    container.create_and_start();
    assert_eq!(cgroup::value(&container, "pids", "pids.max", "pids.max"), "1");
    container.call(&["update", &container.id, "--pids-limit", "30"]).ok();
    assert_eq!(cgroup::value(&container, "pids", "pids.max", "pids.max"), "30");
    container.call(&["kill", &container.id, "0"]).ok();
    let begin = format!(r#"{{"type":"stats","id":"{}","data":{{"#, container.id);
    assert!(container.verb(&["events", "--stats"]).ok().starts_with(&begin));
    container.call(&["kill", &container.id, "KILL"]).ok();
    container.wait_for_status("stopped");
    let refused = container.call(&["kill", &container.id, "0"]);
    assert!(refused.code != 0 && refused.stderr.contains("container not running"), "{refused:?}");
}

/// In the foreground a terminal's newlines stay newlines; errors are in runc's words.
#[test]
fn what_is_printed_is_what_runc_prints() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "echo one; echo two");
    container.set("/process/terminal", json!(true));
    assert_eq!(said(&container), "one\ntwo\n");
    container.set("/process/terminal", json!(false));
    container.set("/hooks", json!({"createRuntime": [{"path": "/bin/true"}, {"path": "/bin/false"}]}));
    let output = container.run();
    assert!(output.stderr.contains("error running createRuntime hook #1:"), "{output:?}");
    container.set("/hooks", json!({}));
    fs::write(container.rootfs().join("bin/run.sh"), "#!/no/such/interpreter\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(container.rootfs().join("bin/run.sh"), executable).unwrap();
    container.set("/process/args", json!(["/bin/run.sh"]));
    assert_eq!(container.run().stderr, "exec /bin/run.sh: no such file or directory\n");
    let mut container = Container::with_script(&runtime, "grep CapAmb /proc/self/status");
    let sets = json!({"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL", "CAP_CHOWN"]});
    container.set("/process/capabilities", sets);
    let output = container.run();
    assert_eq!(output.stdout, "CapAmb:\t0000000000000020\n");
    assert!(output.stderr.contains("can't raise ambient capability CAP_CHOWN: "), "{output:?}");
}

/// runc's configurations never ask about `write`, and where nothing is said of flags, speculation is left alone.
#[test]
fn seccomp_as_runc_takes_it() {
    let runtime = Runtime::tested();
    let mut container = Container::with_script(&runtime, "true");
    let flags_of = |container: &mut Container<'_>, flags: serde_json::Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]});
        if !flags.is_null() {
            profile["flags"] = flags;
        }
        container.set("/linux/seccomp", profile).write_config();
        let bundle = container.bundle();
        let output = container.call(&["--debug", "run", "--bundle", bundle.to_str().unwrap(), &container.id]);
        assert_eq!(output.code, 0, "{output:?}");
        let line =
            output.stderr.lines().find_map(|line| line.split("seccomp filter flags: ").nth(1)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{output:?}")).trim_end_matches('"').parse::<u32>().unwrap()
    };
    assert_eq!(flags_of(&mut container, serde_json::Value::Null), 4);
    assert_eq!(flags_of(&mut container, json!([])), 0);
    assert_eq!(flags_of(&mut container, json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"])), 2);
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/no/such/agent",
        "syscalls": [{"names": ["mkdir", "write"], "action": "SCMP_ACT_NOTIFY"}]});
    let refused = container.set("/linux/seccomp", notify).run();
    let words = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
    assert!(refused.code == 1 && refused.stderr.contains(words), "{refused:?}");
}

/// The debug log tells what was done, and what runc says of the same.
#[test]
fn the_debug_log_has_runcs_words() {
    let runtime = Runtime::tested();
    let container = Container::with_script(&runtime, "exec sleep 60");
    container.write_config();
    let (bundle, log) = (container.bundle(), container.directory.join("log"));
    let words = ["--debug", "--log", log.to_str().unwrap(), "create", "--bundle", bundle.to_str().unwrap()];
    let mut command = container.command(&words);
    let status = command.arg(&container.id).stdout(fs::File::create("/dev/null").unwrap()).status().unwrap();
    assert!(status.success());
    container.start();
    let text = fs::read_to_string(&log).unwrap();
    let says =
        |text: &str, words: &[&str]| words.iter().for_each(|word| assert!(text.contains(word), "{word}: {text}"));
    says(&text, &["level=debug", "clone-rootfs", "nsexec container setup", "child process in init()"]);
    says(&text, &["runc exeseal: using /proc/self/exe clone"]);
    let said = container.call(&["--debug", "exec", &container.id, "true"]);
    says(&said.stderr, &["nsexec container setup", "setns_init: about to exec", "runc exeseal:"]);
}
