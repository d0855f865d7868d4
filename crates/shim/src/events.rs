//! Telling the engine what happened, by `Events.Forward` over ttrpc: in order, bounded, retried, and never in the way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_proto::events::{self, Envelope, ForwardRequest};
use berth_proto::protobuf::{Message, MessageField};
use berth_proto::ttrpc::r#async::Client;
use berth_proto::ttrpc::r#async::transport::Socket;
use berth_proto::{call, instant, pack};
use berth_types::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::log;

/// Events kept for an engine that is away; with more, the newest are lost and counted in the log.
const QUEUE_MAX: usize = 1024;
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const PACKAGE: &str = "containerd.events";

/// Which events the engine wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All that shim v2 demands.
    All,
    /// Our own daemon follows everything else by its open calls.
    OutOfMemory,
}

#[derive(Debug)]
pub(crate) struct Publisher {
    address: Option<String>,
    namespace: String,
    selection: Selection,
    queue: Mutex<Queue>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Envelope>,
    is_sending: bool,
}

impl Publisher {
    pub(crate) fn new(address: Option<String>, namespace: String, selection: Selection) -> Arc<Self> {
        let address = address.map(|text| text.strip_prefix("unix://").unwrap_or(&text).to_owned());
        Arc::new(Self { address, namespace, selection, queue: Mutex::default(), emptied: Notify::new() })
    }

    pub(crate) fn created(self: &Arc<Self>, event: &events::TaskCreate) {
        self.publish("/tasks/create", event);
    }

    pub(crate) fn started(self: &Arc<Self>, container_id: String, pid: u32) {
        self.publish("/tasks/start", &events::TaskStart { container_id, pid, ..Default::default() });
    }

    pub(crate) fn exec_added(self: &Arc<Self>, container_id: String, exec_id: String) {
        self.publish("/tasks/exec-added", &events::TaskExecAdded { container_id, exec_id, ..Default::default() });
    }

    pub(crate) fn exec_started(self: &Arc<Self>, container_id: String, exec_id: String, pid: u32) {
        let event = events::TaskExecStarted { container_id, exec_id, pid, ..Default::default() };
        self.publish("/tasks/exec-started", &event);
    }

    pub(crate) fn exited(self: &Arc<Self>, event: &events::TaskExit) {
        self.publish("/tasks/exit", event);
    }

    pub(crate) fn deleted(self: &Arc<Self>, event: &events::TaskDelete) {
        self.publish("/tasks/delete", event);
    }

    pub(crate) fn paused(self: &Arc<Self>, container_id: String) {
        self.publish("/tasks/paused", &events::TaskPaused { container_id, ..Default::default() });
    }

    pub(crate) fn resumed(self: &Arc<Self>, container_id: String) {
        self.publish("/tasks/resumed", &events::TaskResumed { container_id, ..Default::default() });
    }

    pub(crate) fn out_of_memory(self: &Arc<Self>, container_id: String) {
        self.enqueue("/tasks/oom", &events::TaskOOM { container_id, ..Default::default() });
    }

    /// Returns when nothing waits to be sent any more.
    pub(crate) async fn delivered(&self) {
        loop {
            let emptied = self.emptied.notified();
            if !self.lock().is_sending {
                return;
            }
            emptied.await;
        }
    }

    fn publish<M: Message>(self: &Arc<Self>, topic: &str, event: &M) {
        if self.selection == Selection::All {
            self.enqueue(topic, event);
        }
    }

    fn enqueue<M: Message>(self: &Arc<Self>, topic: &str, event: &M) {
        let Some(address) = self.address.clone() else { return };
        let envelope = Envelope {
            timestamp: instant::into_wire(Timestamp::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(pack(PACKAGE, event)),
            ..Default::default()
        };
        let mut queue = self.lock();
        if queue.waiting.len() >= QUEUE_MAX {
            log::error(&format!("event {topic} is lost: the engine takes none and {QUEUE_MAX} wait"));
            return;
        }
        queue.waiting.push_back(envelope);
        if !queue.is_sending {
            queue.is_sending = true;
            tokio::spawn(Arc::clone(self).send_waiting(address));
        }
    }

    /// The job that exists only while something waits.
    async fn send_waiting(self: Arc<Self>, address: String) {
        let mut client = None;
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.waiting.front().cloned();
                if next.is_none() {
                    queue.waiting = VecDeque::new();
                    queue.is_sending = false;
                }
                next
            };
            let Some(envelope) = next else { break };
            let topic = envelope.topic.clone();
            let request = ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
            if !send(&address, &mut client, &request).await {
                log::error(&format!("event {topic} is lost: the engine cannot be reached at {address}"));
            }
            self.lock().waiting.pop_front();
        }
        self.emptied.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(address: &str, client: &mut Option<Client>, request: &ForwardRequest) -> bool {
    let mut pause = FIRST_PAUSE;
    for _ in 0..TRIES {
        let connected = match client.take() {
            Some(connected) => Some(connected),
            None => UnixStream::connect(address).await.ok().map(|stream| Client::new(Socket::from(stream))),
        };
        if let Some(connected) = connected {
            let forward = call::unary(&connected, SERVICE, "Forward", request);
            let answer: Result<berth_proto::task::Empty, _> = match tokio::time::timeout(CALL_TIMEOUT, forward).await {
                Ok(Ok(answer)) => Ok(answer),
                other => Err(other),
            };
            if answer.is_ok() {
                *client = Some(connected);
                return true;
            }
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    false
}
