//! Serving: the unix socket, all services, reflection under both of its names, and health.

use std::io;
use std::time::Duration;

use berth_containerd_api::containerd::services as api;
use futures_util::stream::{self, Stream};
use tokio::net::UnixListener;
use tonic::transport::Server;

use crate::Face;
use crate::connection::Connection;
use crate::latency::Measured;

/// Largest message taken and given, as containerd has it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// After a failed accept (descriptors exhausted): the cause must have time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    #[error("cannot serve containerd's API")]
    Serve(#[source] tonic::transport::Error),
    #[error("the services' descriptors cannot be read")]
    Descriptors(#[source] tonic_reflection::server::Error),
}

/// A generated server with our limits.
macro_rules! service {
    ($server:ty, $face:expr) => {
        <$server>::new($face.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}

/// Serves until the listener breaks.
///
/// # Errors
/// When it breaks, or the descriptors that were built in are damaged.
pub async fn serve(listener: UnixListener, face: Face) -> Result<(), ServeError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(berth_containerd_api::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The empty name, which everybody asks for, is served from the start.
    let (_reporter, health) = tonic_health::server::health_reporter();
    let engine = std::sync::Arc::clone(&face.engine);
    let measured = tower::layer::layer_fn(move |inner| Measured { inner, engine: std::sync::Arc::clone(&engine) });
    let router = Server::builder()
        .layer(measured)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(ServeError::Descriptors)?)
        .add_service(reflection().build_v1alpha().map_err(ServeError::Descriptors)?)
        .add_service(service!(api::containers::v1::containers_server::ContainersServer<Face>, face))
        .add_service(service!(api::content::v1::content_server::ContentServer<Face>, face))
        .add_service(service!(api::diff::v1::diff_server::DiffServer<Face>, face))
        .add_service(service!(api::events::v1::events_server::EventsServer<Face>, face))
        .add_service(service!(api::images::v1::images_server::ImagesServer<Face>, face))
        .add_service(service!(api::introspection::v1::introspection_server::IntrospectionServer<Face>, face))
        .add_service(service!(api::leases::v1::leases_server::LeasesServer<Face>, face))
        .add_service(service!(api::mounts::v1::mounts_server::MountsServer<Face>, face))
        .add_service(service!(api::namespaces::v1::namespaces_server::NamespacesServer<Face>, face))
        .add_service(service!(api::sandbox::v1::controller_server::ControllerServer<Face>, face))
        .add_service(service!(api::sandbox::v1::store_server::StoreServer<Face>, face))
        .add_service(service!(api::snapshots::v1::snapshots_server::SnapshotsServer<Face>, face))
        .add_service(service!(api::tasks::v1::tasks_server::TasksServer<Face>, face))
        .add_service(service!(api::streaming::v1::streaming_server::StreamingServer<Face>, face))
        .add_service(service!(api::transfer::v1::transfer_server::TransferServer<Face>, face))
        .add_service(service!(api::version::v1::version_server::VersionServer<Face>, face));
    tokio::select! {
        served = router.serve_with_incoming(connections(listener)) => served.map_err(ServeError::Serve),
        () = face.clone().tell_collected() => Ok(()),
        () = face.monitor_restarts() => Ok(()),
    }
}

/// Without an end: an accept that fails is tried again.
fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await.and_then(|(stream, _)| Connection::new(stream)) {
                Ok(connection) => return Some((Ok(connection), listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection is not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}
