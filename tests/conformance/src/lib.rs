//! The runtime conformance suite: drives any OCI runtime binary from outside, as engines do, and says where it leaves the
//! specification or runc's command line. A case counts only when the reference runtime passes it; what an older runtime lacks is
//! found in its `features`, never by its name.
//!
//! `tests/runtimes.rs` runs every case for Debian's runc and for ours, or for `BERTH_CONFORMANCE_RUNTIME=PATH` in the place of ours.

pub mod bundle;
pub mod cases;
pub mod cgroup;
pub mod console;
pub mod engine;
pub mod runtime;

pub use bundle::Container;
pub use runtime::{Outcome, Runtime};

/// One case: passes, panics, or says why it does not apply.
pub type Case = fn(&Runtime) -> Outcome;
