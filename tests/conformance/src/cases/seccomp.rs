//! runtime-spec config-linux, "Seccomp".

use serde_json::{Value, json};

use crate::bundle::Container;
use crate::runtime::{Outcome, Runtime};

fn with_rules(container: &mut Container<'_>, rules: Value) {
    container.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}),
    );
}

pub fn errno_and_default(runtime: &Runtime) -> Outcome {
    let script = "mkdir /data/x 2>&1 | grep -o 'not permitted'; chmod 700 /data 2>&1 | grep -o 'denied'; uname -s";
    let mut container = Container::with_script(runtime, script);
    with_rules(
        &mut container,
        json!([
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        ]),
    );
    assert_eq!(container.run().ok(), "not permitted\ndenied\nLinux");
    Ok(())
}

pub fn arguments(runtime: &Runtime) -> Outcome {
    // kill(2) with signal 10 is refused, with 0 it is not.
    let mut container =
        Container::with_script(runtime, "kill -0 $$ && echo zero; kill -USR1 $$ 2>/dev/null || echo ten");
    with_rules(
        &mut container,
        json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]),
    );
    assert_eq!(container.run().ok(), "zero\nten");
    Ok(())
}

pub fn kill_process(runtime: &Runtime) -> Outcome {
    runtime.needs("/linux/seccomp/actions", "SCMP_ACT_KILL_PROCESS")?;
    let mut container = Container::with_script(runtime, "(mkdir /data/x); echo $?");
    with_rules(&mut container, json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]));
    // SIGSYS is 31.
    assert!(container.run().ok().ends_with("159"));
    Ok(())
}

pub fn unknown_calls_are_skipped(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "echo fine");
    with_rules(&mut container, json!([{"names": ["no_such_call", "mkdir"], "action": "SCMP_ACT_ERRNO"}]));
    assert_eq!(container.run().ok(), "fine");
    with_rules(&mut container, json!([{"names": ["mkdir"], "action": "SCMP_ACT_NO_SUCH"}]));
    assert_ne!(container.run().code, 0, "an unknown action is refused");
    Ok(())
}

pub fn default_errno(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "mkdir /data/x 2>&1 | grep -o 'not implemented'");
    with_rules(&mut container, json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]));
    assert_eq!(container.run().ok(), "not implemented");
    Ok(())
}

pub fn holds_for_exec_too(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 60");
    with_rules(&mut container, json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]));
    container.create_and_start();
    let output = container.exec(&[], &["mkdir", "/data/x"]);
    assert!(output.code == 1 && output.stderr.contains("not permitted"), "{output:?}");
    Ok(())
}
