//! Who stands on a layer: containers of Docker's face, and snapshots of tenants that somebody may have mounted. It is not made anew under them: what they
//! have open of it would go.

use std::collections::{BTreeMap, BTreeSet};

use berth_metadata::Table;
use berth_snapshot::{Kind, Place, SnapshotRecord};
use berth_types::{ChainId, Digest};

use super::{FsckReport, Known, Uses};
use crate::store::ImageStore;
use crate::{ImageUse, Result};

/// Named in one line of the report.
const NAMED_MAX: usize = 5;

impl ImageStore {
    /// Running containers of these images, and those who use snapshots of tenants on the layer.
    pub(super) fn users_of_layer(
        &self,
        chain_id: &ChainId,
        images: &[Digest],
        uses: Uses<'_>,
    ) -> Result<BTreeSet<String>> {
        let mut users = BTreeSet::new();
        for image in images {
            if let ImageUse::Running(id) = (uses.of_image)(image) {
                users.insert(format!("container {id} runs on it"));
            }
        }
        let records = self.snapshot_records()?;
        users.extend(snapshots_on(&records, chain_id).filter_map(|(tenant, name)| (uses.of_snapshot)(tenant, name)));
        Ok(users)
    }

    /// Layers that no image of Docker's face has: there is no blob that they are known to be of, so what is cheap to see is looked at.
    pub(super) fn check_layers_of_tenants(
        &self,
        known: &BTreeMap<ChainId, Known>,
        uses: Uses<'_>,
        report: &mut FsckReport,
    ) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (key, record) in self.snapshot_records()? {
            let Place::Layer(chain_id) = record.place else { continue };
            // Where there is none at all, its record says so.
            if known.contains_key(&chain_id) || !self.snapshots.has_layer(&chain_id) || !seen.insert(chain_id) {
                continue;
            }
            report.layers += 1;
            let Some(damage) = self.snapshots.layer_damage(&chain_id) else { continue };
            if self.metadata.get(Table::Snapshots, &key)?.is_some() {
                let users = self.users_of_layer(&chain_id, &[], uses)?;
                let what =
                    format!("{damage}; snapshot {key} is made of it and can only be unpacked again by its client");
                report.add("layer", chain_id, told(&what, &users), None);
            }
        }
        Ok(())
    }

    /// By `<tenant>/<name>`; what cannot be read is told elsewhere.
    pub(crate) fn snapshot_records(&self) -> Result<BTreeMap<String, SnapshotRecord>> {
        let records = self.metadata.list(Table::Snapshots)?.into_iter();
        Ok(records
            .filter_map(|(key, bytes)| SnapshotRecord::parse(&key, &bytes).ok().map(|record| (key, record)))
            .collect())
    }
}

/// Tenant and key of those on a layer that can be mounted.
pub(crate) fn snapshots_on<'r>(
    records: &'r BTreeMap<String, SnapshotRecord>,
    layer: &'r ChainId,
) -> impl Iterator<Item = (&'r str, &'r str)> {
    records.iter().filter(|(_, record)| record.kind != Kind::Committed).filter_map(move |(key, record)| {
        let (tenant, name) = key.split_once('/')?;
        stands_on(records, tenant, record, layer).then_some((tenant, name))
    })
}

/// Whether the layer is the snapshot's own or one below it.
fn stands_on(records: &BTreeMap<String, SnapshotRecord>, tenant: &str, top: &SnapshotRecord, layer: &ChainId) -> bool {
    let mut next = Some(top);
    // No chain is longer than there are records.
    for _ in 0..=records.len() {
        let Some(record) = next else { return false };
        if matches!(record.place, Place::Layer(place) if place == *layer) {
            return true;
        }
        next = record.parent.as_ref().and_then(|parent| records.get(&format!("{tenant}/{parent}")));
    }
    false
}

/// What was found, and why nothing is done about it.
pub(super) fn told(found: &str, users: &BTreeSet<String>) -> String {
    let mut parts: Vec<&str> = vec![found];
    parts.extend(users.iter().map(String::as_str).take(NAMED_MAX));
    let more = users.len().saturating_sub(NAMED_MAX);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    parts.join("; ") + &rest
}
