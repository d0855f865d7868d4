//! The containerd face: its gRPC services over the core; wire types stop here.
//!
//! ```text
//! <state>/containerd.sock         gRPC: containerd's services, reflection (v1, v1alpha), health
//! <state>/containerd.sock.ttrpc   Events.Forward, for shims (crate core)
//! ```
//! Reading order: [`face`] (what a service holds), `tenant` (whose objects), `status` (errors), then one file per service. It is an adapter:
//! objects are core's, containers of Docker's face are shown through the engine's seam, and no state is kept here.

mod connection;
mod convert;
mod event;
mod face;
mod latency;
mod restart;
mod server;
mod services;
mod status;
mod streams;
mod tenant;

pub use face::{Face, FaceOptions};
pub use server::{ServeError, serve};
