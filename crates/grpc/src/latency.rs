//! How long each call takes until its answer, for the metrics. Streams, and calls that wait as long as something runs, are left out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use berth_engine::api::Engine;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tower::Service;

/// Calls that end when something else does.
const WAITS: [&str; 2] =
    ["/containerd.services.tasks.v1.Tasks/Wait", "/containerd.services.sandbox.v1.Controller/Wait"];
const PACKAGES: &str = "containerd.services.";

/// `/package.Service/Method` -> the operation's name in the metrics, `tasks.v1.Tasks/Create`.
static OPERATIONS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(berth_containerd_api::DESCRIPTORS).unwrap_or_default();
    let mut operations = BTreeMap::new();
    for file in &set.file {
        for service in &file.service {
            let unary = service.method.iter().filter(|m| !m.client_streaming() && !m.server_streaming());
            for method in unary {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                let path = format!("/{name}");
                if let Some(short) = name.strip_prefix(PACKAGES).filter(|_| !WAITS.contains(&path.as_str())) {
                    operations.insert(path, short.to_owned());
                }
            }
        }
    }
    operations
});

/// The services, each call of them timed.
#[derive(Debug, Clone)]
pub(crate) struct Measured<S> {
    pub(crate) inner: S,
    pub(crate) engine: Arc<Engine>,
}

type Answer<R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

impl<S, Q, B> Service<http::Request<Q>> for Measured<S>
where
    S: Service<http::Request<Q>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let timer = OPERATIONS.get(request.uri().path()).map(|name| self.engine.begin_operation(name));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if let Some(timer) = timer {
                // A call that failed says so before its body; one that went well, after it.
                let status = answer.headers().get("grpc-status");
                timer.done(status.is_none_or(|status| status == "0"));
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_short_names_and_no_streams() {
        assert_eq!(OPERATIONS["/containerd.services.tasks.v1.Tasks/Create"], "tasks.v1.Tasks/Create");
        for left_out in ["events.v1.Events/Subscribe", "content.v1.Content/Write", "tasks.v1.Tasks/Wait"] {
            assert!(!OPERATIONS.contains_key(&format!("/{PACKAGES}{left_out}")), "{left_out}");
        }
        assert!(OPERATIONS.len() > 60, "{}", OPERATIONS.len());
    }
}
