//! One timed step of an operation. The same list serves `--trace`, errors and fault injection.

/// Who did the step; the three parties of the start workflow, and the client that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    Client,
    Engine,
    Shim,
    Runtime,
}

/// A named step with the object it touched and its time on `CLOCK_MONOTONIC` (one clock for all parties of a host).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    pub party: Party,
    /// Stable step name, `noun.verb` or `verb-noun`: `task.create`, `mount-rootfs`.
    pub name: String,
    /// What it acted on (a path, an id); empty when the name says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// `CLOCK_MONOTONIC` at its start, nanoseconds.
    pub start_ns: u64,
    pub duration_ns: u64,
}

/// Name, in a bundle, of the file that asks for the spans of an exec and then holds them.
pub fn exec_trace_file(exec_id: &str) -> String {
    format!("trace-{exec_id}.json")
}
