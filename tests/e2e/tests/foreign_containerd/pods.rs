//! Grouping: the containers of a pod share one shim (S-143).

use berth_testkit::wait_until;

use super::{RUNTIME, SHIM, with_our_shim};

/// S-143: four tasks of one pod and one of none: two shims. The pod's lives as long as one of its tasks.
#[test]
fn s143_one_shim_per_pod_under_debians_containerd() {
    let containerd = with_our_shim();
    let pod = ["--runtime", RUNTIME, "-d", "--annotation", "io.kubernetes.cri.sandbox-id=p0"];
    for id in ["p0", "p1", "p2", "p3"] {
        containerd.run(&pod, id, &["sleep", "1000"]).ok();
    }
    containerd.run(&["--runtime", RUNTIME, "-d"], "alone", &["sleep", "1000"]).ok();
    assert_eq!(containerd.processes(SHIM).len(), 2);
    let fifos = containerd.fifo_dir();
    for id in ["p1", "p3"] {
        let exec = ["tasks", "exec", "--fifo-dir", &fifos, "--exec-id", "e1", id, "sh", "-c", "echo $0"];
        assert_eq!(containerd.ctr(&exec).ok(), "sh");
    }
    // A member is paused and killed; the others do not notice.
    containerd.ctr(&["tasks", "pause", "p2"]).ok();
    containerd.ctr(&["tasks", "resume", "p2"]).ok();
    let remove = |id: &str| {
        containerd.ctr(&["tasks", "kill", "-s", "SIGKILL", id]).ok();
        wait_until("the task can be deleted", || {
            let deleted = containerd.ctr(&["tasks", "rm", id]);
            deleted.stderr.contains("non-zero exit code 137").then_some(())
        });
        containerd.ctr(&["containers", "rm", id]).ok();
    };
    remove("p0");
    remove("p2");
    let status = containerd.ctr(&["tasks", "ls"]);
    let running = status.ok().lines().filter(|line| line.contains("RUNNING")).count();
    assert_eq!(running, 3, "{status:?}");
    assert_eq!(containerd.processes(SHIM).len(), 2);
    remove("p1");
    remove("p3");
    wait_until("the pod's shim ends", || (containerd.processes(SHIM).len() == 1).then_some(()));
    remove("alone");
    wait_until("the other ends", || containerd.processes(SHIM).is_empty().then_some(()));
}
