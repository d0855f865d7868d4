//! Wire code of shim v2: messages and services of ttrpc, and the tables between them and our own types.
//!
//! What it is not: policy. Wire types stop at the edges (`shim`, `shim-client`); nothing else uses this crate.

pub mod attach;
pub mod call;
pub mod choice;
pub mod code;
pub mod instant;
pub mod task;

pub use containerd_shim_protos::bootstrap_api as bootstrap;
/// cgroup v1 metrics, type URL `io.containerd.cgroups.v1.Metrics`.
pub use containerd_shim_protos::cgroups::metrics as cgroup_v1;
/// cgroup v2 metrics, type URL `io.containerd.cgroups.v2.Metrics`.
pub use containerd_shim_protos::cgroups_v2::metrics as cgroup_v2;
/// Options of `io.containerd.runc.v2`, type URL `containerd.runc.v1.Options`.
pub use containerd_shim_protos::shim::oci as runc_options;
pub use containerd_shim_protos::topics;
pub use containerd_shim_protos::types::introspection;
pub use {protobuf, ttrpc};

/// Task events (`containerd.events.*`) and the service that takes them.
pub mod events {
    pub use containerd_shim_protos::events::task::*;
    pub use containerd_shim_protos::shim::event::Envelope;
    pub use containerd_shim_protos::shim::events::ForwardRequest;
    pub use containerd_shim_protos::shim_async::{Events, EventsClient, create_events};
}

/// The service of shims that run a sandbox, `containerd.runtime.sandbox.v1.Sandbox`.
pub mod sandbox {
    pub use containerd_shim_protos::events::sandbox as event;
    pub use containerd_shim_protos::sandbox_api::*;
    pub use containerd_shim_protos::sandbox_async::{Sandbox, create_sandbox};
    pub use containerd_shim_protos::types::{mount::Mount, platform::Platform};

    /// Full name of the ttrpc service.
    pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
}

/// Packs a message under the type URL `package.Name`. The package is given by hand: asking the generated code for it would
/// link the descriptors of every message into the shim.
pub fn pack<M: protobuf::Message>(package: &str, message: &M) -> protobuf::well_known_types::any::Any {
    pack_as(&format!("{package}.{}", M::NAME), message.write_to_bytes().unwrap_or_default())
}

/// Packs bytes that are already encoded (JSON documents travel as `types.containerd.io/...`).
pub fn pack_as(type_url: &str, value: Vec<u8>) -> protobuf::well_known_types::any::Any {
    protobuf::well_known_types::any::Any { type_url: type_url.to_owned(), value, ..Default::default() }
}
