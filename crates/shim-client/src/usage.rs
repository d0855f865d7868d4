//! The measurements of a Stats call in numbers: of containers whose cgroup the host does not have under the name we know (a virtual machine's,
//! a sandbox's), the shim is the only one to ask.

use berth_proto::protobuf::Message;
use berth_proto::{cgroup_v1, cgroup_v2};

/// What every form of the message has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_total_ns: u64,
    pub memory_bytes: u64,
    pub pids: u64,
}

/// `None` for a message of another kind.
pub(crate) fn parse(type_url: &str, value: &[u8]) -> Option<Usage> {
    match type_url.rsplit('/').next()? {
        "io.containerd.cgroups.v1.Metrics" => {
            let metrics = cgroup_v1::Metrics::parse_from_bytes(value).ok()?;
            Some(Usage {
                cpu_total_ns: metrics.cpu.usage.total,
                memory_bytes: metrics.memory.usage.usage,
                pids: metrics.pids.current,
            })
        }
        "io.containerd.cgroups.v2.Metrics" => {
            let metrics = cgroup_v2::Metrics::parse_from_bytes(value).ok()?;
            Some(Usage {
                cpu_total_ns: metrics.cpu.usage_usec.saturating_mul(1000),
                memory_bytes: metrics.memory.usage,
                pids: metrics.pids.current,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::protobuf::MessageField;

    #[test]
    fn both_forms() {
        let memory = cgroup_v2::MemoryStat { usage: 4096, ..Default::default() };
        let cpu = cgroup_v2::CPUStat { usage_usec: 7, ..Default::default() };
        let v2 = cgroup_v2::Metrics {
            memory: MessageField::some(memory),
            cpu: MessageField::some(cpu),
            ..Default::default()
        };
        let usage = Usage { cpu_total_ns: 7000, memory_bytes: 4096, pids: 0 };
        assert_eq!(parse("io.containerd.cgroups.v2.Metrics", &v2.write_to_bytes().unwrap()), Some(usage));
        assert_eq!(parse("types.containerd.io/io.containerd.cgroups.v1.Metrics", b""), Some(Usage::default()));
        assert_eq!(parse("other", b""), None);
    }
}
