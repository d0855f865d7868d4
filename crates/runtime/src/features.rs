//! What this runtime can do, as the specification's features document. Nothing is claimed by hand where it can be asked: an option
//! is known when the parser knows it, and a field of the spec is served when planning does not refuse it.
//!
//! # Spec
//! runtime-spec features, features-linux.

use std::collections::BTreeMap;

use berth_oci::runtime::Spec;
use berth_rootfs::options::MountOptions;
use serde_json::{Value, json};

use crate::error::RuntimeError;
use crate::options::{Rootfs, Tuning};
use crate::plan::{PlanInput, plan_create};
use crate::state::OCI_VERSION;

/// The document; its fields are the specification's.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    pub oci_version_min: &'static str,
    pub oci_version_max: &'static str,
    pub hooks: Vec<&'static str>,
    pub mount_options: Vec<&'static str>,
    pub linux: Value,
    pub annotations: BTreeMap<&'static str, String>,
    pub potentially_unsafe_config_annotations: Vec<&'static str>,
}

/// `version` is the program's own.
pub fn features(version: &str) -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: OCI_VERSION,
        hooks: crate::hooks::STAGES.iter().map(|stage| stage.text()).collect(),
        mount_options: MOUNT_OPTIONS.iter().copied().filter(|option| is_known_option(option)).collect(),
        linux: linux(),
        annotations: BTreeMap::from([("dev.berth.runb.version", version.to_owned())]),
        // What an engine must not let a user set (features, "Unsafe annotations").
        potentially_unsafe_config_annotations: vec![berth_oci::annotation::SECCOMP_PROGRAM, "org.systemd.property."],
    }
}

fn linux() -> Value {
    let plans = |linux: Value| is_planned(&json!({ "linux": linux }));
    let bind = json!({"mounts": [{"destination": "/x", "type": "bind", "source": "/", "options": ["bind", "idmap"]}]});
    let net_devices = plans(json!({"namespaces": namespaces(), "netDevices": {"lo": {}}}));
    let policy =
        |mode: &str, flags: Value| plans(json!({"memoryPolicy": {"mode": mode, "nodes": "0", "flags": flags}}));
    let modes: Vec<&str> = MEMORY_MODES.iter().copied().filter(|mode| policy(mode, json!([]))).collect();
    let mut linux = json!({
        "namespaces": crate::namespaces::KINDS.iter().map(|kind| kind.text()).collect::<Vec<_>>(),
        "capabilities": berth_types::capability::NAMES.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>(),
        "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
        "seccomp": seccomp(),
        "apparmor": {"enabled": is_planned(&json!({"process": {"apparmorProfile": "any"}}))},
        "selinux": {"enabled": is_planned(&json!({"process": {"selinuxLabel": "a:b:c:s0"}}))},
        "intelRdt": {"enabled": plans(json!({"intelRdt": {"closID": "any"}}))},
        "mountExtensions": {"idmap": {"enabled": is_planned(&bind)}},
        "netDevices": {"enabled": net_devices},
    });
    if !modes.is_empty() {
        let flags: Vec<&str> = MEMORY_FLAGS.iter().copied().filter(|flag| policy("MPOL_BIND", json!([flag]))).collect();
        linux["memoryPolicy"] = json!({"modes": modes, "flags": flags});
    }
    linux
}

fn namespaces() -> Value {
    json!([{"type": "pid"}, {"type": "network"}, {"type": "mount"}, {"type": "user"}])
}

/// Whether planning serves a spec with these fields on top of a plain one.
fn is_planned(fields: &Value) -> bool {
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": "/"},
        "process": {"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}]},
    });
    merge(&mut spec, fields);
    let Ok(spec) = serde_json::from_str::<Spec>(&spec.to_string()) else { return false };
    let planned = plan_create(&PlanInput {
        spec: &spec,
        id: "features",
        bundle: std::path::Path::new("/"),
        rootfs: &Rootfs::Bundle,
        tuning: &Tuning::default(),
        has_seccomp_program: false,
    });
    // Refused for what this host lacks, it is served all the same.
    !matches!(planned, Err(RuntimeError::Unsupported { .. }))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn is_known_option(option: &str) -> bool {
    // What the parser does not know it leaves to the file system.
    MountOptions::parse(&[option]).data.is_empty()
}

fn seccomp() -> Value {
    use berth_seccomp::{Action, Arch, Flags, Profile};
    let compares = |operator: &&str| {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]}]});
        Profile::parse(profile.to_string().as_bytes()).is_ok_and(|profile| profile.resolve(&[], (5, 12)).is_ok())
    };
    let flags: Vec<&str> = SECCOMP_FLAGS.iter().copied().filter(|flag| Flags::parse([*flag]).is_ok()).collect();
    let actions: Vec<&str> = SECCOMP_ACTIONS.iter().copied().filter(|name| Action::parse(name, None).is_ok()).collect();
    json!({
        "enabled": true,
        "actions": actions,
        "operators": SECCOMP_OPERATORS.iter().filter(|operator| compares(operator)).collect::<Vec<_>>(),
        "archs": SECCOMP_ARCHES.iter().filter(|name| Arch::parse(name).is_ok()).collect::<Vec<_>>(),
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}

/// runtime-spec config, "Linux mount options", and config-linux, sorted.
const MOUNT_OPTIONS: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];
const MEMORY_MODES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
const MEMORY_FLAGS: &[&str] = &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];
const SECCOMP_ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const SECCOMP_OPERATORS: &[&str] =
    &["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
const SECCOMP_ARCHES: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_parts_say() {
        let features = features("0.0.0");
        assert_eq!(features.hooks.len(), 6);
        assert!(features.mount_options.contains(&"rro") && features.mount_options.contains(&"tmpcopyup"));
        assert!(!is_known_option("size=5"));
        let linux = &features.linux;
        let list = |pointer: &str| linux.pointer(pointer).unwrap().as_array().unwrap().len();
        assert_eq!((list("/namespaces"), list("/capabilities")), (8, 41));
        assert_eq!((list("/seccomp/actions"), list("/seccomp/operators")), (9, 7));
        assert_eq!(linux.pointer("/mountExtensions/idmap/enabled"), Some(&json!(true)));
    }

    #[test]
    fn a_field_that_planning_refuses_is_not_claimed() {
        assert!(is_planned(&json!({"hostname": "x"})));
        // Its root would have no right to the host's mounts.
        let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        let user_ns = json!({"namespaces": [{"type": "user"}], "uidMappings": map, "gidMappings": map});
        assert!(!is_planned(&json!({"linux": user_ns})));
    }
}
