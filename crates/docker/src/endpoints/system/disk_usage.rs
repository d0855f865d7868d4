//! `GET /system/df`

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use berth_engine::api::ListOptions;
use berth_types::Timestamp;
use serde_json::{Value, json};

use crate::endpoints::volume_into_wire;
use crate::error::ApiResult;
use crate::state::Face;
use crate::wire::summary::Summary;

pub(super) async fn disk_usage(State(face): State<Face>) -> ApiResult<Json<Value>> {
    let usage = face.engine.disk_usage().await?;
    let mut views = face.engine.list(&ListOptions { all: true, ..ListOptions::default() }).await?;
    let images = face.engine.images(true, &Default::default()).await?;
    // Not by the list: that would walk again.
    let written: HashMap<&str, u64> = usage.containers.iter().map(|(id, bytes)| (id.as_str(), *bytes)).collect();
    let image_bytes: HashMap<_, u64> = images.iter().map(|image| (image.id, image.size_bytes)).collect();
    for view in &mut views {
        view.size_rw = written.get(view.id.as_str()).copied();
        let image = image_bytes.get(&view.image_id).copied().unwrap_or(0);
        view.size_rootfs = view.size_rw.map(|bytes| image.saturating_add(bytes));
    }
    let image = |view: &berth_engine::api::ImageView| {
        let id = view.id.to_string();
        let unique = usage.images.iter().find(|((known, _), _)| *known == id).map_or(0, |(_, bytes)| *bytes);
        let mut wire = crate::wire::image::summary(view);
        wire["SharedSize"] = json!(view.size_bytes.saturating_sub(unique));
        wire
    };
    let owner =
        |owner: &berth_engine::api::DiskOwner| json!({"Kind": owner.kind, "Count": owner.count, "Bytes": owner.bytes});
    let now = Timestamp::now();
    Ok(Json(json!({
        "LayersSize": usage.layers_bytes,
        "Images": images.iter().map(image).collect::<Vec<_>>(),
        "Containers": views.iter().map(|view| Summary::new(view, now)).collect::<Vec<_>>(),
        "Volumes": usage.volumes.iter().map(volume_into_wire).collect::<Vec<_>>(),
        "BuildCache": [],
        "Owners": usage.owners.iter().map(owner).collect::<Vec<_>>(),
    })))
}
