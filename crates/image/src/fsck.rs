//! Checking the whole store: every blob against its digest, every record against what it names, every layer against its blob, and what belongs to
//! nobody. With repair, what can be made again from what is whole is; what cannot is told, and nothing that still has a use is thrown away.
//!
//! | found | repaired by |
//! |---|---|
//! | a damaged or missing layer directory | unpacking it again from its blob, unless a running container is on it, Docker's or a client's of the containerd API, or a snapshot that such a client may have mounted |
//! | a damaged layer that only snapshots of such clients have | nothing: it is told with who is on it |
//! | a damaged or missing blob of a layer that is unpacked | packing the layer again, where that gives the same bytes |
//! | another damaged blob | moving it away, so that it is fetched or loaded again |
//! | an image whose config or manifest is gone, or a layer that cannot be made again | nothing: it is told; the image can be loaded again |
//! | a name without image, a record of a tenant without what it names | deleting that record |
//! | blobs, layers, snapshots and writable layers of nobody | collecting them |
//!
//! Images and containers come and go meanwhile. What does not fit is looked at once more where it is now, under the store's lock where something is
//! done about it: what is told is wrong now, not since a moment ago.

mod layer;
mod layer_use;

pub(crate) use layer_use::snapshots_on;

use std::collections::{BTreeMap, BTreeSet};

use berth_content::{ContentError, Expected};
use berth_metadata::{Table, Write};
use berth_types::{ChainId, Digest};

use crate::document::{CONFIG_BYTES_MAX, ConfigDocument};
use crate::record::ImageRecord;
use crate::store::ImageStore;
use crate::{ImageError, ImageUse, Result, layer_pack};

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `blob`, `layer`, `image`, `tag`, `record`, `orphan`.
    pub kind: &'static str,
    pub object: String,
    pub what: String,
    /// What was done about it; nothing: it is still so.
    pub repair: Option<String>,
}

/// What was looked at and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    pub images: usize,
    pub blobs: usize,
    pub blob_bytes: u64,
    pub layers: usize,
    pub records: usize,
    pub problems: Vec<Problem>,
}

impl FsckReport {
    /// Problems that are still there.
    pub fn open_problems(&self) -> usize {
        self.problems.iter().filter(|problem| problem.repair.is_none()).count()
    }

    fn add(&mut self, kind: &'static str, object: impl ToString, what: impl Into<String>, repair: Option<String>) {
        self.problems.push(Problem { kind, object: object.to_string(), what: what.into(), repair });
    }
}

/// Who uses what at this moment, as the engine knows it.
#[derive(Clone, Copy)]
pub struct Uses<'u> {
    /// Whether an id is that of a container now, one being created included.
    pub is_container: &'u dyn Fn(&str) -> bool,
    /// As for removal.
    pub of_image: &'u dyn Fn(&Digest) -> ImageUse,
    /// Who may have a snapshot that is no layer mounted, by tenant and key; nothing: nobody.
    pub of_snapshot: &'u dyn Fn(&str, &str) -> Option<String>,
}

impl std::fmt::Debug for Uses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Uses")
    }
}

/// A layer of images, with the one below it.
#[derive(Debug, Clone)]
struct Known {
    diff_id: Digest,
    blob: Digest,
    below: Option<ChainId>,
    images: Vec<Digest>,
}

impl ImageStore {
    /// Checks everything while the store is in use.
    ///
    /// # Errors
    /// When records or directories cannot be read at all; what is wrong with single things is in the report.
    pub fn fsck(&self, is_repairing: bool, uses: Uses<'_>) -> Result<FsckReport> {
        let mut report = FsckReport::default();
        let records = self.check_images(&mut report)?;
        let damaged = self.check_blobs(&mut report)?;
        let layers = known_layers(&records);
        self.repair_blobs(&damaged, &records, is_repairing, &mut report)?;
        self.check_layers(&layers, uses, is_repairing, &mut report)?;
        self.check_layers_of_tenants(&layers, uses, &mut report)?;
        self.check_tags(&records, is_repairing, &mut report)?;
        self.check_tenants(is_repairing, &mut report)?;
        self.check_orphans(uses.is_container, is_repairing, &mut report)?;
        Ok(report)
    }

    /// Whether one of these images is still there.
    fn is_any_there(&self, images: &[Digest]) -> Result<bool> {
        for id in images {
            if self.metadata.get(Table::Images, &id.to_string())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records that can be read, each against its config.
    fn check_images(&self, report: &mut FsckReport) -> Result<BTreeMap<Digest, ImageRecord>> {
        let mut records = BTreeMap::new();
        for (key, bytes) in self.metadata.list(Table::Images)? {
            report.images += 1;
            report.records += 1;
            match (key.parse::<Digest>(), ImageRecord::parse(&key, &bytes)) {
                (Ok(id), Ok(record)) => {
                    match self.check_config(&id, &record) {
                        Err(what) if self.is_any_there(&[id])? => report.add("image", id, what, None),
                        _ => {}
                    }
                    records.insert(id, record);
                }
                _ => report.add("image", key, "its record cannot be read", None),
            }
        }
        Ok(records)
    }

    fn check_config(&self, id: &Digest, record: &ImageRecord) -> std::result::Result<(), String> {
        let bytes =
            self.content.read(id, CONFIG_BYTES_MAX).map_err(|e| format!("its config: {}", berth_types::report(&e)))?;
        let config = ConfigDocument::parse(&bytes, "its config").map_err(|error| berth_types::report(&error))?;
        let recorded: Vec<Digest> = record.layers.iter().map(|layer| layer.diff_id).collect();
        if config.diff_ids != recorded {
            return Err("its config names other layers than its record".to_owned());
        }
        if !self.content.has(&record.manifest) {
            return Err(format!("its manifest {} is missing", record.manifest));
        }
        Ok(())
    }

    /// Reads every blob. Returns the damaged ones.
    fn check_blobs(&self, report: &mut FsckReport) -> Result<BTreeSet<Digest>> {
        let mut damaged = BTreeSet::new();
        for digest in self.content.list()? {
            report.blobs += 1;
            report.blob_bytes += self.content.size(&digest).unwrap_or(0);
            match self.content.verify(&digest) {
                // Removed meanwhile.
                Ok(()) | Err(ContentError::NotFound { .. }) => {}
                Err(_) => drop(damaged.insert(digest)),
            }
        }
        Ok(damaged)
    }

    /// Damaged blobs and missing ones: a layer's can perhaps be packed again.
    fn repair_blobs(
        &self,
        damaged: &BTreeSet<Digest>,
        records: &BTreeMap<Digest, ImageRecord>,
        is_repairing: bool,
        report: &mut FsckReport,
    ) -> Result<()> {
        let mut bad: BTreeMap<Digest, &'static str> =
            damaged.iter().map(|digest| (*digest, "its bytes are no longer those that were written")).collect();
        for (id, record) in records {
            let missing: Vec<Digest> = record.blobs(*id).filter(|blob| !self.content.has(blob)).collect();
            if !missing.is_empty() && self.is_any_there(&[*id])? {
                bad.extend(missing.into_iter().map(|blob| (blob, "it is missing")));
            }
        }
        for (digest, what) in bad {
            let repair =
                if is_repairing { self.repair_blob(&digest, damaged.contains(&digest), records)? } else { None };
            report.add("blob", digest, what, repair);
        }
        Ok(())
    }

    fn repair_blob(
        &self,
        digest: &Digest,
        is_there: bool,
        records: &BTreeMap<Digest, ImageRecord>,
    ) -> Result<Option<String>> {
        let _changing = self.lock();
        if is_there {
            self.content.quarantine(digest)?;
        }
        for record in records.values() {
            let chain = record.chain_ids();
            for (at, layer) in record.layers.iter().enumerate().filter(|(_, layer)| layer.blob == *digest) {
                let below = at.checked_sub(1).map(|below| chain[below]);
                if self.pack_again(layer.diff_id, digest, &chain[at], below.as_ref()).unwrap_or(false) {
                    return Ok(Some("packed again from its layer".to_owned()));
                }
            }
        }
        let is_needed = records.iter().any(|(id, record)| record.blobs(*id).any(|blob| blob == *digest));
        Ok((is_there && !is_needed).then(|| "moved away; no image is made of it".to_owned()))
    }

    /// Only an uncompressed blob of ours can come out the same.
    fn pack_again(&self, diff_id: Digest, blob: &Digest, chain_id: &ChainId, below: Option<&ChainId>) -> Result<bool> {
        if diff_id != *blob || !self.snapshots.has_layer(chain_id) || !self.snapshots.driver().is_layered() {
            return Ok(false);
        }
        let below = below.map(|below| self.snapshots.layer_dir(below));
        let lowers: Vec<_> = below.iter().map(|below| below.to_path_buf()).collect();
        let mut ingest = self.content.begin()?;
        layer_pack::pack(&self.snapshots.layer_dir(chain_id), &lowers, &mut ingest)?;
        match ingest.finish(Expected { digest: Some(*blob), size_bytes: None }) {
            Ok(staged) => {
                self.content.keep([staged])?;
                Ok(true)
            }
            Err(ContentError::WrongDigest { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn check_layers(
        &self,
        layers: &BTreeMap<ChainId, Known>,
        uses: Uses<'_>,
        is_repairing: bool,
        report: &mut FsckReport,
    ) -> Result<()> {
        for (chain_id, known) in layers {
            if !self.snapshots.has_layer(chain_id) {
                // It is unpacked when a container needs it; that it can be is what counts.
                if !self.content.has(&known.blob) && self.is_any_there(&known.images)? {
                    report.add("layer", chain_id, "it is not unpacked and its blob is missing", None);
                }
                continue;
            }
            report.layers += 1;
            let found = match layer::compare(self, chain_id, &known.blob) {
                Ok(None) => continue,
                Ok(Some(difference)) => difference,
                // Without a blob to compare with there is nothing to say about it that was not said.
                Err(ImageError::Content(_)) => continue,
                Err(error) => berth_types::report(&error),
            };
            if !self.is_any_there(&known.images)? {
                continue;
            }
            let users = self.users_of_layer(chain_id, &known.images, uses)?;
            if !users.is_empty() {
                report.add("layer", chain_id, layer_use::told(&found, &users), None);
                continue;
            }
            // Where its blob is damaged too, that was said already.
            let repair = if is_repairing { self.unpack_again(chain_id, known).ok() } else { None };
            report.add("layer", chain_id, found, repair);
        }
        Ok(())
    }

    fn unpack_again(&self, chain_id: &ChainId, known: &Known) -> Result<String> {
        let changing = self.lock();
        self.content.verify(&known.blob)?;
        let missing = crate::rootfs::Missing {
            diff_id: known.diff_id,
            blob: known.blob,
            chain_id: *chain_id,
            below: known.below,
        };
        self.unpack_missing(&[missing], &changing)?;
        Ok("unpacked again from its blob".to_owned())
    }

    fn check_tags(
        &self,
        records: &BTreeMap<Digest, ImageRecord>,
        is_repairing: bool,
        report: &mut FsckReport,
    ) -> Result<()> {
        for (name, value) in self.metadata.list(Table::Tags)? {
            report.records += 1;
            let id = String::from_utf8_lossy(&value).parse::<Digest>().ok();
            if id.is_some_and(|id| records.contains_key(&id)) {
                continue;
            }
            // Of an image that came after the records were read, or moved there.
            let _changing = self.lock();
            let Some(now) = self.metadata.get(Table::Tags, &name)? else { continue };
            let id = String::from_utf8_lossy(&now).parse::<Digest>().ok();
            if id.is_some_and(|id| self.is_any_there(&[id]).unwrap_or(true)) {
                continue;
            }
            if is_repairing {
                self.write(vec![Write::Delete { table: Table::Tags, key: name.clone() }])?;
            }
            report.add("tag", name, "it names no image", is_repairing.then(|| "deleted".to_owned()));
        }
        Ok(())
    }

    /// Records of tenants whose blob, layer or home is gone.
    fn check_tenants(&self, is_repairing: bool, report: &mut FsckReport) -> Result<()> {
        let has_blob = |key: &str, _: &[u8]| {
            let digest = key.split_once('/').and_then(|(_, digest)| digest.parse::<Digest>().ok());
            digest.is_some_and(|digest| self.content.has(&digest))
        };
        let has_files = |key: &str, bytes: &[u8]| {
            berth_snapshot::SnapshotRecord::parse(key, bytes)
                .is_ok_and(|record| self.snapshots.has_place(&record.place))
        };
        self.check_records(Table::Blobs, &has_blob, "its blob is missing", is_repairing, report)?;
        self.check_records(Table::Snapshots, &has_files, "its files are missing", is_repairing, report)
    }

    /// Records without what they name, unless somebody deleted them meanwhile, or made again what they name.
    fn check_records(
        &self,
        table: Table,
        has_subject: &dyn Fn(&str, &[u8]) -> bool,
        what: &str,
        is_repairing: bool,
        report: &mut FsckReport,
    ) -> Result<()> {
        for (key, bytes) in self.metadata.list(table)? {
            report.records += 1;
            if has_subject(&key, &bytes) {
                continue;
            }
            let _changing = self.lock();
            let now = self.metadata.get(table, &key)?;
            if now.is_none_or(|now| has_subject(&key, &now)) {
                continue;
            }
            if is_repairing {
                self.write(vec![Write::Delete { table, key: key.clone() }])?;
            }
            report.add("record", key, what, is_repairing.then(|| "deleted".to_owned()));
        }
        Ok(())
    }

    fn check_orphans(
        &self,
        is_container: &dyn Fn(&str) -> bool,
        is_repairing: bool,
        report: &mut FsckReport,
    ) -> Result<()> {
        let done = || is_repairing.then(|| "collected".to_owned());
        // In this order: a container is known before its writable layer is there, and until that is gone.
        for id in self.snapshots.prepared()?.into_iter().filter(|id| !is_container(id)) {
            if is_repairing {
                self.snapshots.discard(&id)?;
            }
            report.add("orphan", &id, "a writable layer of no container", done());
        }
        let changing = self.lock();
        if self.is_collection_due() {
            // What was removed a moment ago is no orphan.
            self.collect_unreferenced(&changing)?;
        }
        let unreferenced = self.unreferenced(&changing)?;
        for chain_id in &unreferenced.layers {
            report.add("orphan", chain_id, "a layer of no image", done());
        }
        for blob in &unreferenced.blobs {
            report.add("orphan", blob, "a blob of nobody", done());
        }
        for home in &unreferenced.homes {
            report.add("orphan", format!("snapshots/{home}"), "files of no snapshot", done());
        }
        if is_repairing {
            self.collect_unreferenced(&changing)?;
        }
        Ok(())
    }
}

fn known_layers(records: &BTreeMap<Digest, ImageRecord>) -> BTreeMap<ChainId, Known> {
    let mut layers: BTreeMap<ChainId, Known> = BTreeMap::new();
    for (id, record) in records {
        let mut below = None;
        for (layer, chain_id) in record.layers.iter().zip(record.chain_ids()) {
            let known = Known { diff_id: layer.diff_id, blob: layer.blob, below, images: Vec::new() };
            layers.entry(chain_id).or_insert(known).images.push(*id);
            below = Some(chain_id);
        }
    }
    layers
}

#[cfg(test)]
mod tests;
