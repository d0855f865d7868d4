//! Generated wire code of containerd's gRPC API: messages, servers and clients. Nothing here is written by hand but the definitions' build.
//!
//! The definitions below `proto/` are containerd's (Apache-2.0), kept as they are published.

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_debug_implementations,
    unreachable_pub,
    rustdoc::all,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

pub use generated::*;

/// The descriptor set of all services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
