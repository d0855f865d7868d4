//! Containerd-shaped objects: tasks on their shims, the life cycle they obey, bundles on disk, and the event log.
//!
//! What is absent: Docker's policy (names, restart, configs; crate `engine`), wire formats (faces), kernel work (the shim's runtime).
//! Invariant: no lock is held across an await; operations on one task are serialised by its owner.

pub mod binary;
pub mod bundle;
pub mod events;
pub mod filter;
pub mod fleet;
pub mod lifecycle;
pub mod objects;
pub mod shim_events;
pub mod task;

pub use binary::SealedBinary;
pub use bundle::Bundle;
pub use events::{Event, EventLog};
pub use fleet::Fleet;
pub use lifecycle::{Operation, Phase, TransitionError};
pub use objects::{Objects, Tenant};
pub use shim_events::ShimEvents;
pub use task::{Task, TaskError, TaskManager};
