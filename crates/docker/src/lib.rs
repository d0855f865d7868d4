//! The Docker face: Docker's Engine API (1.24 and newer) over HTTP/1.1 on a unix socket, in front of `engine`.
//!
//! It translates and nothing else: wire types live and end here, policy lives in `engine`. One file per endpoint below
//! `endpoints`, one per document below `wire`. What we cannot honour is refused by name, never ignored.

#![recursion_limit = "256"]

mod endpoints;
mod error;
mod hijack;
mod latency;
mod registry_auth;
mod server;
mod state;
mod wire;

pub use server::{ServeError, router, serve};
pub use state::FaceOptions;

/// The newest API version we speak; what `/version` and the `Api-Version` header say.
pub const API_VERSION: &str = "1.51";
/// The oldest API version we accept, for ever.
pub const API_VERSION_MIN: &str = "1.24";
