//! The services, one file each. A service holds the face and nothing else.

pub(crate) mod containers;
pub(crate) mod content;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod images;
pub(crate) mod introspection;
pub(crate) mod leases;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod sandbox_controller;
pub(crate) mod sandbox_store;
pub(crate) mod snapshots;
pub(crate) mod streaming;
pub(crate) mod tasks;
pub(crate) mod transfer;
pub(crate) mod version;

/// A stream of answers.
pub(crate) type Answers<T> =
    std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, tonic::Status>> + Send + 'static>>;

pub(crate) type Answer<T> = Result<tonic::Response<T>, tonic::Status>;

/// Parses what a client wants of a list.
pub(crate) fn filters(texts: &[String]) -> Result<berth_core::filter::Filters, tonic::Status> {
    use crate::status::IntoStatus as _;
    berth_core::filter::Filters::parse(texts).map_err(|error| error.into_status())
}

/// The paths of a field mask; without one, none.
pub(crate) fn paths(mask: Option<prost_types::FieldMask>) -> Vec<String> {
    mask.map(|mask| mask.paths).unwrap_or_default()
}
