//! How an image came to be: its config's history with the sizes of its layers.

use berth_types::Timestamp;

use crate::store::ImageStore;
use crate::{HistoryItem, Image, Result};

impl ImageStore {
    /// Newest first, as Docker lists it. Layers the history does not speak of come as items of their own, `<missing>`.
    ///
    /// # Errors
    /// As [`ImageStore::get`].
    pub fn history(&self, name_or_id: &str) -> Result<Vec<HistoryItem>> {
        Ok(items(&self.get(name_or_id)?))
    }
}

/// The line that made each layer and when, bottom to top.
pub(crate) fn layer_lines(image: &Image) -> Vec<(String, Option<Timestamp>)> {
    let mut lines: Vec<HistoryItem> = items(image).into_iter().filter(|item| !item.is_empty_layer).collect();
    lines.reverse();
    lines.into_iter().map(|item| (item.created_by, item.created)).collect()
}

fn items(image: &Image) -> Vec<HistoryItem> {
    let told = image.config.history().as_deref().unwrap_or_default();
    let mut layers = image.layers.iter();
    let with_layer = told.iter().filter(|item| item.empty_layer() != Some(true)).count();
    // What is below the oldest thing the history knows comes first.
    let untold = image.layers.len().saturating_sub(with_layer);
    let mut items: Vec<HistoryItem> = layers
        .by_ref()
        .take(untold)
        .map(|layer| HistoryItem {
            created: None,
            created_by: "<missing>".to_owned(),
            comment: String::new(),
            size_bytes: layer.size_bytes,
            is_empty_layer: false,
        })
        .collect();
    for item in told {
        let is_empty_layer = item.empty_layer() == Some(true);
        let layer = if is_empty_layer { None } else { layers.next() };
        items.push(HistoryItem {
            created: item.created().as_deref().and_then(|text| text.parse::<Timestamp>().ok()),
            created_by: item.created_by().clone().unwrap_or_default(),
            comment: item.comment().clone().unwrap_or_default(),
            size_bytes: layer.map_or(0, |layer| layer.size_bytes),
            is_empty_layer,
        });
    }
    items.reverse();
    items
}
