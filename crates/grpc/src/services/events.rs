//! `Events`: the one log, as containerd's clients subscribe to it.
//!
//! Beyond the standard: the answer's header `berth-sequence` is the number of the newest event at that moment, and a request may name a
//! number in `berth-after-sequence` to get everything after it first. A subscriber that falls too far behind gets the error
//! RESOURCE_EXHAUSTED with the number to resume after, in words and in the trailer `berth-after-sequence`; nobody else waits for it.

use berth_containerd_api::containerd::services::events::v1::events_server::Events;
use berth_containerd_api::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use berth_containerd_api::containerd::types::Envelope;
use berth_core::events::{Envelope as Kept, Origin, Overrun, Subscription};
use berth_core::filter::Filters;
use berth_core::objects::AnyValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::{Answer, Answers, filters};
use crate::Face;
use crate::convert::any_from_wire;
use crate::event::{EnvelopeFields, envelopes};
use crate::tenant;

const AFTER: &str = "berth-after-sequence";
const NEWEST: &str = "berth-sequence";
/// Envelopes between us and a connection; the log's own backlog comes before.
const CHANNEL: usize = 64;

#[tonic::async_trait]
impl Events for Face {
    async fn publish(&self, request: Request<PublishRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let event = any_from_wire(request.event.unwrap_or_default());
        self.take(tenant.as_str(), &request.topic, event)?;
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Answer<()> {
        let envelope = request.into_inner().envelope.unwrap_or_default();
        let event = any_from_wire(envelope.event.unwrap_or_default());
        self.take(&envelope.namespace, &envelope.topic, event)?;
        Ok(Response::new(()))
    }

    type SubscribeStream = Answers<Envelope>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        let after = request.metadata().get(AFTER).map(|text| {
            let number = text.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            number.ok_or_else(|| Status::invalid_argument(format!("{AFTER} must be a number")))
        });
        let origin = after.transpose()?.map_or(Origin::Now, Origin::After);
        let filters = filters(&request.into_inner().filters)?;
        let log = self.engine.event_log();
        let newest = log.last_sequence();
        let (sender, receiver) = mpsc::channel(CHANNEL);
        tokio::spawn(pump(log.subscribe(origin), filters, sender));
        let mut response: Response<Self::SubscribeStream> = Response::new(Box::pin(ReceiverStream::new(receiver)));
        response.metadata_mut().insert(NEWEST, MetadataValue::from(newest));
        Ok(response)
    }
}

impl Face {
    fn take(&self, namespace: &str, topic: &str, event: AnyValue) -> Result<(), Status> {
        let is_topic = topic.len() > 1 && topic.starts_with('/') && topic.len() <= 512;
        if !is_topic {
            return Err(Status::invalid_argument(format!("topic {topic:?} is not valid: it begins with '/'")));
        }
        self.publish_envelope(Kept { namespace: namespace.to_owned(), topic: topic.to_owned(), event }, None);
        Ok(())
    }
}

/// Until the client hangs up or falls behind.
async fn pump(mut subscription: Subscription, filters: Filters, sender: mpsc::Sender<Result<Envelope, Status>>) {
    loop {
        let next = tokio::select! {
            next = subscription.next() => next,
            () = sender.closed() => return,
        };
        let event = match next {
            Ok(event) => event,
            Err(overrun) => {
                // The client may be gone; then nobody needs to know.
                drop(sender.send(Err(overrun_status(overrun))).await);
                return;
            }
        };
        for envelope in envelopes(&event) {
            if filters.matches(&EnvelopeFields(&envelope)) && sender.send(Ok(envelope)).await.is_err() {
                return;
            }
        }
    }
}

fn overrun_status(overrun: Overrun) -> Status {
    let mut status = Status::resource_exhausted(overrun.to_string());
    status.metadata_mut().insert(AFTER, MetadataValue::from(overrun.after_sequence));
    status
}
