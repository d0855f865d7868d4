//! What can be wrong with a profile.

use berth_types::{Classify, ErrorClass};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    #[error("seccomp profile is not valid JSON of the expected form")]
    Json { source: serde_json::Error },
    #[error("seccomp action {name:?} is not known")]
    UnknownAction { name: String },
    #[error("seccomp architecture {name:?} is not known")]
    UnknownArch { name: String },
    #[error("seccomp argument comparison {name:?} is not known")]
    UnknownComparison { name: String },
    #[error("seccomp filter flag {name:?} is not known")]
    UnknownFlag { name: String },
    #[error("seccomp errno {value} is above 4095")]
    ErrnoRange { value: u32 },
    #[error("seccomp action {action} returns no errno, but is given one")]
    ErrnoUnused { action: String },
    #[error("seccomp argument index {index} of {syscall} is above 5")]
    ArgIndex { syscall: String, index: u32 },
    #[error("seccomp profile: {what}")]
    Contradiction { what: &'static str },
    #[error("minimum kernel {text:?} in a seccomp profile is not a version such as 4.8")]
    KernelVersion { text: String },
    #[error("seccomp filter has {instructions} instructions, the kernel takes {limit}")]
    TooLong { instructions: usize, limit: usize },
    #[error("a seccomp program of {length} bytes is not a whole number of instructions between 1 and {limit}")]
    ProgramBytes { length: usize, limit: usize },
}

impl Classify for SeccompError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::TooLong { .. } => ErrorClass::ResourceExhausted,
            _ => ErrorClass::InvalidArgument,
        }
    }
}
