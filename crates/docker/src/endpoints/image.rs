//! `/images/…` and `POST /commit`

mod commit;
mod create;
mod delete;
mod list;
mod load;
mod one;
mod prune;
mod pull;
mod push;
mod save;
mod tag;

use axum::Router;
use axum::routing::{get, post};
use http::Method;

use crate::state::Face;

pub(super) fn routes() -> Router<Face> {
    Router::new()
        .route("/images/json", get(list::list))
        .route("/images/create", post(create::create))
        .route("/images/load", post(load::load))
        .route("/images/get", get(save::save))
        .route("/images/prune", post(prune::prune))
        .route("/commit", post(commit::commit))
        // Image names contain slashes, so the verb is the path's end and is taken off by hand.
        .route("/images/{*rest}", get(one::get).post(one::post).delete(delete::delete))
}

/// One parameter of a query.
fn query_value(query: &str, name: &str) -> Option<String> {
    let uri: http::Uri = format!("/?{query}").parse().ok()?;
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok()?;
    pairs.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Splits `name/with/slashes/verb` for the verbs of a method; a plain name has no verb.
pub(super) fn split_verb<'p>(rest: &'p str, method: &Method) -> (&'p str, Option<&'p str>) {
    let verbs: &[&str] = match *method {
        Method::GET => &["json", "history", "get", "attestations"],
        Method::POST => &["tag", "push"],
        _ => &[],
    };
    match rest.rsplit_once('/') {
        Some((name, verb)) if verbs.contains(&verb) => (name, Some(verb)),
        _ => (rest, None),
    }
}
