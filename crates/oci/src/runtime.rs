//! Types of the runtime specification: those of `oci-spec`, but for the document's two outermost, which are ours.
//!
//! `oci-spec` judges `execCPUAffinity` while it reads it, by a regular expression: that refuses the empty list, which the
//! specification has mean "leave it as it is", and links an engine for such expressions, a fifth of the runtime, into every program
//! that reads a container's document. Here it is text; what it must be like is checked where it is used (`berth-runtime`, `Affinity`).
//! Of what the specification has for other systems than Linux only that it is there is known.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

pub use oci_spec::runtime::*;

/// A container's `config.json`.
///
/// # Spec
/// runtime-spec config.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    #[serde(default, rename = "ociVersion")]
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<Root>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mounts: Option<Vec<Mount>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domainname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hooks: Option<Hooks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<HashMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    linux: Option<Linux>,
    #[serde(default, skip_serializing)]
    solaris: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    windows: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    vm: Option<IgnoredAny>,
    #[serde(default, skip_serializing)]
    zos: Option<IgnoredAny>,
}

impl Spec {
    /// Names of the parts for other systems than Linux that are there.
    pub fn foreign(&self) -> impl Iterator<Item = &'static str> {
        let parts = [(self.windows, "windows"), (self.solaris, "solaris"), (self.vm, "vm"), (self.zos, "zos")];
        parts.into_iter().filter_map(|(part, name)| part.map(|_| name))
    }
}

/// `process` of a container's document, or of one that is added.
///
/// # Spec
/// runtime-spec config, "Process" and "Linux Process".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    terminal: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    console_size: Option<Box>,
    user: User,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command_line: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<Vec<String>>,
    cwd: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<LinuxCapabilities>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rlimits: Option<Vec<PosixRlimit>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no_new_privileges: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apparmor_profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oom_score_adj: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selinux_label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    io_priority: Option<LinuxIOPriority>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduler: Option<Scheduler>,
    #[serde(default, rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// CPUs of processes that are added, as lists such as `0-3,7`; not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecCpuAffinity {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initial: Option<String>,
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

impl ExecCpuAffinity {
    /// While it is not in the container's cgroup yet.
    pub fn initial(&self) -> Option<&str> {
        self.initial.as_deref()
    }

    /// From then on; `final` in the document.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }
}

/// Getters and setters in the manner of `oci-spec`.
macro_rules! fields {
    ($type:ident { $($field:ident $change:ident $set:ident: $of:ty,)* }) => {
        impl $type {
            $(
                pub fn $field(&self) -> &$of {
                    &self.$field
                }

                pub fn $change(&mut self) -> &mut $of {
                    &mut self.$field
                }

                pub fn $set(&mut self, value: $of) -> &mut Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
}

/// The same, by value.
macro_rules! values {
    ($type:ident { $($field:ident $set:ident: $of:ty,)* }) => {
        impl $type {
            $(
                pub fn $field(&self) -> $of {
                    self.$field
                }

                pub fn $set(&mut self, value: $of) -> &mut Self {
                    self.$field = value;
                    self
                }
            )*
        }
    };
}

fields!(Spec {
    version version_mut set_version: String,
    root root_mut set_root: Option<Root>,
    mounts mounts_mut set_mounts: Option<Vec<Mount>>,
    process process_mut set_process: Option<Process>,
    hostname hostname_mut set_hostname: Option<String>,
    domainname domainname_mut set_domainname: Option<String>,
    hooks hooks_mut set_hooks: Option<Hooks>,
    annotations annotations_mut set_annotations: Option<HashMap<String, String>>,
    linux linux_mut set_linux: Option<Linux>,
});

fields!(Process {
    user user_mut set_user: User,
    args args_mut set_args: Option<Vec<String>>,
    command_line command_line_mut set_command_line: Option<String>,
    env env_mut set_env: Option<Vec<String>>,
    cwd cwd_mut set_cwd: PathBuf,
    capabilities capabilities_mut set_capabilities: Option<LinuxCapabilities>,
    rlimits rlimits_mut set_rlimits: Option<Vec<PosixRlimit>>,
    apparmor_profile apparmor_profile_mut set_apparmor_profile: Option<String>,
    selinux_label selinux_label_mut set_selinux_label: Option<String>,
    io_priority io_priority_mut set_io_priority: Option<LinuxIOPriority>,
    scheduler scheduler_mut set_scheduler: Option<Scheduler>,
    exec_cpu_affinity exec_cpu_affinity_mut set_exec_cpu_affinity: Option<ExecCpuAffinity>,
});

values!(Process {
    terminal set_terminal: Option<bool>,
    console_size set_console_size: Option<Box>,
    no_new_privileges set_no_new_privileges: Option<bool>,
    oom_score_adj set_oom_score_adj: Option<i32>,
});

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is what was read, and the same as `oci-spec` makes of it.
    #[test]
    fn documents_round_trip() {
        let text = r#"{"ociVersion":"1.3.0","root":{"path":"rootfs","readonly":true},
            "mounts":[{"destination":"/proc","type":"proc","source":"proc"}],"hostname":"h","domainname":"d",
            "hooks":{"poststop":[{"path":"/bin/true"}]},"annotations":{"a":"b"},
            "process":{"terminal":true,"consoleSize":{"height":2,"width":3},"user":{"uid":1,"gid":2,"additionalGids":[3]},
                "args":["a"],"env":["A=b"],"cwd":"/c","capabilities":{"bounding":["CAP_KILL"]},
                "rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":2}],"noNewPrivileges":true,"apparmorProfile":"p",
                "oomScoreAdj":-3,"selinuxLabel":"l","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},
                "scheduler":{"policy":"SCHED_BATCH","nice":5},"execCPUAffinity":{"initial":"0-1","final":"1"}},
            "linux":{"namespaces":[{"type":"pid"}]}}"#;
        let asked: serde_json::Value = serde_json::from_str(text).unwrap();
        let ours: Spec = serde_json::from_str(text).unwrap();
        let theirs: oci_spec::runtime::Spec = serde_json::from_str(text).unwrap();
        let written = serde_json::to_value(&ours).unwrap();
        assert_eq!(written, serde_json::to_value(theirs).unwrap());
        for pointer in ["/process/execCPUAffinity", "/process/scheduler/policy", "/annotations", "/process/consoleSize"]
        {
            assert_eq!(written.pointer(pointer), asked.pointer(pointer), "{pointer}");
        }
        assert_eq!(serde_json::from_value::<Spec>(written).unwrap(), ours);
    }

    #[test]
    fn parts_for_other_systems_are_named() {
        let spec: Spec = serde_json::from_str(r#"{"windows":{"layerFolders":[]},"vm":[],"zos":null}"#).unwrap();
        assert_eq!(spec.foreign().collect::<Vec<_>>(), ["windows", "vm"]);
    }

    /// runtime-spec config, "Linux Process", execCPUAffinity: "if omitted or empty".
    #[test]
    fn a_list_of_cpus_may_be_empty() {
        let text = r#"{"user":{"uid":0,"gid":0},"cwd":"/","execCPUAffinity":{"initial":"","final":""}}"#;
        let process: Process = serde_json::from_str(text).unwrap();
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!((affinity.initial(), affinity.last()), (Some(""), Some("")));
    }
}
