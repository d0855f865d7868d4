//! Attacks of the public record that a spec or an image can try on a runtime. Every one must fail, with the host untouched.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use berth_runtime::{Container, RuntimeError};
use berth_types::{Classify, ErrorClass, report};
use serde_json::json;

use crate::support::{Bundle, pipes};

fn create(bundle: &mut Bundle) -> Result<Container, RuntimeError> {
    bundle.create_with(pipes().0, &mut Vec::new())
}

fn refusal(mut bundle: Bundle) -> String {
    match create(&mut bundle) {
        Ok(container) => {
            container.delete().unwrap();
            panic!("it was created");
        }
        Err(error) => report(&error),
    }
}

fn tree(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Where a path of the host would be inside the root.
fn inside(bundle: &Bundle, path: &Path) -> std::path::PathBuf {
    bundle.rootfs().join(path.strip_prefix("/").unwrap())
}

pub(super) fn cve_2015_3629_target_links_stay_inside() {
    let canary = tempfile::tempdir().unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut bundle = Bundle::new();
    symlink(canary.path(), bundle.rootfs().join("out")).unwrap();
    symlink("../../../../../../../..", bundle.rootfs().join("up")).unwrap();
    fs::create_dir_all(inside(&bundle, canary.path())).unwrap();
    bundle = bundle
        .mount(json!({"destination": "/out/dir", "type": "tmpfs", "source": "t"}))
        .mount(json!({"destination": "/up/dir2", "type": "tmpfs", "source": "t"}))
        .sh("cut -d' ' -f2 /proc/mounts | grep dir; sleep 60");
    let running = bundle.start();
    let text = running.await_line("/dir2");
    assert_eq!(text, format!("{}/dir\n/dir2\n", canary.path().display()));
    assert_eq!(tree(canary.path()), Vec::<String>::new());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    running.container.delete().unwrap();
}

pub(super) fn cve_2016_8867_no_ambient_capabilities() {
    let text = Bundle::new()
        .set("/process/user", json!({"uid": 1, "gid": 1}))
        .sh("grep -E 'CapAmb|CapEff|CapPrm' /proc/self/status")
        .output();
    assert!(text.lines().all(|line| line.ends_with("\t0000000000000000")), "{text}");
}

/// Another process of the PID namespace that the container joins looks at its init while that waits.
pub(super) fn cve_2016_9962_init_is_not_dumpable_and_leaks_no_descriptor() {
    let script = "echo up; while true; do for p in /proc/[0-9]*; do [ -e $p/comm ] || continue; n=${p#/proc/}; \
        [ $n -gt 1 ] && [ \"$(cat $p/comm)\" != sh ] && [ \"$(cat $p/comm)\" != sleep ] && ls -l $p/fd $p/root/ 2>&1; done; sleep 0.05; done";
    let mut first = Bundle::new().sh(script);
    let running = first.start();
    running.await_line("up");
    let pid = running.container.init.pid;
    let mut second = Bundle::new().sh("ls /proc/self/fd");
    second.spec["linux"]["namespaces"] =
        json!([{"type": "mount"}, {"type": "pid", "path": format!("/proc/{pid}/ns/pid")}]);
    second.spec["hostname"] = json!("");
    let (stdio, output) = pipes();
    let mut waiting = second.create_with(stdio, &mut Vec::new()).unwrap();
    let seen = running.await_line("denied");
    assert!(seen.contains("Permission denied") && !seen.contains(" -> "), "{seen}");
    waiting.start(&mut Vec::new()).unwrap();
    assert_eq!(crate::support::read_all(output), "0\n1\n2\n3\n");
    waiting.delete().unwrap();
    running.container.delete().unwrap();
}

/// CVE-2019-16884, CVE-2015-3631: nothing is mounted over procfs, and nothing into it but the known stand-ins.
pub(super) fn cve_2019_16884_no_mount_over_proc() {
    let host = tempfile::tempdir().unwrap();
    for destination in ["/proc", "/proc/self/attr", "/proc/sys", "/bin/../proc", "/proc/self/fd"] {
        let text = refusal(
            Bundle::new()
                .mount(json!({"destination": destination, "type": "bind", "source": host.path(), "options": ["bind"]})),
        );
        assert!(text.contains("inside procfs"), "{destination}: {text}");
    }
    let text = refusal(Bundle::new().mount(json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"})));
    assert!(text.contains("inside procfs"), "{text}");
    // The list of stand-ins is allowed.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "1.00 1.00\n").unwrap();
    let text = Bundle::new()
        .mount(json!({"destination": "/proc/uptime", "type": "bind", "source": file.path(), "options": ["bind"]}))
        .sh("cat /proc/uptime")
        .output();
    assert_eq!(text, "1.00 1.00\n");
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867
pub(super) fn cve_2019_19921_proc_must_not_be_a_link() {
    for name in ["proc", "sys"] {
        let bundle = Bundle::new();
        fs::remove_dir(bundle.rootfs().join(name)).unwrap();
        fs::create_dir(bundle.rootfs().join("elsewhere")).unwrap();
        symlink("/elsewhere", bundle.rootfs().join(name)).unwrap();
        let text = refusal(bundle);
        assert!(text.contains("must be mounted on ordinary directory"), "{text}");
    }
}

/// CVE-2021-30465, CVE-2019-18837: a target that keeps changing between a directory and a link to the host.
pub(super) fn cve_2021_30465_swapped_targets() {
    let canary = tempfile::tempdir().unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("a")).unwrap();
    symlink(canary.path(), volume.path().join("b")).unwrap();
    // The attacker is a process, for the creator must have one thread only.
    let (a, b) = (volume.path().join("a"), volume.path().join("b"));
    let args = berth_sys::clone::CloneArgs::default();
    let attacker = berth_sys::clone::clone_child(&args, || {
        loop {
            let _lost_a_race =
                rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, rustix::fs::RenameFlags::EXCHANGE);
        }
    })
    .unwrap();
    let mut made = 0;
    let mut bundle = Bundle::new()
        .mount(json!({"destination": "/v", "type": "bind", "source": volume.path(), "options": ["rbind"]}))
        .mount(json!({"destination": "/v/a/inner", "type": "tmpfs", "source": "t"}));
    for round in 0..100 {
        bundle.renew();
        if let Ok(container) = create(&mut bundle) {
            made += 1;
            container.delete().unwrap();
        }
        assert_eq!(tree(canary.path()), Vec::<String>::new(), "round {round}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }
    rustix::process::pidfd_send_signal(&attacker.pidfd, rustix::process::Signal::KILL).unwrap();
    let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&attacker.pidfd));
    rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap();
    assert!(made > 0, "no round got as far as the mount");
}

/// CVE-2022-24769 and its kin in other engines: CVE-2022-27649, CVE-2022-27650, CVE-2022-27651, CVE-2022-27652
pub(super) fn cve_2022_24769_nothing_is_inheritable() {
    let mut bundle = Bundle::new().sh("grep CapInh /proc/self/status; echo up; sleep 60");
    let running = bundle.start();
    assert_eq!(running.await_line("up"), "CapInh:\t0000000000000000\nup\n");
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["grep", "CapInh", "/proc/self/status"]);
    assert_eq!(running.exec(&process), (0, "CapInh:\t0000000000000000\n".to_owned()));
    running.container.delete().unwrap();
}

pub(super) fn cve_2024_21626_cwd_is_no_way_out() {
    let mut bundle = Bundle::new().sh("pwd; ls");
    for number in 3..40 {
        bundle.renew();
        bundle.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let (stdio, output) = pipes();
        let mut container = match bundle.create_with(stdio, &mut Vec::new()) {
            Ok(container) => container,
            Err(_) => continue,
        };
        assert!(container.start(&mut Vec::new()).is_err(), "descriptor {number}");
        container.delete().unwrap();
        assert_eq!(crate::support::read_all(output), "");
    }
    // The same by a link of the image, in start and in exec.
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    symlink("/proc/self/fd/8/../../..", bundle.rootfs().join("way")).unwrap();
    let running = bundle.start();
    running.await_line("up");
    for cwd in ["/way", "/proc/self/fd/7", "/proc/1/cwd"] {
        let mut process = crate::support::process_value(&["pwd"]);
        process["cwd"] = json!(cwd);
        let process = serde_json::from_value(process).unwrap();
        assert!(running.container.exec(&process, pipes().0, &mut Vec::new()).is_err(), "{cwd}");
    }
    running.container.delete().unwrap();
}

/// CVE-2024-45310, CVE-2026-55686: neither mount targets nor the working directory are made on the host.
pub(super) fn cve_2024_45310_nothing_is_made_on_the_host() {
    let canary = tempfile::tempdir().unwrap();
    let source = tempfile::NamedTempFile::new().unwrap();
    let bundle = Bundle::new();
    symlink(canary.path(), bundle.rootfs().join("link")).unwrap();
    fs::create_dir_all(inside(&bundle, canary.path())).unwrap();
    let mut bundle = bundle
        .mount(json!({"destination": "/link/made/file", "type": "bind", "source": source.path(), "options": ["bind"]}))
        .set("/process/cwd", json!("/link/cwd"))
        .sh("pwd");
    assert_eq!(bundle.output(), format!("{}/cwd\n", canary.path().display()));
    // A link to what is not there yet: made where it leads inside the root.
    let bundle = Bundle::new();
    symlink(canary.path().join("file"), bundle.rootfs().join("dangling")).unwrap();
    fs::write(source.path(), "mounted\n").unwrap();
    let mut bundle = bundle
        .mount(json!({"destination": "/dangling", "type": "bind", "source": source.path(), "options": ["bind"]}))
        .sh(&format!("cat /dangling {}", canary.path().join("file").display()));
    assert_eq!(bundle.output(), "mounted\nmounted\n");
    assert!(inside(&bundle, &canary.path().join("file")).exists());
    assert_eq!(tree(canary.path()), Vec::<String>::new());
}

/// CVE-2025-31133, CVE-2025-62161: masking uses the host's null device, not what the image calls /dev/null.
pub(super) fn cve_2025_31133_dev_null_is_verified() {
    let mut bundle = Bundle::new();
    let spec = bundle.spec["mounts"].as_array_mut().unwrap();
    // Without a tmpfs on /dev the image's own /dev is used.
    spec.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    symlink("/etc/passwd", bundle.rootfs().join("dev/null")).unwrap();
    bundle.spec["linux"]["maskedPaths"] = json!(["/etc/group", "/proc/timer_list"]);
    let text = bundle.sh("stat -c %t:%T /etc/group /proc/timer_list; stat -c '%F' /dev/null").output();
    assert_eq!(text, "1:3\n1:3\ncharacter special file\n");
}

/// CVE-2025-52565, CVE-2026-88264: the image's /dev/console and /dev/ptmx are links.
pub(super) fn cve_2025_52565_console_is_no_link() {
    let canary = tempfile::NamedTempFile::new().unwrap();
    fs::write(canary.path(), "canary").unwrap();
    let mut bundle = Bundle::new().set("/process/terminal", json!(true)).sh("stat -c %t /dev/console; tty");
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| {
        mount["destination"] != "/dev" && mount["destination"] != "/dev/shm" && mount["destination"] != "/dev/mqueue"
    });
    symlink(canary.path(), bundle.rootfs().join("dev/console")).unwrap();
    symlink(canary.path(), bundle.rootfs().join("dev/ptmx")).unwrap();
    let stdio = berth_runtime::Stdio::Terminal { rows: 0, columns: 0, keeps_newlines: false };
    match bundle.create_with(stdio, &mut Vec::new()) {
        Ok(container) => container.delete().unwrap(),
        Err(error) => assert_eq!(error.class(), ErrorClass::Internal, "{}", report(&error)),
    }
    assert_eq!(fs::read_to_string(canary.path()).unwrap(), "canary");
    assert_eq!(fs::metadata(canary.path()).unwrap().uid(), 0);
}

/// CVE-2026-41579, CVE-2026-47766: devices and links are made inside, however /dev is reached.
pub(super) fn cve_2026_41579_dev_may_be_a_link() {
    let canary = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
    symlink(canary.path(), bundle.rootfs().join("dev")).unwrap();
    fs::create_dir_all(inside(&bundle, canary.path())).unwrap();
    let text = bundle.sh("ls /dev/null").output();
    assert_eq!(text, "/dev/null\n");
    assert_eq!(tree(canary.path()), Vec::<String>::new());
}

pub(super) fn cve_2026_88265_streams_keep_their_owner() {
    use rustix::fs::{Mode, OFlags};
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = || rustix::fs::open(file.path(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut bundle = Bundle::new().set("/process/user", json!({"uid": 1234, "gid": 1234})).sh("echo to file");
    let stdio = berth_runtime::Stdio::Fds { stdin: null, stdout: open(), stderr: open() };
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    container.start(&mut Vec::new()).unwrap();
    assert_eq!(crate::support::wait(&container.init), 0);
    container.delete().unwrap();
    assert_eq!(fs::metadata(file.path()).unwrap().uid(), 0);
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "to file\n");
}

/// CVE-2022-0811, CVE-2022-0532
pub(super) fn cve_2022_0811_host_sysctls_are_refused() {
    let host = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in ["kernel.core_pattern", "net/../kernel/core_pattern", "net.ipv4.ip_forward+kernel.core_pattern"] {
        let text = refusal(Bundle::new().set("/linux/sysctl", json!({key: "|/bin/false"})));
        assert!(text.contains("linux.sysctl"), "{text}");
    }
    let mut shared = Bundle::new().set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    shared.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
    shared.spec["hostname"] = json!("");
    assert!(refusal(shared).contains("shares with the host"));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), host);
}

pub(super) fn cve_2024_9676_passwd_may_be_a_fifo() {
    let bundle = Bundle::new().set("/process/user/username", json!("web"));
    let passwd = bundle.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, fifo, rustix::fs::Mode::from_raw_mode(0o644), 0).unwrap();
    let text = refusal(bundle);
    assert!(text.contains("cannot read the container's /etc/passwd"), "{text}");
}

/// The runtime's own binary is never the executable of a process that the container can look into: until exec it is not dumpable,
/// afterwards it is the container's program.
pub(super) fn cve_2019_5736_own_binary_is_out_of_reach() {
    let me = std::env::current_exe().unwrap();
    let before = fs::metadata(&me).unwrap();
    let mut bundle = Bundle::new().args(&["/proc/self/exe"]);
    // A program that is a link to /proc/self/exe is the classic: it would execute the runtime itself.
    symlink("/proc/self/exe", bundle.rootfs().join("bin/me")).unwrap();
    let mut container = create(&mut bundle).unwrap();
    let started = container.start(&mut Vec::new());
    container.delete().unwrap();
    // A dynamically linked runtime finds no loader inside; a static one would start as a harmless copy.
    drop(started);
    let mut bundle = Bundle::new().sh("echo up; sleep 60");
    let running = bundle.start();
    running.await_line("up");
    let (code, text) = running.exec(&crate::support::process_value(&[
        "sh",
        "-c",
        "for p in 1 $$; do readlink /proc/$p/exe; done; echo x 2>&1 > /proc/1/exe",
    ]));
    assert!(text.starts_with("/bin/busybox\n") && code != 0, "{code} {text}");
    running.container.delete().unwrap();
    let after = fs::metadata(&me).unwrap();
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
}

pub(super) fn cve_2021_43784_many_mappings() {
    let ranges: Vec<_> = (0..200).map(|i| json!({"containerID": i, "hostID": 100_000 + i, "size": 1})).collect();
    let text = Bundle::new()
        .user_ns()
        .overlay()
        .set("/linux/uidMappings", json!(ranges))
        .set("/linux/gidMappings", json!(ranges))
        .sh("wc -l < /proc/self/uid_map")
        .output();
    assert_eq!(text, "200\n");
    let too_many: Vec<_> = (0..5000).map(|i| json!({"containerID": i, "hostID": 100_000 + i, "size": 1})).collect();
    let text = refusal(Bundle::new().user_ns().set("/linux/uidMappings", json!(too_many)));
    assert!(text.contains("340 are possible"), "{text}");
}
