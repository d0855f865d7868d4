//! Streams that clients opened for transfers (`Streaming.Stream`): registered under the client's name for them until a transfer takes one up.
//!
//! ```text
//! client                                        daemon
//! Stream: StreamInit { id }                 ->  registered; google.protobuf.Empty as the answer
//! Transfer { … stream: id … }               ->  takes it
//! binary, client sends:  Data               ->  WindowUpdate (how much more may come)
//! binary, daemon sends:  WindowUpdate       ->  Data, never more than was allowed
//! progress:              (nothing)          <-  Progress
//! credentials:           AuthResponse       <-> AuthRequest
//! ```
//! A stream whose client goes is forgotten; one that a transfer has ends with it, and with its error when it is refused. Lock: `open` is a leaf,
//! never held across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use berth_containerd_api::containerd::types::transfer::{AuthRequest, AuthResponse, Data, WindowUpdate};
use berth_core::Tenant;
use berth_engine::api::{ByteStream, EngineError};
use parking_lot::Mutex;
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

/// Streams of one tenant that no transfer has taken up.
const STREAMS_MAX: usize = 1024;
/// Messages on their way to a client.
const CHANNEL: usize = 16;
/// What a client may send before it hears of us again, in bytes.
const WINDOW: i32 = 256 << 10;
/// As containerd cuts its data.
const DATA_BYTES_MAX: usize = 32 << 10;
/// A client that is asked for credentials answers at once.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
const CHUNKS: usize = 4;

pub(crate) type Outgoing = mpsc::Receiver<Result<Any, Status>>;
type Key = (Tenant, String);

/// All that are open and not taken up.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<Key, (u64, ClientStream)>>,
    next: std::sync::atomic::AtomicU64,
}

/// Both directions of one.
#[derive(Debug)]
pub(crate) struct ClientStream {
    incoming: Streaming<Any>,
    outgoing: mpsc::Sender<Result<Any, Status>>,
}

/// Forgets a stream whose client has gone.
#[derive(Debug)]
pub(crate) struct Registered {
    streams: Arc<Streams>,
    key: Key,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        if open.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.key);
        }
    }
}

pub(crate) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// # Errors
/// `InvalidArgument` for another message.
pub(crate) fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, Status> {
    let wrong = || Status::invalid_argument(format!("expected a {}, got {:?}", M::full_name(), any.type_url));
    if any.type_url.rsplit('/').next() != Some(M::full_name().as_str()) {
        return Err(wrong());
    }
    M::decode(any.value.as_slice()).map_err(|_| wrong())
}

impl Streams {
    /// Keeps a stream for a transfer to come; the first message out is the acknowledgement.
    ///
    /// # Errors
    /// `AlreadyExists`; `ResourceExhausted`.
    pub(crate) fn register(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
        incoming: Streaming<Any>,
    ) -> Result<(Registered, Outgoing), Status> {
        if id.is_empty() {
            return Err(Status::invalid_argument("a stream needs an id"));
        }
        let key = (tenant.clone(), id.to_owned());
        let (outgoing, receiver) = mpsc::channel(CHANNEL);
        let empty = Any { type_url: "google.protobuf.Empty".to_owned(), value: Vec::new() };
        drop(outgoing.try_send(Ok(empty)));
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut open = self.open.lock();
        if open.contains_key(&key) {
            return Err(Status::already_exists(format!("stream {id:?}: already exists")));
        }
        if open.keys().filter(|(owner, _)| owner == tenant).count() >= STREAMS_MAX {
            return Err(Status::resource_exhausted(format!("{STREAMS_MAX} streams wait for their transfer")));
        }
        open.insert(key.clone(), (number, ClientStream { incoming, outgoing }));
        Ok((Registered { streams: Arc::clone(self), key, number }, receiver))
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn take(&self, tenant: &Tenant, id: &str) -> Result<ClientStream, Status> {
        let taken = self.open.lock().remove(&(tenant.clone(), id.to_owned()));
        taken.map(|(_, stream)| stream).ok_or_else(|| Status::not_found(format!("stream {id:?}: not found")))
    }

    /// Ends a stream that no transfer has taken up with the reason why none will; one that is not there needs none.
    pub(crate) fn fail(&self, tenant: &Tenant, id: &str, status: &Status) {
        if let Ok(stream) = self.take(tenant, id) {
            stream.fail(status);
        }
    }
}

impl ClientStream {
    /// What the client sends, until it closes its direction. Whoever stops reading before that says why by the other part: the client's stream ends
    /// with it, or without a reason when that is dropped.
    pub(crate) fn receive(mut self) -> (ByteStream, oneshot::Sender<Status>) {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let (refusal, refused) = oneshot::channel();
        tokio::spawn(async move {
            let has_closed = tokio::select! {
                () = sender.closed() => false,
                has_closed = receive(&mut self, &sender) => has_closed,
            };
            if !has_closed && let Ok(status) = refused.await {
                self.fail(&status);
            }
        });
        (receiver, refusal)
    }

    /// Ends the stream with an error. A client that reads nothing learns it by the transfer's answer.
    pub(crate) fn fail(self, status: &Status) {
        drop(self.outgoing.try_send(Err(status.clone())));
    }

    /// Sends bytes as the client allows. It ends well when the source does.
    ///
    /// # Errors
    /// The source's; `Aborted` when the client goes first.
    pub(crate) async fn send(mut self, source: ByteStream) -> Result<(), Status> {
        let sent = self.send_all(source).await;
        if let Err(status) = &sent {
            self.fail(status);
        }
        sent
    }

    async fn send_all(&mut self, mut source: ByteStream) -> Result<(), Status> {
        let mut allowed: usize = 0;
        while let Some(chunk) = source.recv().await {
            let chunk = chunk.map_err(crate::status::engine_status)?;
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                if allowed == 0 {
                    allowed = self.window().await?;
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(allowed).min(DATA_BYTES_MAX));
                self.say(&Data { data: now.to_vec() }).await?;
                allowed -= now.len();
                rest = later;
            }
        }
        Ok(())
    }

    async fn window(&mut self) -> Result<usize, Status> {
        let message = self.incoming.message().await?.ok_or_else(gone)?;
        let update: WindowUpdate = unpack(&message)?;
        usize::try_from(update.update).map_err(|_| Status::invalid_argument("a window cannot shrink"))
    }

    /// Asks the client who it is for a registry.
    ///
    /// # Errors
    /// `DeadlineExceeded` when it does not say; `Aborted` when it has gone.
    pub(crate) async fn ask(&mut self, host: &str, reference: &str) -> Result<AuthResponse, Status> {
        let request = AuthRequest { host: host.to_owned(), reference: reference.to_owned(), ..Default::default() };
        self.say(&request).await?;
        let answer = tokio::time::timeout(ANSWER_WAIT, self.incoming.message()).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("the client gives no credentials"))??;
        unpack(&answer.ok_or_else(gone)?)
    }

    /// # Errors
    /// `Aborted` when the client has gone.
    pub(crate) async fn say<M: Message + Name>(&self, message: &M) -> Result<(), Status> {
        self.outgoing.send(Ok(pack(message))).await.map_err(|_| gone())
    }
}

fn gone() -> Status {
    Status::aborted("the client's stream has ended")
}

/// Until the client closes (then `true`), or nobody reads any more.
async fn receive(stream: &mut ClientStream, sender: &mpsc::Sender<Result<Vec<u8>, EngineError>>) -> bool {
    let mut open: i32 = 0;
    loop {
        if open < WINDOW / 2 {
            let update = WINDOW - open;
            // A client that has sent everything may not listen any more.
            drop(stream.say(&WindowUpdate { update }).await);
            open = WINDOW;
        }
        let next = match stream.incoming.message().await {
            Ok(Some(any)) => unpack::<Data>(&any),
            Ok(None) => return true,
            Err(status) => Err(status),
        };
        let item = match next {
            Ok(data) => {
                open = open.saturating_sub(i32::try_from(data.data.len()).unwrap_or(i32::MAX));
                Ok(data.data)
            }
            Err(status) => Err(EngineError::invalid(format!("the client's stream broke: {}", status.message()))),
        };
        let is_end = item.is_err();
        if sender.send(item).await.is_err() {
            return false;
        }
        if is_end {
            return true;
        }
    }
}
