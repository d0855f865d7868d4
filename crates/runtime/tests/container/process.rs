//! The program: environment, rights, limits, streams, and how it is found.

use std::fs;
use std::io::{Read, Write};

use berth_runtime::{ExecFailure, Stdio};
use berth_types::report;
use serde_json::{Value, json};

use crate::support::{Bundle, pipes, wait};

pub(super) fn environment_and_cwd() {
    let text = Bundle::new()
        .set("/process/env", json!(["PATH=/bin", "A=1", "B=two words"]))
        .set("/process/cwd", json!("/etc"))
        .sh("env | sort; pwd")
        .output();
    assert_eq!(text, "A=1\nB=two words\nHOME=/root\nPATH=/bin\nPWD=/etc\nSHLVL=1\n/etc\n");
}

pub(super) fn capabilities_are_exact() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
    });
    let text = Bundle::new()
        .set("/process/capabilities", sets)
        .set("/process/user", json!({"uid": 5, "gid": 5}))
        .args(&["grep", "Cap", "/proc/self/status"])
        .output();
    // A program of another user keeps the ambient set; the bounding set is what it could ever gain.
    let expected = "CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
        CapBnd:\t0000000000002021\nCapAmb:\t0000000000000020\n";
    assert_eq!(text, expected);
    let mut bundle = Bundle::new().args(&["grep", "Cap", "/proc/self/status"]);
    bundle.spec["process"].as_object_mut().unwrap().remove("capabilities");
    assert!(bundle.output().lines().all(|line| line.ends_with("\t0000000000000000")));
}

pub(super) fn no_new_privileges() {
    let text = Bundle::new()
        .set("/process/noNewPrivileges", json!(true))
        .args(&["grep", "NoNewPrivs", "/proc/self/status"])
        .output();
    assert_eq!(text, "NoNewPrivs:\t1\n");
}

pub(super) fn limits_are_set_or_clamped() {
    let mut bundle = Bundle::new()
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_NPROC", "soft": 1u64 << 40, "hard": 1u64 << 50}]),
        )
        .sh("ulimit -Sn; ulimit -Hn");
    let running = bundle.start();
    let warnings = running.container.warnings.clone();
    let may_raise =
        rustix::thread::capabilities(None).unwrap().effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    assert_eq!(warnings.iter().any(|text| text.starts_with("RLIMIT_NPROC was set to")), !may_raise, "{warnings:?}");
    assert_eq!(running.finish(), (0, "100\n200\n".to_owned()));
}

pub(super) fn oom_score_is_set_or_reported() {
    let text = Bundle::new().set("/process/oomScoreAdj", json!(500)).sh("cat /proc/self/oom_score_adj").output();
    assert_eq!(text, "500\n");
    let mut bundle = Bundle::new().set("/process/oomScoreAdj", json!(-1000)).sh("cat /proc/self/oom_score_adj");
    let running = bundle.start();
    let is_warned = running.container.warnings.iter().any(|text| text.starts_with("oom_score_adj was not set"));
    let (code, text) = running.finish();
    assert_eq!(code, 0);
    assert_eq!(text != "-1000\n", is_warned, "{text}");
}

fn deny(name: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]})
}

pub(super) fn seccomp_denies() {
    for no_new_privileges in [false, true] {
        let (code, text) = Bundle::new()
            .set("/linux/seccomp", deny("mkdir"))
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .sh("grep Seccomp: /proc/self/status; mkdir /tmp/x")
            .run();
        assert_eq!(
            (code, text.as_str()),
            (1, "Seccomp:\t2\nmkdir: can't create directory '/tmp/x': Function not implemented\n")
        );
    }
}

fn start_failure(mut bundle: Bundle) -> (Option<ExecFailure>, String) {
    let (stdio, _output) = pipes();
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    let error = container.start(&mut Vec::new()).unwrap_err();
    let code = wait(&container.init);
    assert_eq!(code, if error.exec_failure() == Some(ExecFailure::NotFound) { 127 } else { 126 });
    container.delete().unwrap();
    (error.exec_failure(), report(&error))
}

pub(super) fn missing_program_is_127() {
    let (failure, text) = start_failure(Bundle::new().args(&["no-such-program"]));
    assert_eq!(failure, Some(ExecFailure::NotFound));
    let expected = "step execute failed on no-such-program: exec: \"no-such-program\": executable file not found in $PATH: \
        No such file or directory (os error 2)";
    assert_eq!(text, expected);
    let (failure, text) = start_failure(Bundle::new().args(&["/no/such"]));
    assert_eq!(failure, Some(ExecFailure::NotFound));
    assert!(text.contains("exec: \"/no/such\": no such file or directory"), "{text}");
}

pub(super) fn not_executable_is_126() {
    let (failure, text) = start_failure(Bundle::new().args(&["/etc/passwd"]));
    assert_eq!(failure, Some(ExecFailure::NotExecutable));
    assert!(text.contains("exec: \"/etc/passwd\": permission denied"), "{text}");
    let (failure, text) = start_failure(Bundle::new().args(&["/etc"]));
    assert_eq!(failure, Some(ExecFailure::NotExecutable), "{text}");
}

pub(super) fn path_search() {
    let mut bundle = Bundle::new().set("/process/env", json!(["PATH=/nowhere:/etc:/tools:/bin"])).args(&["tool"]);
    let tools = bundle.rootfs().join("tools");
    fs::create_dir(&tools).unwrap();
    fs::write(bundle.rootfs().join("etc/tool"), "not executable").unwrap();
    fs::write(tools.join("tool"), "#!/bin/sh\necho found $0\n").unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut fs::metadata(&tools).unwrap().permissions(), 0o755);
    fs::set_permissions(tools.join("tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(bundle.output(), "found /tools/tool\n");
}

pub(super) fn umask_and_streams() {
    assert_eq!(Bundle::new().sh("umask").output(), "0022\n");
    let bundle = Bundle::new().set("/process/user", json!({"uid": 9, "gid": 9, "umask": 0o077}));
    assert_eq!({ bundle }.sh("umask; echo again > /dev/stdout").output(), "0077\nagain\n");
}

pub(super) fn terminal_is_a_pty() {
    let mut bundle = Bundle::new()
        .set("/process/terminal", json!(true))
        .sh("tty; stat -c %t:%T /dev/console; stty size; read x; echo got $x");
    let stdio = Stdio::Terminal { rows: 40, columns: 120, keeps_newlines: false };
    let mut container = bundle.create_with(stdio, &mut Vec::new()).unwrap();
    container.start(&mut Vec::new()).unwrap();
    let mut master = fs::File::from(container.init.console.take().unwrap());
    master.write_all(b"typed\n").unwrap();
    assert_eq!(wait(&container.init), 0);
    // The last slave is closed: reading ends with EIO after what is left.
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8(text).unwrap();
    for line in ["/dev/pts/0", "88:0", "40 120", "got typed"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text:?}");
    }
    container.delete().unwrap();
}

pub(super) fn scheduler_and_io_priority() {
    let text = Bundle::new()
        .set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}))
        .set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}))
        .sh("cut -d' ' -f19,41 /proc/self/stat; ionice -p $$")
        .output();
    assert_eq!(text, "5 3\nidle\n");
}
