//! The namespaces, one by one (checklist 1.2), through the command line.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use berth_testkit::Instance;
use berth_testkit::instance::run;

fn ns(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

/// S-010, S-162: every type asked for is new.
#[test]
fn s010_namespaces_are_new() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &["--userns", "auto", "--cgroupns", "private"]);
    let pid = berth.pid("c1").to_string();
    for kind in ["mnt", "uts", "pid", "net", "user", "ipc", "cgroup"] {
        assert_ne!(ns(&pid, kind), ns("self", kind), "{kind}");
    }
}

/// S-011: each can be switched by itself: host, private, another container's.
#[test]
fn s011_each_can_be_switched() {
    let berth = Instance::with_busybox();
    for (option, kind) in
        [("--uts", "uts"), ("--pid", "pid"), ("--network", "net"), ("--ipc", "ipc"), ("--cgroupns", "cgroup")]
    {
        berth.sleeper("c1", &[option, "host"]);
        let pid = berth.pid("c1").to_string();
        assert_eq!(ns(&pid, kind), ns("self", kind), "{option} host");
        assert_ne!(ns(&pid, "mnt"), ns("self", "mnt"), "the mount namespace is always private");
        berth.berth(&["rm", "-f", "c1"]).ok();
    }
    berth.sleeper("a1", &["--ipc", "shareable", "--cgroupns", "private"]);
    let first = berth.pid("a1").to_string();
    let kinds = [("--pid", "pid"), ("--network", "net"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")];
    for (option, kind) in kinds {
        for value in ["container:a1".to_owned(), format!("ns:/proc/{first}/ns/{kind}")] {
            berth.sleeper("b1", &[option, &value]);
            let second = berth.pid("b1").to_string();
            for (other, other_kind) in kinds {
                let is_shared = ns(&second, other_kind) == ns(&first, other_kind);
                // The default of cgroup v1 is the host's cgroup namespace.
                assert_eq!(is_shared, other == option, "{option} {value}: {other}");
            }
            berth.berth(&["rm", "-f", "b1"]).ok();
        }
    }
    berth.sleeper("u1", &["--userns", "auto"]);
    let owner = berth.pid("u1").to_string();
    for value in ["container:u1".to_owned(), format!("ns:/proc/{owner}/ns/user")] {
        berth.sleeper("b1", &["--userns", &value]);
        assert_eq!(ns(&berth.pid("b1").to_string(), "user"), ns(&owner, "user"), "{value}");
        berth.berth(&["rm", "-f", "b1"]).ok();
    }
}

/// S-011: what makes no sense is refused, and says what.
#[test]
fn s011_illegal_choices() {
    let berth = Instance::with_busybox();
    let before = berth.berth(&["ps", "-aq"]).ok().to_owned();
    for (option, value, names) in [
        ("--pid", "container:nobody", "nobody"),
        ("--pid", "ns:/proc/self/ns/net", "/proc/self/ns/net"),
        ("--network", "ns:/etc/passwd", "/etc/passwd"),
        ("--ipc", "ns:relative", "relative"),
        ("--uts", "private-ish", "private-ish"),
    ] {
        let refused = berth.busybox(&[option, value], &["true"]);
        assert_eq!(refused.code, 125, "{option} {value}: {refused:?}");
        assert!(refused.stderr.contains(names), "{option} {value}: {refused:?}");
        assert_eq!(berth.berth(&["ps", "-aq"]).ok(), before, "{option} {value}");
    }
}

/// S-012, S-103: the root is the image's, an overlay with its layers as options; the host gains no mount.
#[test]
fn s012_mount_namespace() {
    let berth = Instance::with_busybox();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    berth.sleeper("c1", &[]);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before, "the host's mount table is as it was");
    let mounts = berth.berth(&["exec", "c1", "cat", "/proc/mounts"]);
    let root = mounts.ok().lines().find(|l| l.split(' ').nth(1) == Some("/")).unwrap().to_owned();
    for option in ["overlay / overlay", "lowerdir", "upperdir=", "workdir="] {
        assert!(root.contains(option), "{option} in {root}");
    }
}

/// S-013: a file of the host cannot be found by any path, nor through an open descriptor.
#[test]
fn s013_host_files_are_invisible() {
    let berth = Instance::with_busybox();
    let marker = berth.directory.join("marker-of-the-host");
    fs::write(&marker, "secret").unwrap();
    let path = marker.to_string_lossy().into_owned();
    for attempt in
        [path.clone(), format!("/proc/1/root{path}"), format!("/../../..{path}"), format!("/proc/self/root/..{path}")]
    {
        assert_ne!(berth.busybox(&[], &["cat", &attempt]).code, 0, "{attempt}");
    }
    assert_eq!(berth.busybox(&[], &["find", "/", "-xdev", "-name", "marker-of-the-host"]).ok(), "");
    // A process added later, and number 1 as it sees it: nothing is open but the three streams, and none leads to a directory.
    berth.sleeper("c1", &[]);
    let script = "for p in 1 self; do for f in /proc/$p/fd/*; do test -d \"$f/\" && echo \"$f\"; done; done; \
                  cat \"/proc/1/fd/0/../../../..$1\" \"/proc/1/cwd/../../../../..$1\" 2>/dev/null; echo done";
    assert_eq!(berth.berth(&["exec", "c1", "sh", "-c", script, "sh", &path]).ok(), "done");
    let fds = berth.busybox(&[], &["ls", "/proc/1/fd"]);
    // ls itself opens the directory as 3.
    assert_eq!(fds.ok().split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

/// S-014: `-v` shows the same inode in both directions; `:ro` refuses writes.
#[test]
fn s014_bind_mounts() {
    let berth = Instance::with_busybox();
    let shared = berth.directory.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("f"), "from the host").unwrap();
    let volume = format!("{}:/x", shared.display());
    let seen = berth.busybox(&["-v", &volume], &["sh", "-c", "cat /x/f; stat -c %i /x/f; echo back > /x/g"]);
    let inode = fs::metadata(shared.join("f")).unwrap().ino();
    assert_eq!(seen.ok(), format!("from the host{inode}"));
    assert_eq!(fs::read_to_string(shared.join("g")).unwrap(), "back\n");
    let refused = berth.busybox(&["-v", &format!("{volume}:ro")], &["sh", "-c", "echo no > /x/h"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    assert!(!shared.join("h").exists());
}

/// S-015, S-016: host name and domain name are the container's own.
#[test]
fn s015_uts() {
    let berth = Instance::with_busybox();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let inside = berth
        .busybox(&["--hostname", "h", "--domainname", "d"], &["sh", "-c", "hostname; cat /proc/sys/kernel/domainname"]);
    assert_eq!(inside.ok(), "h\nd");
    // In the host's network it has the host's name, in the file as in the kernel, and still a namespace of its own.
    let words = ["sh", "-c", "hostname; cat /etc/hostname; echo $HOSTNAME"];
    assert_eq!(berth.busybox(&["--network", "host"], &words).ok(), [host.trim(); 3].join("\n"));
    assert_eq!(berth.busybox(&["--network", "host", "--hostname", "h"], &words).ok(), "h\nh\nh");
    let changed = berth.busybox(&["--cap-add", "SYS_ADMIN"], &["sh", "-c", "hostname other; hostname"]);
    assert_eq!(changed.ok(), "other");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
}

/// S-017, S-018: number 1 inside, two numbers outside; only own processes; killing number 1 ends all.
#[test]
fn s017_pid() {
    let berth = Instance::with_busybox();
    assert_eq!(berth.busybox(&[], &["sh", "-c", "echo $$"]).ok(), "1");
    berth.berth(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", "sleep 1000 & sleep 1000 & wait"]).ok();
    let pid = berth.pid("c1");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers: Vec<&str> =
        status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap().split_whitespace().collect();
    assert_eq!(numbers.last(), Some(&"1"));
    assert!(numbers.len() >= 2, "{numbers:?}");
    let seen = berth.berth(&["exec", "c1", "ps", "-o", "comm"]);
    let mut names: Vec<&str> = seen.ok().lines().skip(1).collect();
    names.sort_unstable();
    assert_eq!(names, ["ps", "sh", "sleep", "sleep"]);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    berth.berth(&["kill", "c1"]).ok();
    berth.berth(&["wait", "c1"]).ok();
    for child in children.split_whitespace() {
        assert!(
            !fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "sleep"),
            "{child} ended with its init"
        );
    }
}

/// S-021, S-022, S-023: root inside is nobody outside; files look root's without a copy; off by default.
#[test]
fn s021_user_namespace() {
    let berth = Instance::with_busybox();
    berth.sleeper("plain", &[]);
    assert_eq!(ns(&berth.pid("plain").to_string(), "user"), ns("self", "user"), "off by default");
    let shared = berth.directory.join("shared");
    fs::create_dir(&shared).unwrap();
    berth.sleeper("c1", &["--userns", "auto"]);
    let pid = berth.pid("c1");
    assert_eq!(berth.berth(&["exec", "c1", "id", "-u"]).ok(), "0");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["Uid:", "Gid:"] {
        let id: u32 = status
            .lines()
            .find_map(|l| l.strip_prefix(line))
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(id >= 65536, "{line} {id} is unprivileged on the host");
    }
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let first: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(berth.berth(&["exec", "c1", "stat", "-c", "%u:%g", "/bin/busybox"]).ok(), "0:0");
    berth.berth(&["exec", "c1", "touch", "/made"]).ok();
    let upper = berth.inspect("c1", "{{.GraphDriver.Data.UpperDir}}");
    let owner = fs::metadata(format!("{upper}/made")).unwrap().uid();
    assert!(owner == first || owner == 0, "made by {owner}, the map starts at {first}");
    assert_eq!(berth.berth(&["exec", "c1", "stat", "-c", "%u", "/made"]).ok(), "0");
}

/// CVE-2021-21284: who is root in a container's user namespace is, on the host, somebody who neither reads nor writes anything of the engine's.
#[test]
fn cve_2021_21284_a_remapped_root_does_not_reach_the_stores() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &["--userns", "auto"]);
    let map = fs::read_to_string(format!("/proc/{}/uid_map", berth.pid("c1"))).unwrap();
    let first: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
    let as_root_of_c1 = |script: String| {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.uid(first).gid(first).current_dir("/").args(["-c", &script]);
        run(shell, b"")
    };
    // The way to the data root is open: what refuses is the engine's own.
    for directory in berth.root().ancestors().skip(1).take_while(|directory| directory.parent().is_some()) {
        let mode = fs::metadata(directory).unwrap().permissions().mode();
        fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o111)).unwrap();
    }
    as_root_of_c1(format!("cd {}", berth.root().parent().unwrap().display())).ok();

    let upper = berth.inspect("c1", "{{.GraphDriver.Data.UpperDir}}");
    berth.berth(&["exec", "c1", "touch", "/made"]).ok();
    assert!(fs::metadata(format!("{upper}/made")).is_ok());
    let (root, state) = (berth.root(), berth.state());
    let names = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut paths = vec![root.clone(), state.clone(), upper.into()];
    paths.extend(names(&root).into_iter().chain(names(&state)));
    assert!(paths.len() > 12, "{paths:?}");
    for path in paths {
        let shown = path.display();
        let (write, read) = match path.is_dir() {
            true => (format!(": > {shown}/x"), format!("ls {shown}/")),
            false => (format!(": >> {shown}"), format!("head -c 100 {shown}")),
        };
        for script in [write, read, format!("mv {shown} {shown}-x")] {
            let refused = as_root_of_c1(script.clone());
            assert!(refused.code != 0 && refused.stderr.contains("ermission denied"), "{script}: {refused:?}");
        }
    }
}

/// S-024: semaphores, shared memory and queues are the container's own.
#[test]
fn s024_ipc() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &[]);
    let text = |container: &str| berth.berth(&["exec", container, "cat", "/proc/sysvipc/sem"]).ok().lines().count();
    let host = fs::read_to_string("/proc/sysvipc/sem").unwrap();
    assert_eq!(text("c1"), 1, "only the heading");
    assert_eq!(fs::read_to_string("/proc/sysvipc/sem").unwrap(), host);
    assert!(berth.berth(&["exec", "c1", "cat", "/proc/mounts"]).ok().contains("/dev/mqueue mqueue"));
    assert_ne!(ns(&berth.pid("c1").to_string(), "ipc"), ns("self", "ipc"));
}

/// S-025, S-026, S-027: with a cgroup namespace the container sees `/`, without one the host's path.
#[test]
fn s025_cgroup_namespace() {
    let berth = Instance::with_busybox();
    let own = berth.busybox(&["--cgroupns", "private"], &["cat", "/proc/self/cgroup"]);
    assert!(own.ok().lines().all(|l| l.ends_with(":/")), "{own:?}");
    let shown = berth.busybox(&["--cgroupns", "host"], &["cat", "/proc/self/cgroup"]);
    assert!(shown.ok().contains(&berth.cgroup_parent()), "{shown:?}");
    let files = berth.busybox(
        &["--cgroupns", "private"],
        &["sh", "-c", "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs 2>/dev/null | head -n 1"],
    );
    assert_eq!(files.ok(), "1");
}

/// S-161, S-163: exec joins every namespace and the cgroup of the container, with its limits, capabilities and filter.
#[test]
fn s163_exec_joins() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &["--pids-limit", "50", "-e", "FROM=config", "-w", "/tmp"]);
    let pid = berth.pid("c1").to_string();
    berth.berth(&["exec", "-d", "c1", "sleep", "777"]).ok();
    let other = berth_testkit::wait_until("the exec is in the container's cgroup", || {
        let top = berth.berth(&["top", "c1"]).stdout;
        let line = top.lines().find(|l| l.contains("sleep 777"))?.to_owned();
        line.split_whitespace().nth(1).map(str::to_owned)
    });
    for kind in ["mnt", "uts", "pid", "net", "user", "ipc", "cgroup"] {
        assert_eq!(ns(&other, kind), ns(&pid, kind), "{kind}");
    }
    assert_eq!(
        fs::read_to_string(format!("/proc/{other}/cgroup")).unwrap(),
        fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
    );
    let status = |pid: &str| -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        text.lines()
            .filter(|l| ["Cap", "Seccomp:", "NoNewPrivs", "Uid", "Gid"].iter().any(|p| l.starts_with(p)))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(status(&other), status(&pid));
    assert_eq!(berth.berth(&["exec", "c1", "sh", "-c", "echo $FROM; pwd"]).ok(), "config\n/tmp");
    assert_eq!(
        berth.berth(&["exec", "-e", "FROM=exec", "-w", "/", "c1", "sh", "-c", "echo $FROM; pwd"]).ok(),
        "exec\n/"
    );
}

/// Default capabilities, no new privileges on demand, default seccomp with io_uring refused.
#[test]
fn security_defaults() {
    let berth = Instance::with_busybox();
    let status = berth.busybox(&[], &["cat", "/proc/self/status"]);
    let field = |name: &str| status.ok().lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "0");
    let hardened =
        berth.busybox(&["--security-opt", "no-new-privileges", "--cap-drop", "ALL"], &["cat", "/proc/self/status"]);
    assert!(hardened.ok().contains("NoNewPrivs:\t1"));
    assert!(hardened.ok().contains("CapEff:\t0000000000000000"));
    let masked = berth.busybox(&[], &["sh", "-c", "cat /proc/keys | wc -c; echo x > /proc/sys/kernel/hostname"]);
    assert!(masked.stdout.starts_with('0'), "{masked:?}");
    assert!(masked.stderr.contains("Read-only"), "{masked:?}");
}

/// The user of the image, by name, number and group, and supplementary groups: exactly those, the primary one among them, for the first process
/// and for added ones (CVE-2022-36109, CVE-2022-2989, CVE-2022-2995). Who is in a group cannot pass for who is not.
#[test]
fn users_and_groups() {
    let berth = Instance::with_busybox();
    let id = |options: &[&str]| berth.busybox(options, &["id"]).ok().to_owned();
    assert_eq!(id(&["-u", "user"]), "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)");
    assert_eq!(id(&["-u", "1000:2000"]), "uid=1000(user) gid=2000(extra) groups=2000(extra)");
    assert!(id(&["-u", "4321"]).starts_with("uid=4321 gid=0(root)"));
    assert!(id(&["-u", "user", "--group-add", "55"]).contains("55"));
    let groups = ["grep", "Groups:", "/proc/self/status"];
    for (options, expect) in [
        (&["-u", "user"][..], "Groups:\t1000 2000"),
        (&["-u", "user:extra"], "Groups:\t2000"),
        (&["-u", "4321:77"], "Groups:\t77"),
        (&["-u", "user", "--group-add", "55"], "Groups:\t55 1000 2000"),
    ] {
        assert_eq!(berth.busybox(options, &groups).ok().trim_end(), expect, "{options:?}");
        berth.sleeper("groups", options);
        let exec = berth.berth(&[&["exec", "groups"][..], &groups].concat());
        assert_eq!(exec.ok().trim_end(), expect, "exec {options:?}");
        berth.berth(&["rm", "-f", "groups"]).ok();
    }
    let denied = "echo secret > /tmp/s; chgrp 2000 /tmp/s; chmod 604 /tmp/s; exec sleep 1000";
    berth.berth(&["run", "-d", "--name", "denying", "busybox", "sh", "-c", denied]).ok();
    berth_testkit::wait_until("the file is there", || {
        (berth.berth(&["exec", "denying", "stat", "-c", "%a", "/tmp/s"]).stdout.trim() == "604").then_some(())
    });
    assert_ne!(berth.berth(&["exec", "-u", "user", "denying", "cat", "/tmp/s"]).code, 0);
    assert_eq!(berth.berth(&["exec", "-u", "4321:77", "denying", "cat", "/tmp/s"]).ok(), "secret");
    berth.berth(&["rm", "-f", "denying"]).ok();
    assert_eq!(berth.busybox(&["-u", "user"], &["sh", "-c", "echo $HOME"]).ok(), "/home/user");
    let refused = berth.busybox(&["-u", "nobody-knows"], &["true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("nobody-knows"), "{refused:?}");
    let huge = berth.busybox(&["-u", "4294967296"], &["true"]);
    assert_eq!(huge.code, 125, "{huge:?}");
}

/// S-030: what `unshare` shows of a PID namespace, a container shows too: number 1, and nobody else's processes.
#[test]
fn s030_as_unshare_shows_it() {
    let berth = Instance::with_busybox();
    // The shell itself looks: a further process would see itself, too.
    let script = "echo $$; for process in /proc/[0-9]*; do echo $process; done";
    let mut unshare = std::process::Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--mount-proc", "--"])
        .arg(berth_testkit::peers::busybox())
        .args(["sh", "-c", script]);
    let shown = berth_testkit::instance::run(unshare, b"");
    assert_eq!(shown.ok(), "1\n/proc/1", "{shown:?}");
    let ours = berth.busybox(&[], &["sh", "-c", script]);
    assert_eq!(ours.ok(), shown.ok());
}

/// S-024, S-011: a container that joins another's IPC shares its POSIX shared memory too; only a shareable one can be joined.
#[test]
fn s024_shared_memory_is_shared() {
    let berth = Instance::with_busybox();
    berth.sleeper("donor", &["--ipc", "shareable", "--shm-size", "1m"]);
    berth.berth(&["exec", "donor", "sh", "-c", "echo seen > /dev/shm/f"]).ok();
    let joined = |words: &[&str]| berth.busybox(&["--ipc", "container:donor"], words);
    assert_eq!(joined(&["cat", "/dev/shm/f"]).ok(), "seen");
    joined(&["sh", "-c", "echo back > /dev/shm/g"]).ok();
    assert_eq!(berth.berth(&["exec", "donor", "cat", "/dev/shm/g"]).ok(), "back");
    assert!(joined(&["df", "-k", "/dev/shm"]).ok().contains("1024"), "it is the same file system");
    assert_eq!(berth.busybox(&[], &["ls", "/dev/shm"]).ok(), "", "nobody else sees it");

    berth.sleeper("shy", &[]);
    let refused = berth.busybox(&["--ipc", "container:shy"], &["true"]);
    assert_eq!(refused.code, 125, "{refused:?}");
    assert!(refused.stderr.contains("not shareable") && refused.stderr.contains("--ipc shareable"), "{refused:?}");
    let none = berth.busybox(&["--ipc", "none"], &["sh", "-c", "grep -c /dev/shm /proc/mounts"]);
    assert_eq!(none.stdout.trim(), "0", "none has no /dev/shm of its own");
}
