//! `Streaming`: a client opens the streams that its transfer will name; see [`crate::streams`].

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use berth_containerd_api::containerd::services::streaming::v1::StreamInit;
use berth_containerd_api::containerd::services::streaming::v1::streaming_server::Streaming;
use prost_types::Any;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Answer, Answers};
use crate::streams::{Outgoing, Registered, unpack};
use crate::{Face, tenant};

/// A client names its stream at once.
const INIT_WAIT: Duration = Duration::from_secs(30);

/// What goes to the client; the registration goes with it.
struct Open {
    outgoing: Outgoing,
    _registered: Registered,
}

impl Stream for Open {
    type Item = Result<Any, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outgoing.poll_recv(context)
    }
}

#[tonic::async_trait]
impl Streaming for Face {
    type StreamStream = Answers<Any>;

    async fn stream(&self, request: Request<tonic::Streaming<Any>>) -> Answer<Self::StreamStream> {
        let tenant = tenant::of(&request)?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(INIT_WAIT, incoming.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the stream was not named"))??;
        let init: StreamInit = unpack(&first.ok_or_else(|| Status::aborted("the stream was not named"))?)?;
        let (registered, outgoing) = self.streams.register(&tenant, &init.id, incoming)?;
        Ok(Response::new(Box::pin(Open { outgoing, _registered: registered })))
    }
}
