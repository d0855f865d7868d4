//! Names, units and small parsers that every other crate speaks: ids, digests, image references,
//! sizes, signals, times and the classes of error. Plain data: no I/O, no threads, no environment.

pub mod architecture;
pub mod capability;
pub mod digest;
pub mod error;
pub mod exit_note;
pub mod id;
pub mod label;
pub mod reference;
pub mod signal;
pub mod size;
pub mod span;
pub mod timestamp;

pub use digest::{ChainId, DiffId, Digest};
pub use error::{Classify, ErrorClass, report};
pub use exit_note::ExitNote;
pub use id::{ContainerId, ExecId};
pub use label::Labels;
pub use reference::Reference;
pub use signal::Signal;
pub use size::ByteCount;
pub use span::{Party, Span};
pub use timestamp::Timestamp;
