//! Seccomp profiles compiled to classic BPF by an emitter of our own.
//!
//! A [`Profile`] is Docker's or OCI's JSON; [`Profile::resolve`] fits it to capabilities and kernel and gives a [`Filter`],
//! plain data; [`Filter::compile`] gives a [`Program`], the bytes the kernel loads. Loading is `berth_sys::seccomp`.
//!
//! Everything here is pure: no kernel calls, no files, no environment.

mod action;
mod arch;
mod default;
mod error;
mod filter;
#[cfg(test)]
mod interpreter;
mod profile;
mod program;

pub use action::Action;
pub use arch::Arch;
pub use default::default_profile;
pub use error::SeccompError;
pub use filter::{ArgTest, Comparison, Filter, Flags, Rule};
pub use profile::{ArchMap, Condition, Profile, ProfileArg, SyscallRule};
pub use program::{Instruction, Program};
