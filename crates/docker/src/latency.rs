//! How long each operation takes until its answer, for the metrics. Streams that last as long as somebody listens are left out.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::state::Face;

/// Names of operations, by method and route.
const OPERATIONS: [(&str, &str, &str); 22] = [
    ("POST", "/containers/create", "container.create"),
    ("POST", "/containers/{id}/start", "container.start"),
    ("POST", "/containers/{id}/stop", "container.stop"),
    ("POST", "/containers/{id}/restart", "container.restart"),
    ("POST", "/containers/{id}/kill", "container.kill"),
    ("POST", "/containers/{id}/pause", "container.pause"),
    ("POST", "/containers/{id}/unpause", "container.unpause"),
    ("POST", "/containers/{id}/update", "container.update"),
    ("POST", "/containers/prune", "container.prune"),
    ("DELETE", "/containers/{id}", "container.remove"),
    ("GET", "/containers/json", "container.list"),
    ("GET", "/containers/{id}/json", "container.inspect"),
    ("PUT", "/containers/{id}/archive", "container.copy-in"),
    ("POST", "/containers/{id}/exec", "exec.create"),
    ("POST", "/exec/{id}/start", "exec.start"),
    ("GET", "/images/json", "image.list"),
    ("POST", "/images/load", "image.load"),
    ("POST", "/images/create", "image.pull"),
    ("POST", "/images/prune", "image.prune"),
    ("DELETE", "/images/{*rest}", "image.remove"),
    ("POST", "/commit", "container.commit"),
    ("GET", "/info", "system.info"),
];

fn operation(method: &str, route: &str) -> Option<&'static str> {
    OPERATIONS.iter().find(|(m, r, _)| *m == method && *r == route).map(|(_, _, name)| *name)
}

pub(crate) async fn measure(State(face): State<Face>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let Some(operation) = route.and_then(|route| operation(request.method().as_str(), route.as_str())) else {
        return next.run(request).await;
    };
    let timer = face.engine.begin_operation(operation);
    let response = next.run(request).await;
    timer.done(!response.status().is_client_error() && !response.status().is_server_error());
    response
}
