//! S-155: whatever step fails, nothing is left.

use std::collections::BTreeSet;
use std::fs;

use berth_runtime::{Fault, Tuning};
use serde_json::json;

use crate::support::{Bundle, own_cgroups, pipes};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn children() -> String {
    fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap()
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn bundle(user_ns: bool) -> Bundle {
    let host = std::path::Path::new("/etc/passwd");
    let bundle = Bundle::new()
        .overlay()
        .mount(json!({"destination": "/from-host", "type": "bind", "source": host, "options": ["bind", "ro"]}))
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]))
        .set("/process/oomScoreAdj", json!(100))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/process/noNewPrivileges", json!(true));
    if user_ns { bundle.user_ns() } else { bundle }
}

/// S-155
pub(super) fn s155_a_fault_at_every_step_leaves_nothing() {
    for user_ns in [false, true] {
        let mut failed_in: BTreeSet<String> = BTreeSet::new();
        let mut step = 0;
        let mut bundle = bundle(user_ns);
        loop {
            bundle.renew();
            bundle.tuning = Tuning { fault: Some(Fault(step)), ..Tuning::default() };
            let (stdio, output) = pipes();
            let before = (descriptors(), children(), mounts());
            let created = bundle.create_with(stdio, &mut Vec::new());
            let error = match created {
                Err(error) => Some(error),
                Ok(mut container) => {
                    let started = container.start(&mut Vec::new());
                    container.delete().unwrap();
                    started.err()
                }
            };
            // The three streams went into create, which closes them.
            let after = (descriptors() + 3, children(), mounts());
            assert_eq!(after, before, "step {step}: {error:?}");
            assert_eq!(own_cgroups(), Vec::<std::path::PathBuf>::new(), "step {step}");
            drop(output);
            let Some(error) = error else { break };
            let text = error.to_string();
            assert!(text.contains("injected fault"), "{text}");
            failed_in.insert(text.split_whitespace().nth(1).unwrap().to_owned());
            step += 1;
        }
        assert!(step > 50, "{step} steps");
        for name in ["clone-init", "mount-rootfs", "attach-rootfs", "mount", "enter-rootfs", "execute", "set-oom-score"]
        {
            assert!(failed_in.contains(name), "{name}: {failed_in:?}");
        }
    }
}
