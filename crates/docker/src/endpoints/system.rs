//! `/_ping`, `/version`, `/info`, `/events`, `/system/df`, `/networks`

mod disk_usage;
mod events;
mod info;
mod networks;
mod ping;
mod version;

use axum::Router;
use axum::routing::get;

use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/_ping", get(ping::ping).head(ping::ping))
        .route("/version", get(version::version))
        .route("/info", get(info::info))
        .route("/events", get(events::events))
        .route("/system/df", get(disk_usage::disk_usage))
        .route("/networks", get(networks::list))
        .route("/networks/{id}", get(networks::inspect))
}
