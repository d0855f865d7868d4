//! `GET` and `HEAD /_ping`

use axum::response::{IntoResponse, Response};
use http::header;

pub(super) async fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL.as_str(), "no-cache, no-store, must-revalidate"),
        ("Builder-Version", ""),
        ("Swarm", "inactive"),
    ];
    (headers, "OK").into_response()
}
