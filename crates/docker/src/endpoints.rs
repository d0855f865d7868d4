//! The routes, and who answers each.

mod berth;
mod container;
mod exec;
mod image;
mod registry;
mod system;
mod unsupported;
mod volume;

use axum::Router;

use crate::state::Face;

pub(crate) fn routes() -> Router<Face> {
    Router::new()
        .merge(berth::routes())
        .merge(container::routes())
        .merge(exec::routes())
        .merge(image::routes())
        .merge(registry::routes())
        .merge(system::routes())
        .merge(volume::routes())
        .merge(unsupported::routes())
        .fallback(unsupported::no_such_page)
        .method_not_allowed_fallback(unsupported::no_such_page)
}

pub(crate) use volume::into_wire as volume_into_wire;

/// Docker's booleans in queries: `1`, `true`, `True`, anything but `0`, `false`, `no`, `none` and empty.
pub(crate) fn is_true(text: Option<&str>) -> bool {
    !matches!(text.unwrap_or("").to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "none")
}
