//! Docker-shaped policy over the core: container configs become specs, restart policies, logs, networks.
//! SEAM (stub) used by `docker` and `daemon`: every method below is what a face may call.

pub mod api;
pub mod config;

pub use config::{ContainerConfig, HostConfig};
