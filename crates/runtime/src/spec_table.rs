//! What becomes of every field of runtime-spec 1.3 for Linux, as a table. docs/runtime.md shows it; tests hold it against a document that
//! has every field, against the planner and against the page.

/// What this runtime does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// As the specification says, on every host.
    Done,
    /// Where the host has it; otherwise an error that names the field and what the host lacks.
    HostHas,
    /// Always an error that names the field.
    Refused,
}

/// One field, by its path in `config.json`; a list stands for its entries, `*` for any key.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub path: &'static str,
    pub support: Support,
    /// How, and where it differs from what one would think.
    pub note: &'static str,
}

const fn done(path: &'static str, note: &'static str) -> Field {
    Field { path, support: Support::Done, note }
}

const fn host(path: &'static str, note: &'static str) -> Field {
    Field { path, support: Support::HostHas, note }
}

const fn refused(path: &'static str, note: &'static str) -> Field {
    Field { path, support: Support::Refused, note }
}

/// Every field, in the order of the specification: config, then config-linux.
pub const FIELDS: &[Field] = &[
    done("ociVersion", "any version 1; others are refused"),
    done("root.path", "cloned as a detached mount: the host's mount table does not change"),
    done("root.readonly", ""),
    done("mounts.destination", "resolved by the kernel inside the root, links included; a relative one begins at /"),
    done("mounts.source", "of a bind: opened with the host's rights and view before the container exists"),
    done("mounts.type", ""),
    done("mounts.options", "all of the table below; what it does not know is the file system's"),
    done("mounts.uidMappings.containerID", "binds only, with `idmap` or `ridmap`"),
    done("mounts.uidMappings.hostID", "binds only"),
    done("mounts.uidMappings.size", ""),
    done("mounts.gidMappings.containerID", "binds only"),
    done("mounts.gidMappings.hostID", "binds only"),
    done("mounts.gidMappings.size", ""),
    done("process.terminal", "the slave comes from its master, never from a path"),
    done("process.consoleSize.height", ""),
    done("process.consoleSize.width", ""),
    done("process.cwd", "made where it is missing; never through a link out of the root"),
    done(
        "process.env",
        "the last of repeated names counts; HOME is from the container's passwd where it is missing or empty",
    ),
    done("process.args", "required at create already"),
    done("process.rlimits.type", ""),
    done("process.rlimits.soft", "clamped with a warning where the host may not raise it"),
    done("process.rlimits.hard", "clamped with a warning where the host may not raise it"),
    host("process.apparmorProfile", "at exec, through a checked procfs"),
    done("process.capabilities.bounding", "unknown names and what the host lacks: a warning"),
    done("process.capabilities.effective", "the same"),
    done("process.capabilities.inheritable", "the same; empty unless asked for"),
    done("process.capabilities.permitted", "the same"),
    done("process.capabilities.ambient", "the same"),
    done("process.noNewPrivileges", ""),
    done("process.oomScoreAdj", "a warning where lowering it needs CAP_SYS_RESOURCE that the host lacks"),
    done("process.scheduler.policy", "set after the hooks, for the deadline scheduler forbids to fork"),
    done("process.scheduler.nice", ""),
    done("process.scheduler.priority", ""),
    done(
        "process.scheduler.flags",
        "the two for utilization clamps are refused: the specification has no values for them",
    ),
    done("process.scheduler.runtime", ""),
    done("process.scheduler.deadline", ""),
    done("process.scheduler.period", ""),
    host("process.selinuxLabel", "at exec, through a checked procfs"),
    done("process.ioPriority.class", ""),
    done("process.ioPriority.priority", "0 to 7"),
    done("process.execCPUAffinity.initial", "of the runtime while it clones; of exec only"),
    done("process.execCPUAffinity.final", "after the process entered the cgroup; of exec only"),
    done("process.user.uid", ""),
    done("process.user.gid", ""),
    done("process.user.umask", "0022 where it is missing"),
    done("process.user.additionalGids", "the primary group belongs to the set"),
    refused("process.commandLine", "of Windows"),
    done("hostname", "refused without a UTS namespace: it would be the host's"),
    done("domainname", "the same"),
    refused("windows", "of another platform"),
    refused("solaris", "of another platform"),
    refused("vm", "of another platform"),
    refused("zos", "of another platform"),
    done("hooks.prestart.path", "absolute; state on standard input, killed after its timeout"),
    done("hooks.prestart.args", ""),
    done("hooks.prestart.env", "and nothing else"),
    done("hooks.prestart.timeout", "positive; 600 s where it is missing"),
    done("hooks.createRuntime.path", ""),
    done("hooks.createContainer.path", "in the container's namespaces, by a path of the host"),
    done(
        "hooks.startContainer.path",
        "in the container, with the program's user, capabilities, filter and environment",
    ),
    done("hooks.poststart.path", "a failure stops the container"),
    done(
        "hooks.poststop.path",
        "a failure is a warning and the others run; also after a creation that failed with a hook",
    ),
    done("annotations.*", "in the state document; empty keys are refused"),
    done(
        "linux.namespaces.type",
        "all eight; in the host's mount namespace the mounts are in no namespace and go with the container; not with a user namespace",
    ),
    done("linux.namespaces.path", "each kind; a mount namespace only when it is not the runtime's own"),
    done("linux.uidMappings.containerID", "up to 340 ranges"),
    done("linux.uidMappings.hostID", ""),
    done("linux.uidMappings.size", ""),
    done("linux.gidMappings.containerID", "up to 340 ranges"),
    done("linux.gidMappings.hostID", ""),
    done("linux.gidMappings.size", ""),
    done("linux.timeOffsets.*.secs", "monotonic and boottime; a new time namespace only"),
    done("linux.timeOffsets.*.nanosecs", "less than a second"),
    done("linux.devices.type", "c, u, b, p"),
    done("linux.devices.path", "absolute; something else of that name is an error"),
    done("linux.devices.major", ""),
    done("linux.devices.minor", ""),
    done("linux.devices.fileMode", "0666 where it is missing; in a user namespace the host's node is bound as it is"),
    done("linux.devices.uid", "not in a user namespace"),
    done("linux.devices.gid", "not in a user namespace"),
    done(
        "linux.netDevices.*.name",
        "moved with its lasting addresses and set up; given back when creation fails later",
    ),
    done("linux.cgroupsPath", "a path, or slice:prefix:name for systemd; a group with processes in it is refused"),
    done("linux.resources.devices.allow", "nothing is allowed but what is listed and the default devices"),
    done("linux.resources.devices.type", ""),
    done("linux.resources.devices.major", ""),
    done("linux.resources.devices.minor", ""),
    done("linux.resources.devices.access", ""),
    done("linux.resources.memory.limit", ""),
    done("linux.resources.memory.reservation", ""),
    done("linux.resources.memory.swap", "memory and swap together, as v1 counts"),
    refused("linux.resources.memory.kernel", "a value above 0: kernels count it with the rest"),
    refused("linux.resources.memory.kernelTCP", "a value above 0"),
    done("linux.resources.memory.swappiness", "v1"),
    done("linux.resources.memory.disableOOMKiller", "v1"),
    done("linux.resources.memory.useHierarchy", "always; false is refused"),
    done("linux.resources.memory.checkBeforeUpdate", ""),
    done("linux.resources.cpu.shares", "converted to a weight on v2"),
    done("linux.resources.cpu.quota", ""),
    done("linux.resources.cpu.burst", ""),
    done("linux.resources.cpu.period", ""),
    host("linux.resources.cpu.realtimeRuntime", "v1 with CONFIG_RT_GROUP_SCHED"),
    host("linux.resources.cpu.realtimePeriod", "v1 with CONFIG_RT_GROUP_SCHED"),
    done("linux.resources.cpu.cpus", ""),
    done("linux.resources.cpu.mems", ""),
    done("linux.resources.cpu.idle", ""),
    done("linux.resources.pids.limit", "0 is written as 1"),
    done("linux.resources.blockIO.weight", ""),
    done("linux.resources.blockIO.leafWeight", "v1 with CFQ"),
    done("linux.resources.blockIO.weightDevice.major", ""),
    done("linux.resources.blockIO.weightDevice.minor", ""),
    done("linux.resources.blockIO.weightDevice.weight", ""),
    done("linux.resources.blockIO.weightDevice.leafWeight", "v1 with CFQ"),
    done("linux.resources.blockIO.throttleReadBpsDevice.major", ""),
    done("linux.resources.blockIO.throttleReadBpsDevice.minor", ""),
    done("linux.resources.blockIO.throttleReadBpsDevice.rate", ""),
    done("linux.resources.blockIO.throttleWriteBpsDevice.major", ""),
    done("linux.resources.blockIO.throttleWriteBpsDevice.minor", ""),
    done("linux.resources.blockIO.throttleWriteBpsDevice.rate", ""),
    done("linux.resources.blockIO.throttleReadIOPSDevice.major", ""),
    done("linux.resources.blockIO.throttleReadIOPSDevice.minor", ""),
    done("linux.resources.blockIO.throttleReadIOPSDevice.rate", ""),
    done("linux.resources.blockIO.throttleWriteIOPSDevice.major", ""),
    done("linux.resources.blockIO.throttleWriteIOPSDevice.minor", ""),
    done("linux.resources.blockIO.throttleWriteIOPSDevice.rate", ""),
    host("linux.resources.hugepageLimits.pageSize", "the hugetlb controller"),
    host("linux.resources.hugepageLimits.limit", "and its reservations where the kernel counts them"),
    host("linux.resources.network.classID", "v1 with net_cls"),
    host("linux.resources.network.priorities.name", "v1 with net_prio"),
    host("linux.resources.network.priorities.priority", "v1 with net_prio"),
    host("linux.resources.rdma.*.hcaHandles", "an RDMA device"),
    host("linux.resources.rdma.*.hcaObjects", "an RDMA device"),
    host("linux.resources.unified.*", "v2; written as it is"),
    host("linux.intelRdt.closID", "a mounted resctrl"),
    host("linux.intelRdt.l3CacheSchema", "written first"),
    host("linux.intelRdt.memBwSchema", "written second"),
    host("linux.intelRdt.schemata", "written last"),
    host("linux.intelRdt.enableMonitoring", "also under the names enableCMT and enableMBM of versions 1.1 and 1.2"),
    host("linux.memoryPolicy.mode", "a kernel with NUMA"),
    host("linux.memoryPolicy.nodes", ""),
    host("linux.memoryPolicy.flags", ""),
    done("linux.sysctl.*", "of the container's own namespaces; those of the host are refused"),
    done("linux.seccomp.defaultAction", "all but SCMP_ACT_NOTIFY"),
    done("linux.seccomp.defaultErrnoRet", ""),
    done(
        "linux.seccomp.architectures",
        "x86, x86-64, x32, ARM, AArch64; the others have no process here that they could judge",
    ),
    done("linux.seccomp.flags", "all four; SPEC_ALLOW where they are missing; TSYNC has nothing to do"),
    done(
        "linux.seccomp.listenerPath",
        "the listener and the container's process state, one connection for each process",
    ),
    done("linux.seccomp.listenerMetadata", "refused without listenerPath"),
    done("linux.seccomp.syscalls.names", "at least one; unknown ones are of other kernels"),
    done("linux.seccomp.syscalls.action", "all nine"),
    done("linux.seccomp.syscalls.errnoRet", ""),
    done("linux.seccomp.syscalls.args.index", ""),
    done("linux.seccomp.syscalls.args.value", ""),
    done("linux.seccomp.syscalls.args.valueTwo", ""),
    done("linux.seccomp.syscalls.args.op", "all seven"),
    done("linux.rootfsPropagation", "with an r for what is mounted below as well; private where it is missing"),
    done("linux.maskedPaths", "absolute"),
    done("linux.readonlyPaths", "absolute"),
    host("linux.mountLabel", "SELinux; not on procfs, sysfs and mqueue"),
    done("linux.personality.domain", ""),
    refused("linux.personality.flags", "the specification defines none"),
];

/// The table of docs/runtime.md.
#[cfg(test)]
fn markdown() -> String {
    let mut text = String::from("| field | | note |\n| --- | --- | --- |\n");
    for field in FIELDS {
        let support = match field.support {
            Support::Done => "done",
            Support::HostHas => "where the host has it",
            Support::Refused => "refused",
        };
        text.push_str(&format!("| `{}` | {support} | {} |\n", field.path, field.note));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const FULL: &str = include_str!("../tests/data/full.json");
    /// Objects whose keys are names of their own.
    const MAPS: [&str; 6] = [
        "annotations",
        "linux.timeOffsets",
        "linux.netDevices",
        "linux.resources.rdma",
        "linux.resources.unified",
        "linux.sysctl",
    ];

    fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    let key = if MAPS.contains(&path) { "*" } else { key.as_str() };
                    let inner = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    leaves(member, &inner, found);
                }
            }
            Value::Array(entries) if entries.iter().any(Value::is_object) => {
                entries.iter().for_each(|entry| leaves(entry, path, found));
            }
            _ => {
                found.insert(path.to_owned());
            }
        }
    }

    #[test]
    fn every_field_of_the_full_document_has_its_row_and_the_other_way_round() {
        let mut found = BTreeSet::new();
        leaves(&serde_json::from_str(FULL).unwrap(), "", &mut found);
        let rows: BTreeSet<String> = FIELDS.iter().map(|field| field.path.to_owned()).collect();
        assert_eq!(rows.len(), FIELDS.len(), "a row is there twice");
        let missing: Vec<&String> = found.difference(&rows).collect();
        assert_eq!(missing, Vec::<&String>::new(), "fields without a row");
        let other_platforms = ["process.commandLine", "windows", "solaris", "vm", "zos"];
        let unproven: Vec<&String> =
            rows.difference(&found).filter(|row| !other_platforms.contains(&row.as_str())).collect();
        assert_eq!(unproven, Vec::<&String>::new(), "rows without a field");
    }

    #[test]
    fn the_page_has_this_table() {
        let page = include_str!("../../../docs/runtime.md");
        assert!(page.contains(&markdown()), "docs/runtime.md should hold this:\n{}", markdown());
    }
}
