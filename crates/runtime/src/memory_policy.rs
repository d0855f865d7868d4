//! NUMA memory policy of the container's process, kept over exec and inherited by its children: set_mempolicy(2).
//!
//! # Spec
//! runtime-spec config-linux, "Memory policy".

use berth_oci::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};

use crate::error::RuntimeError;
use crate::number_list;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct MemoryPolicy {
    /// With its flags.
    pub(crate) mode: u32,
    pub(crate) nodes: Vec<u64>,
    pub(crate) text: String,
}

/// What a mode wants of its list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    None,
    Some,
    Either,
}

impl MemoryPolicy {
    pub(crate) fn new(asked: &LinuxMemoryPolicy) -> Result<Self, RuntimeError> {
        let wrong = |problem: String| RuntimeError::Spec { field: "linux.memoryPolicy", problem };
        let (mode, wanted, name) = match asked.mode() {
            Mode::MpolDefault => (0, Nodes::None, "MPOL_DEFAULT"),
            Mode::MpolPreferred => (1, Nodes::Either, "MPOL_PREFERRED"),
            Mode::MpolBind => (2, Nodes::Some, "MPOL_BIND"),
            Mode::MpolInterleave => (3, Nodes::Some, "MPOL_INTERLEAVE"),
            Mode::MpolLocal => (4, Nodes::None, "MPOL_LOCAL"),
            Mode::MpolPreferredMany => (5, Nodes::Some, "MPOL_PREFERRED_MANY"),
            Mode::MpolWeightedInterleave => (6, Nodes::Some, "MPOL_WEIGHTED_INTERLEAVE"),
        };
        let list = asked.nodes().as_deref().map(str::trim).unwrap_or_default();
        let numbers = if list.is_empty() { Some(Vec::new()) } else { number_list::parse(list) };
        let numbers = numbers
            .ok_or_else(|| wrong(format!("invalid memory policy node list {list:?}, write one such as 0-3,7")))?;
        match wanted {
            Nodes::None if !numbers.is_empty() => {
                return Err(wrong(format!("{name}: mode requires 0 nodes but got {}", numbers.len())));
            }
            Nodes::Some if numbers.is_empty() => return Err(wrong(format!("{name} needs nodes"))),
            _ => {}
        }
        let flags = asked.flags().iter().flatten().fold(0, |bits, flag| {
            bits | match flag {
                Flag::MpolFNumaBalancing => 1_u32 << 13,
                Flag::MpolFRelativeNodes => 1 << 14,
                Flag::MpolFStaticNodes => 1 << 15,
            }
        });
        Ok(Self { mode: mode | flags, nodes: number_list::mask(&numbers), text: format!("{name} {list}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<MemoryPolicy, RuntimeError> {
        MemoryPolicy::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn modes_nodes_and_flags() {
        let made = policy(r#"{"mode": "MPOL_INTERLEAVE", "nodes": "2-3", "flags": ["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!((made.mode, made.nodes.as_slice()), (3 | 1 << 15, [0b1100].as_slice()));
        assert_eq!(policy(r#"{"mode": "MPOL_LOCAL"}"#).unwrap().nodes, [0_u64; 0]);
        for wrong in [
            r#"{"mode": "MPOL_DEFAULT", "nodes": "0"}"#,
            r#"{"mode": "MPOL_BIND"}"#,
            r#"{"mode": "MPOL_BIND", "nodes": "x"}"#,
        ] {
            assert!(policy(wrong).is_err(), "{wrong}");
        }
    }
}
