//! `/containers/…`

mod archive;
mod attach;
mod changes;
mod create;
mod export;
mod inspect;
mod kill;
mod list;
mod logs;
mod pause;
mod prune;
mod remove;
mod rename;
mod resize;
mod start;
mod stats;
mod stop;
mod top;
mod trace;
mod update;
mod wait;

pub(super) use logs::parse_time;
pub(super) use resize::Size;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/containers/json", get(list::list))
        .route("/containers/create", post(create::create))
        .route("/containers/prune", post(prune::prune))
        .route("/containers/{id}", delete(remove::remove))
        .route("/containers/{id}/json", get(inspect::inspect))
        .route("/containers/{id}/start", post(start::start))
        .route("/containers/{id}/stop", post(stop::stop))
        .route("/containers/{id}/restart", post(stop::restart))
        .route("/containers/{id}/kill", post(kill::kill))
        .route("/containers/{id}/pause", post(pause::pause))
        .route("/containers/{id}/unpause", post(pause::unpause))
        .route("/containers/{id}/wait", post(wait::wait))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/top", get(top::top))
        .route("/containers/{id}/trace", get(trace::trace))
        .route("/containers/{id}/changes", get(changes::changes))
        .route("/containers/{id}/export", get(export::export))
        .route("/containers/{id}/rename", post(rename::rename))
        .route("/containers/{id}/resize", post(resize::resize))
        .route("/containers/{id}/update", post(update::update))
        .route("/containers/{id}/archive", get(archive::get).head(archive::head).put(archive::put))
}
