//! One line of `GET /events`.

use berth_engine::api::Event;
use serde_json::{Value, json};

pub(crate) fn into_wire(event: &Event) -> Value {
    let mut wire = json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.actor_id, "Attributes": event.attributes },
        "scope": "local",
        "time": event.time.unix_seconds(),
        "timeNano": event.time.0,
        "sequence": event.sequence,
    });
    if event.kind == "container" {
        wire["status"] = json!(event.action);
        wire["id"] = json!(event.actor_id);
        wire["from"] = json!(event.attributes.get("image").cloned().unwrap_or_default());
    }
    wire
}
