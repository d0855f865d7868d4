//! What clients of runc's shim ask it for by its options, and our own does in its place.

use berth_testkit::Instance;

use super::{ctr_exec, ctr_run};

/// S-138: the pipes are the container's users' (`io_uid`, `io_gid`), so root of a user namespace opens them again; and a root file system that
/// the client has given to those users is not given to them once more.
#[test]
fn s138_pipes_and_files_of_a_user_namespace() {
    let instance = Instance::with_busybox();
    let again = "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2; : < /proc/self/fd/0";
    let mapped = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script = format!("{again}; stat -c %u:%g /bin; touch /made; stat -c %u:%g /made");
    let ran = ctr_run(&instance, &[&mapped[..], &["--rm"]].concat(), "c1", &["sh", "-c", &script]);
    assert_eq!((ran.ok(), ran.stderr.as_str()), ("out\n0:0\n0:0", "err\n"));
    ctr_run(&instance, &[&mapped[..], &["-d"]].concat(), "c2", &["sleep", "1000"]).ok();
    let joined = ctr_exec(&instance, "c2", "e1", &["sh", "-c", again]);
    assert_eq!((joined.ok(), joined.stderr.as_str()), ("out", "err\n"));
    instance.berth(&["rm", "-f", "c2"]).ok();
}

/// S-138: `no_pivot_root` makes a container as well.
#[test]
fn s138_no_pivot() {
    let instance = Instance::with_busybox();
    assert_eq!(ctr_run(&instance, &["--rm", "--no-pivot"], "c1", &["ls", "/bin/busybox"]).ok(), "/bin/busybox");
}
