//! The sockets on which shims tell what happened (`Events.Forward` over ttrpc).
//!
//! ```text
//! shim -> <state>/events.sock, <state>/containerd.sock.ttrpc: Forward { namespace, topic, event }
//! ```
//! Events are handed on in the order in which they came over one connection. A shim that finds nobody here (no daemon runs) gives up after
//! some tries; exits are learnt from the shim itself all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_proto::events::{Events, ForwardRequest, create_events};
use berth_proto::ttrpc;
use berth_proto::ttrpc::r#async::{Server, TtrpcContext};
use berth_types::{Classify, ErrorClass};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::events::Envelope;
use crate::objects::AnyValue;

/// Events under way; the shim waits for its answer, so a full queue slows nobody else.
const QUEUE: usize = 64;

#[derive(Debug, thiserror::Error)]
#[error("cannot take events of shims at {}: {detail}", .path.display())]
pub struct ShimEventsError {
    pub path: PathBuf,
    /// The transport's own words.
    pub detail: String,
}

impl Classify for ShimEventsError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Internal
    }
}

/// Serves as long as it is kept.
pub struct ShimEvents {
    /// Never locked: the mutex only makes it shareable.
    _servers: Mutex<Vec<Server>>,
}

impl std::fmt::Debug for ShimEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShimEvents")
    }
}

struct Receiver {
    events: mpsc::Sender<Envelope>,
}

#[async_trait::async_trait]
impl Events for Receiver {
    async fn forward(
        &self,
        _context: &TtrpcContext,
        request: ForwardRequest,
    ) -> ttrpc::Result<berth_proto::task::Empty> {
        let Some(wire) = request.envelope.into_option() else { return Ok(berth_proto::task::Empty::default()) };
        let event = wire.event.into_option().unwrap_or_default();
        let envelope = Envelope {
            namespace: wire.namespace,
            topic: wire.topic,
            event: AnyValue { type_url: event.type_url, value: event.value },
        };
        if self.events.send(envelope).await.is_err() {
            tracing::debug!("nobody takes events of shims any more");
        }
        Ok(berth_proto::task::Empty::default())
    }
}

impl ShimEvents {
    /// Binds the sockets (mode 0600, in place of an earlier daemon's) and serves them; events come out of the channel.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub async fn start(paths: &[&Path]) -> Result<(Self, mpsc::Receiver<Envelope>), ShimEventsError> {
        let (events, receiver) = mpsc::channel(QUEUE);
        let mut servers = Vec::new();
        for path in paths {
            servers.push(serve(path, events.clone()).await?);
        }
        Ok((Self { _servers: Mutex::new(servers) }, receiver))
    }
}

async fn serve(path: &Path, events: mpsc::Sender<Envelope>) -> Result<Server, ShimEventsError> {
    let error = |detail: String| ShimEventsError { path: path.to_owned(), detail };
    match std::fs::remove_file(path) {
        Err(failed) if failed.kind() != std::io::ErrorKind::NotFound => return Err(error(failed.to_string())),
        _ => {}
    }
    let service: Arc<dyn Events + Send + Sync> = Arc::new(Receiver { events });
    let server = Server::new().bind(&format!("unix://{}", path.display())).map_err(|e| error(e.to_string()))?;
    let mut server = server.register_service(create_events(service));
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600)).map_err(|e| error(e.to_string()))?;
    server.start().await.map_err(|e| error(e.to_string()))?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::events::TaskOOM;

    /// S-052, S-120: events come through the real sockets, in order.
    #[tokio::test(flavor = "current_thread")]
    async fn s052_events_over_the_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["a.sock", "b.sock"].map(|name| dir.path().join(name));
        let (_listener, mut events) = ShimEvents::start(&[&paths[0], &paths[1]]).await.unwrap();
        for path in &paths {
            let stream = tokio::net::UnixStream::connect(path).await.unwrap();
            let socket = ttrpc::r#async::transport::Socket::from(stream);
            let client = berth_proto::events::EventsClient::new(ttrpc::r#async::Client::new(socket));
            for topic in ["/tasks/oom", "/tasks/exit"] {
                let event = TaskOOM { container_id: "c1".to_owned(), ..Default::default() };
                let envelope = berth_proto::events::Envelope {
                    namespace: "default".to_owned(),
                    topic: topic.to_owned(),
                    event: berth_proto::protobuf::MessageField::some(berth_proto::pack("containerd.events", &event)),
                    ..Default::default()
                };
                let request = ForwardRequest {
                    envelope: berth_proto::protobuf::MessageField::some(envelope),
                    ..Default::default()
                };
                client.forward(ttrpc::context::with_timeout(5_000_000_000), &request).await.unwrap();
                let got = events.recv().await.unwrap();
                assert_eq!((got.topic.as_str(), got.event.type_url.as_str()), (topic, "containerd.events.TaskOOM"));
            }
        }
        assert!(events.try_recv().is_err());
    }
}
