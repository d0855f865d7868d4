//! A gRPC client of our own, for what Debian's `ctr` has no verb for; it speaks as containerd's Go client does.

use std::sync::atomic::{AtomicUsize, Ordering};

use berth_containerd_api::containerd::services::events::v1::events_client::EventsClient;
use berth_containerd_api::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use berth_containerd_api::containerd::services::streaming::v1::StreamInit;
use berth_containerd_api::containerd::services::streaming::v1::streaming_client::StreamingClient;
use berth_containerd_api::containerd::types::Envelope;
use berth_containerd_api::containerd::types::transfer::{Data, WindowUpdate};
use berth_testkit::Instance;
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// A connection, and the tenant it speaks for.
pub(super) struct Client {
    pub(super) channel: Channel,
    pub(super) tenant: &'static str,
}

/// Both directions of a stream.
pub(super) struct Stream {
    pub(super) outgoing: Option<mpsc::Sender<Any>>,
    pub(super) incoming: Streaming<Any>,
}

pub(super) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

pub(super) fn unpack<M: Message + Name + Default>(any: &Any) -> M {
    assert_eq!(any.type_url, M::full_name());
    M::decode(any.value.as_slice()).unwrap()
}

/// Runs a test's calls.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

impl Client {
    pub(super) async fn connect(instance: &Instance, tenant: &'static str) -> Self {
        let socket = instance.containerd_socket();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        // As much as HTTP/2 and Go's client allow a stream unasked; what is not read must not lie in buffers of ours.
        let endpoint = Endpoint::from_static("http://containerd").initial_stream_window_size(65_535);
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Self { channel, tenant }
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.tenant.parse().unwrap());
        request
    }

    /// Opens a stream and waits until it is registered.
    pub(super) async fn stream(&self, id: &str) -> Result<Stream, Status> {
        let (outgoing, receiver) = mpsc::channel(4);
        outgoing.send(pack(&StreamInit { id: id.to_owned() })).await.unwrap();
        let mut client = StreamingClient::new(self.channel.clone());
        let mut incoming = client.stream(self.request(ReceiverStream::new(receiver))).await?.into_inner();
        let first = incoming.message().await?.unwrap();
        assert_eq!(first.type_url, "google.protobuf.Empty");
        Ok(Stream { outgoing: Some(outgoing), incoming })
    }
}

impl Client {
    /// Follows all events, or those after a number.
    pub(super) async fn events(&self, after: Option<u64>) -> Streaming<Envelope> {
        let mut request = self.request(SubscribeRequest::default());
        if let Some(after) = after {
            request.metadata_mut().insert("berth-after-sequence", after.into());
        }
        EventsClient::new(self.channel.clone()).subscribe(request).await.unwrap().into_inner()
    }

    pub(super) async fn publish(&self, topic: &str) {
        let event = Some(Any { type_url: "test.Note".to_owned(), value: vec![7; 1000] });
        let request = self.request(PublishRequest { topic: topic.to_owned(), event });
        EventsClient::new(self.channel.clone()).publish(request).await.unwrap();
    }

    /// Topics of everything that has happened to this tenant, in order.
    pub(super) async fn topics(&self) -> Vec<String> {
        static ENDS: AtomicUsize = AtomicUsize::new(0);
        let mut events = self.events(Some(0)).await;
        let end = format!("/test/end/{}", ENDS.fetch_add(1, Ordering::Relaxed));
        self.publish(&end).await;
        let mut topics = Vec::new();
        loop {
            let event = events.message().await.unwrap().unwrap();
            if event.namespace == self.tenant {
                if event.topic == end {
                    return topics;
                }
                // Others' are those of earlier questions.
                topics.extend((!event.topic.starts_with("/test/end/")).then_some(event.topic));
            }
        }
    }
}

impl Stream {
    /// Sends bytes as the daemon allows, and closes. An error is what the daemon ended the stream with.
    pub(super) async fn send_all(mut self, bytes: Vec<u8>) -> Result<(), Status> {
        let outgoing = self.outgoing.take().unwrap();
        let (mut allowed, mut rest) = (0, bytes.as_slice());
        while !rest.is_empty() {
            if allowed == 0 {
                let Some(update) = self.incoming.message().await? else { return Ok(()) };
                allowed = usize::try_from(unpack::<WindowUpdate>(&update).update).unwrap();
            }
            let (now, later) = rest.split_at(rest.len().min(allowed).min(32 << 10));
            if outgoing.send(pack(&Data { data: now.to_vec() })).await.is_err() {
                break;
            }
            allowed -= now.len();
            rest = later;
        }
        drop(outgoing);
        // Until the daemon has taken all of it: hanging up earlier would take the rest back.
        while self.incoming.message().await?.is_some() {}
        Ok(())
    }

    /// Takes all the daemon sends; never gives it more than 64 KiB of room.
    pub(super) async fn receive_all(self) -> Vec<u8> {
        let (outgoing, mut incoming) = (self.outgoing.unwrap(), self.incoming);
        let (mut bytes, mut room) = (Vec::new(), 0_i64);
        loop {
            if room <= 0 {
                room += 64 << 10;
                // The last one may find nobody.
                outgoing.send(pack(&WindowUpdate { update: 64 << 10 })).await.unwrap_or(());
            }
            let Some(message) = incoming.message().await.unwrap() else { return bytes };
            let data: Data = unpack(&message);
            room -= i64::try_from(data.data.len()).unwrap();
            assert!(room >= 0, "more was sent than there is room for");
            bytes.extend(data.data);
        }
    }
}
