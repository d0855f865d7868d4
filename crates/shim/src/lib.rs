//! The shim `containerd-shim-berth-v1`: one small process per container that owns it for its life and outlives the daemon.
//!
//! It binds a socket, forks without exec, and serves the Task service of shim v2 there. It makes the container through the
//! `runtime` crate in its own process, moves its input and output, collects exit statuses, and keeps them until they are deleted.
//!
//! Invariants:
//! * One thread at work, before and after the fork: clone3 and setns are safe, and an idle shim costs little. A second one is there while a
//!   container's hooks are waited for ([`aside`]).
//! * It stays outside the container's cgroup; nothing in the container can signal or trace it.
//! * It ends only after Delete and Shutdown (of a sandbox: ShutdownSandbox), when everything it owed to attached clients is delivered.
//! * No lock is held across an await; a call whose client goes away is dropped at an await without harm.

mod aside;
mod bootstrap;
mod cleanup;
mod daemonize;
mod error;
mod events;
mod group;
mod invocation;
mod io;
mod log;
mod mounts;
mod oci;
mod oom;
mod process;
mod reaper;
mod record;
mod sandbox;
mod server;
mod service;
mod socket;
mod stats;
mod task;

pub use error::ShimError;
pub use invocation::{Environment, Invocation, Verb};
pub use server::Server;

/// What the process goes on with after `start`.
#[derive(Debug)]
pub enum Side {
    /// The process that was executed: print this and end.
    Parent(Vec<u8>),
    /// The shim itself: serve.
    Child(Box<Server>),
}

/// Binds the socket and forks.
///
/// # Errors
/// `AlreadyExists` when a shim for this id is alive, else what the kernel refused.
pub fn start(invocation: &Invocation) -> Result<Side, ShimError> {
    server::start(invocation)
}

/// Cleans up after a shim that is dead; returns the encoded `DeleteResponse`.
///
/// # Errors
/// When something of the task remains.
pub fn delete(invocation: &Invocation) -> Result<Vec<u8>, ShimError> {
    cleanup::delete(invocation)
}

/// What `-v` prints.
pub fn version_text() -> String {
    format!(
        "containerd-shim-berth-v1:\n  Version:  {}\n  Protocol: ttrpc, task v2 and v3, sandbox v1\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The encoded `RuntimeInfo` that `-info` prints.
pub fn info() -> Vec<u8> {
    bootstrap::info()
}
