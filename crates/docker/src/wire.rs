//! Docker's documents: from the wire into the engine's types, and back.

pub(crate) mod create_body;
pub(crate) mod event;
pub(crate) mod filters;
pub(crate) mod host_config;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod summary;
pub(crate) mod tolerant;
