//! The channel to an external snapshotter, and a thread that does its I/O.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use berth_containerd_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_snapshot::SnapshotError;
use berth_types::ErrorClass;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::{ProxySettings, Result};

const CONNECT: Duration = Duration::from_secs(5);
/// A lazy snapshotter may fetch an index before it answers.
const ANSWER: Duration = Duration::from_secs(120);

/// Of a server's own words.
const MESSAGE_CHARS_MAX: usize = 1000;

pub(crate) type Client = SnapshotsClient<Channel>;

#[derive(Debug)]
pub(crate) struct Connection {
    settings: ProxySettings,
    runtime: tokio::runtime::Handle,
    client: Client,
    /// Dropped: the thread ends.
    _alive: tokio::sync::oneshot::Sender<()>,
}

impl Connection {
    pub(crate) fn new(settings: ProxySettings) -> Result<Self> {
        let failed = |source| SnapshotError::io("start the thread for", &settings.address, source);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::Builder::new()
            .name(format!("snapshotter {}", settings.name).chars().take(15).collect())
            .stack_size(512 << 10)
            .spawn(move || drop(runtime.block_on(ended)))
            .map_err(failed)?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", settings.address.display()))
            .map_err(|error| setting(&settings, &error))?
            .connect_timeout(CONNECT);
        let channel = {
            let _inside = handle.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { client: Client::new(channel), settings, runtime: handle, _alive: alive })
    }

    pub(crate) fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    /// One call, from any thread; `operation` and `key` are for the message.
    pub(crate) fn call<T, F>(&self, operation: &'static str, key: &str, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = std::result::Result<T, Status>> + Send + 'static,
    {
        let (answer, answered) = sync_channel(1);
        let future = call(self.client.clone());
        self.runtime.spawn(async move {
            let result = tokio::time::timeout(ANSWER, future).await;
            // Whoever asked waits.
            answer.send(result.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")))).ok();
        });
        let result = answered.recv().unwrap_or_else(|_| Err(Status::unavailable("its thread ended")));
        result.map_err(|status| self.error(operation, key, &status))
    }

    /// A request with the headers every call has.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(namespace) = self.settings.namespace.parse() {
            request.metadata_mut().insert("containerd-namespace", namespace);
        }
        request
    }

    fn error(&self, operation: &'static str, key: &str, status: &Status) -> SnapshotError {
        let snapshotter = self.settings.name.clone();
        if let Some(source) = std::error::Error::source(status) {
            let why = berth_types::report(source);
            return SnapshotError::Unreachable { snapshotter, address: self.settings.address.clone(), why };
        }
        SnapshotError::Remote {
            snapshotter,
            operation,
            key: key.chars().take(200).collect(),
            class: class(status.code()),
            message: status.message().chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect(),
        }
    }
}

fn setting(settings: &ProxySettings, error: &tonic::transport::Error) -> SnapshotError {
    SnapshotError::Setting { snapshotter: settings.name.clone(), what: berth_types::report(error) }
}

/// What the answer holds, without its headers.
pub(crate) fn body<T>(response: Response<T>) -> T {
    response.into_inner()
}

fn class(code: Code) -> ErrorClass {
    match code {
        Code::NotFound => ErrorClass::NotFound,
        Code::AlreadyExists => ErrorClass::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorClass::InvalidArgument,
        Code::FailedPrecondition => ErrorClass::FailedPrecondition,
        Code::PermissionDenied | Code::Unauthenticated => ErrorClass::PermissionDenied,
        Code::ResourceExhausted => ErrorClass::ResourceExhausted,
        Code::Unavailable => ErrorClass::Unavailable,
        Code::DeadlineExceeded => ErrorClass::DeadlineExceeded,
        Code::Unimplemented => ErrorClass::Unimplemented,
        Code::Aborted | Code::Cancelled => ErrorClass::Aborted,
        Code::DataLoss => ErrorClass::DataLoss,
        Code::Ok | Code::Unknown | Code::Internal => ErrorClass::Internal,
    }
}
