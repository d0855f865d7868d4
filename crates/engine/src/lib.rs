//! Docker-shaped policy over the core: container configs become specs, restart policies, logs, networks.
//!
//! Reading order: [`api`] and [`config`] (what faces see), `request` (checked wishes), `spec` (the pure way to the OCI spec), `lifecycle`
//! (one file per verb), `recovery` (every start of the daemon). What is absent: wire formats (faces), kernel work (the shim's runtime).

pub mod api;
pub mod config;
pub mod containerd;

mod attach;
mod caller;
mod container;
mod container_defaults;
mod detach_keys;
mod disk_usage;
mod engine;
mod error;
mod events;
mod exec;
mod explain;
mod faults;
mod files;
mod filters;
mod foreign;
mod host;
mod host_objects;
mod id_blocks;
mod images;
mod inspect;
mod lifecycle;
mod logs;
mod merge;
mod metrics;
mod names;
mod network_files;
mod paths;
mod ports;
mod record;
mod recovery;
mod registry;
mod request;
mod restart;
mod runtimes;
mod seccomp_cache;
mod shims;
mod spec;
mod stats;
mod store;
mod streams;
mod system;
mod top;
mod trace;
mod transfer;
mod volumes;
mod why;

pub use config::{ContainerConfig, HostConfig};
