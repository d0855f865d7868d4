//! Images: list rows, `inspect`, history, deletions.

use berth_engine::api::{HistoryEntry, ImageDeleted, ImageView};
use serde_json::{Value, json};

use super::inspect::time_text;

fn created_seconds(view: &ImageView) -> i64 {
    view.created.map_or(0, berth_types::Timestamp::unix_seconds)
}

pub(crate) fn summary(view: &ImageView) -> Value {
    json!({
        "Id": view.id,
        "ParentId": "",
        "RepoTags": view.repo_tags,
        "RepoDigests": view.repo_digests,
        "Created": created_seconds(view),
        "Size": view.size_bytes,
        "SharedSize": -1,
        "VirtualSize": view.size_bytes,
        "Labels": view.labels,
        "Containers": view.containers,
    })
}

/// `driver`: of its layers.
pub(crate) fn inspect(view: &ImageView, driver: &str) -> Value {
    let lowers: Vec<_> = view.layer_dirs.iter().skip(1).map(|p| p.to_string_lossy()).collect();
    json!({
        "Id": view.id,
        "RepoTags": view.repo_tags,
        "RepoDigests": view.repo_digests,
        "Parent": "",
        "Comment": view.comment,
        "Created": time_text(view.created),
        "DockerVersion": "",
        "Author": view.author,
        "Config": view.config,
        "Architecture": view.architecture,
        "Os": view.os,
        "Size": view.size_bytes,
        "VirtualSize": view.size_bytes,
        "GraphDriver": {
            "Name": driver,
            "Data": {
                "UpperDir": view.layer_dirs.first(),
                "LowerDir": lowers.join(":"),
            },
        },
        "RootFS": { "Type": "layers", "Layers": view.diff_ids },
        "Metadata": { "LastTagTime": time_text(view.last_tagged) },
    })
}

pub(crate) fn history(entry: &HistoryEntry) -> Value {
    json!({
        "Id": entry.id,
        "Created": entry.created.map_or(0, berth_types::Timestamp::unix_seconds),
        "CreatedBy": entry.created_by,
        "Tags": if entry.tags.is_empty() { Value::Null } else { json!(entry.tags) },
        "Size": entry.size_bytes,
        "Comment": entry.comment,
    })
}

pub(crate) fn deleted(item: &ImageDeleted) -> Value {
    match item {
        ImageDeleted::Untagged(name) => json!({ "Untagged": name }),
        ImageDeleted::Deleted(id) => json!({ "Deleted": id }),
    }
}
