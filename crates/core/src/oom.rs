//! The socket on which shims tell of processes killed for memory while their container lives on (`Events.Forward` over ttrpc).
//!
//! ```text
//! shim -> <state>/events.sock: Forward { topic /tasks/oom, event TaskOOM { container_id } }
//! ```
//! Every other event is taken and dropped: what else happens is known from the calls that are kept open. A shim that finds nobody here
//! (no daemon runs) gives up after some tries; the counter of the control group is read at the exit all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_proto::events::{Events, ForwardRequest, TaskOOM, create_events};
use berth_proto::protobuf::Message as _;
use berth_proto::ttrpc;
use berth_proto::ttrpc::r#async::{Server, TtrpcContext};
use berth_types::{Classify, ContainerId, ErrorClass};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// Reports under way; the shim waits for its answer, so a full queue slows nobody else.
const QUEUE: usize = 64;

#[derive(Debug, thiserror::Error)]
#[error("cannot take events of shims at {}: {detail}", .path.display())]
pub struct OomError {
    pub path: PathBuf,
    /// The transport's own words.
    pub detail: String,
}

impl Classify for OomError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Internal
    }
}

/// Serves as long as it is kept.
pub struct OomListener {
    /// Never locked: the mutex only makes it shareable.
    _server: Mutex<Server>,
}

impl std::fmt::Debug for OomListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OomListener")
    }
}

struct Receiver {
    reports: mpsc::Sender<ContainerId>,
}

#[async_trait::async_trait]
impl Events for Receiver {
    async fn forward(
        &self,
        _context: &TtrpcContext,
        request: ForwardRequest,
    ) -> ttrpc::Result<berth_proto::task::Empty> {
        let id = request.envelope.as_ref().and_then(|envelope| killed(&envelope.topic, &envelope.event.value));
        if let Some(id) = id
            && self.reports.send(id).await.is_err()
        {
            tracing::debug!("nobody takes reports of processes killed for memory any more");
        }
        Ok(berth_proto::task::Empty::default())
    }
}

/// The container an event tells of.
fn killed(topic: &str, event: &[u8]) -> Option<ContainerId> {
    if topic != berth_proto::topics::TASK_OOM_EVENT_TOPIC {
        return None;
    }
    TaskOOM::parse_from_bytes(event).ok()?.container_id.parse().ok()
}

impl OomListener {
    /// Binds the socket (mode 0600, in place of an earlier daemon's) and serves it; ids of containers come out of the channel.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn start(path: &Path) -> Result<(Self, mpsc::Receiver<ContainerId>), OomError> {
        let error = |detail: String| OomError { path: path.to_owned(), detail };
        match std::fs::remove_file(path) {
            Err(failed) if failed.kind() != std::io::ErrorKind::NotFound => return Err(error(failed.to_string())),
            _ => {}
        }
        let (reports, receiver) = mpsc::channel(QUEUE);
        let service: Arc<dyn Events + Send + Sync> = Arc::new(Receiver { reports });
        let server = Server::new().bind(&format!("unix://{}", path.display())).map_err(|e| error(e.to_string()))?;
        let mut server = server.register_service(create_events(service));
        rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600)).map_err(|e| error(e.to_string()))?;
        server.start().await.map_err(|e| error(e.to_string()))?;
        Ok((Self { _server: Mutex::new(server) }, receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-052: a report comes through the real socket, and only reports of this kind.
    #[tokio::test(flavor = "current_thread")]
    async fn s052_oom_report_over_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.sock");
        let (_listener, mut reports) = OomListener::start(&path).await.unwrap();
        let stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let socket = ttrpc::r#async::transport::Socket::from(stream);
        let client = berth_proto::events::EventsClient::new(ttrpc::r#async::Client::new(socket));
        for topic in ["/tasks/exit", berth_proto::topics::TASK_OOM_EVENT_TOPIC] {
            let event = TaskOOM { container_id: "c1".to_owned(), ..Default::default() };
            let envelope = berth_proto::events::Envelope {
                topic: topic.to_owned(),
                event: berth_proto::protobuf::MessageField::some(berth_proto::pack("containerd.events", &event)),
                ..Default::default()
            };
            let request =
                ForwardRequest { envelope: berth_proto::protobuf::MessageField::some(envelope), ..Default::default() };
            client.forward(ttrpc::context::with_timeout(5_000_000_000), &request).await.unwrap();
        }
        assert_eq!(reports.recv().await.unwrap().as_str(), "c1");
        assert!(reports.try_recv().is_err());
    }
}
