//! Loading an archive: spool, understand, unpack, then one commit. Until the commit nothing of it can be seen, and a failure leaves nothing.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use berth_metadata::Write;
use berth_types::{Digest, Reference, Timestamp};

use crate::candidate::{self, Candidate, PackedLayer};
use crate::document::chain_ids;
use crate::record::{ImageRecord, LayerRecord, put_tag};
use crate::spool::Spool;
use crate::store::{ImageStore, Pin};
use crate::unpack::{Packed, Task, Unpacked, Unpacker};
use crate::{ImageError, ProgressFn, Result, compression};

/// A verified image whose parts are ready to be kept.
pub(crate) struct Ready {
    id: Digest,
    record: ImageRecord,
    references: Vec<Reference>,
    is_pulled: bool,
}

/// How an image of the archive will be kept.
enum Kept {
    /// The store has it, whole: it only gains names.
    Known(ImageRecord),
    /// Its layers, bottom to top, each as it will be stored.
    New(Vec<PackedLayer>),
}

/// A layer to unpack, or only to verify when it is there.
pub(crate) struct Planned {
    pub(crate) layer: PackedLayer,
    pub(crate) diff_id: Digest,
    pub(crate) chain_id: Digest,
    pub(crate) below: Option<Digest>,
    pub(crate) is_there: bool,
}

/// How a load will be carried out, decided before anything is unpacked.
#[derive(Default)]
pub(crate) struct Plan<'s> {
    images: Vec<Kept>,
    pub(crate) tasks: Vec<Planned>,
    /// Keeps what is relied upon.
    pub(crate) pins: Vec<Pin<'s>>,
}

impl Plan<'_> {
    /// Whether every image of it is in the store, just so.
    pub(crate) fn is_all_known(&self) -> bool {
        self.images.iter().all(|kept| matches!(kept, Kept::Known(_)))
    }
}

impl ImageStore {
    /// docker-archive or OCI archive (tar, optionally gzip or zstd). All or nothing. Returns references, or ids where untagged.
    ///
    /// # Errors
    /// `InvalidArgument` when the archive is not what it must be, `ResourceExhausted` when the disk is full. Nothing of it stays then.
    pub fn load(
        &self,
        tar: &mut (dyn Read + Send),
        progress: ProgressFn<'_>,
    ) -> Result<Vec<std::result::Result<Reference, Digest>>> {
        let (compression, source) = compression::detect(tar, "the image archive")?;
        let mut plain =
            compression::decoder(compression, source, self.expansion).map_err(ImageError::reading_archive)?;
        let mut spool = Spool::fill(&self.content, &mut plain)?;
        drop(plain);
        let candidates = candidate::candidates(&spool)?;
        let plan = self.plan(&candidates, progress)?;
        let ready = self.ready(&candidates, &plan, &mut spool)?;
        let unpacked = self.unpack(&plan, &spool, progress)?;
        let loaded = ready.iter().flat_map(names).collect();
        self.commit_load(ready, unpacked, spool, plan.pins)?;
        Ok(loaded)
    }

    /// Which layers are new. A layer whose directory and blob are known is neither read nor stored again (S-082).
    pub(crate) fn plan(&self, candidates: &[Candidate], progress: ProgressFn<'_>) -> Result<Plan<'_>> {
        let _changing = self.lock();
        let known = self.known_blobs()?;
        let mut plan = Plan::default();
        let mut seen = HashSet::new();
        for candidate in candidates {
            let pulled = candidate.manifest.as_ref().filter(|_| candidate.is_pulled);
            let known_record = self.whole_record(candidate.id)?;
            if let Some(record) = known_record.filter(|r| pulled.is_none_or(|(digest, _)| *digest == r.manifest)) {
                plan.pins.extend(record.blobs(candidate.id).chain(record.chain_ids()).map(|digest| self.pin(digest)));
                record.layers.iter().for_each(|l| progress(&l.diff_id.short(), "Layer already exists", None, None));
                plan.images.push(Kept::Known(record));
                continue;
            }
            let mut kept = Vec::with_capacity(candidate.layers.len());
            let chain = chain_ids(&candidate.config.diff_ids);
            let mut next_below = None;
            for ((offered, diff_id), chain_id) in candidate.layers.iter().zip(&candidate.config.diff_ids).zip(chain) {
                let below = next_below.replace(chain_id);
                let is_there = self.snapshots.has_layer(&chain_id);
                let same = known.get(diff_id).filter(|blobs| is_there && !blobs.is_empty());
                // A manifest that came with the image names its own blobs; one we make can name those we have.
                let reused = same.and_then(|blobs| match candidate.manifest {
                    Some(_) => blobs.contains(&offered.blob).then_some(*offered),
                    None if blobs.contains(&offered.blob) => Some(*offered),
                    None => self.packed_of(blobs[0]).ok(),
                });
                plan.pins.push(self.pin(chain_id));
                if let Some(layer) = reused {
                    plan.pins.push(self.pin(layer.blob));
                    progress(&diff_id.short(), "Layer already exists", None, None);
                    kept.push(layer);
                    continue;
                }
                if seen.insert((offered.blob, *diff_id, chain_id)) {
                    plan.tasks.push(Planned { layer: *offered, diff_id: *diff_id, chain_id, below, is_there });
                }
                kept.push(*offered);
            }
            plan.images.push(Kept::New(kept));
        }
        Ok(plan)
    }

    /// The record of an image the store has, when everything it names is really there.
    pub(crate) fn whole_record(&self, id: Digest) -> Result<Option<ImageRecord>> {
        let record = self.record(&id)?;
        Ok(record.filter(|record| {
            record.blobs(id).all(|blob| self.content.has(&blob))
                && record.chain_ids().iter().all(|chain_id| self.snapshots.has_layer(chain_id))
        }))
    }

    /// diff id -> blobs that were verified to contain it.
    fn known_blobs(&self) -> Result<HashMap<Digest, Vec<Digest>>> {
        let mut known: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for (_, record) in self.records()? {
            for layer in record.layers {
                let blobs = known.entry(layer.diff_id).or_default();
                if !blobs.contains(&layer.blob) && self.content.has(&layer.blob) {
                    blobs.push(layer.blob);
                }
            }
        }
        Ok(known)
    }

    pub(crate) fn packed_of(&self, blob: Digest) -> Result<PackedLayer> {
        let (compression, _) = compression::detect(self.content.reader(&blob)?, "a stored layer")?;
        Ok(PackedLayer { blob, size_bytes: self.content.size(&blob)?, compression })
    }

    /// Records of the images, with manifests made where the archive has none. Layer sizes are filled in after unpacking.
    pub(crate) fn ready(&self, candidates: &[Candidate], plan: &Plan<'_>, spool: &mut Spool) -> Result<Vec<Ready>> {
        let mut ready: Vec<Ready> = Vec::with_capacity(candidates.len());
        for (candidate, kept) in candidates.iter().zip(&plan.images) {
            if let Some(same) = ready.iter_mut().find(|image| image.id == candidate.id) {
                same.references.extend(candidate.references.iter().cloned());
                continue;
            }
            let record = match kept {
                Kept::Known(record) => record.clone(),
                Kept::New(layers) => self.new_record(candidate, layers, spool)?,
            };
            let (id, references, is_pulled) = (candidate.id, candidate.references.clone(), candidate.is_pulled);
            ready.push(Ready { id, record, references, is_pulled });
        }
        Ok(ready)
    }

    fn new_record(&self, candidate: &Candidate, layers: &[PackedLayer], spool: &mut Spool) -> Result<ImageRecord> {
        let (manifest, media_type) = match &candidate.manifest {
            Some((digest, manifest)) => (*digest, manifest.media_type.clone()),
            None => {
                let made = candidate.made_manifest(layers);
                let staged = self.content.stage(&to_json(&made)?)?;
                let digest = staged.digest();
                spool.add(staged);
                (digest, made.media_type)
            }
        };
        let layers = layers.iter().zip(&candidate.config.diff_ids);
        let layers = layers.map(|(l, diff_id)| LayerRecord { diff_id: *diff_id, blob: l.blob, size_bytes: 0 });
        Ok(ImageRecord::new(manifest, &media_type, layers.collect()))
    }

    fn unpack(&self, plan: &Plan<'_>, spool: &Spool, progress: ProgressFn<'_>) -> Result<Vec<Unpacked>> {
        let mut tasks = Vec::with_capacity(plan.tasks.len());
        let mut blobs = Vec::with_capacity(plan.tasks.len());
        for planned in &plan.tasks {
            let blob = spool.content(&planned.layer.blob).ok_or_else(|| ImageError::archive("a layer went missing"))?;
            blobs.push(blob);
            tasks.push(Task {
                packed: Packed::Staged(blob),
                compression: planned.layer.compression,
                diff_id: planned.diff_id,
                chain_id: planned.chain_id,
                below: planned.below,
                is_unpacked_already: planned.is_there,
            });
        }
        let unpacker = Unpacker::new(&self.snapshots, self.expansion, progress);
        // The blobs go to the disk while their files are made.
        std::thread::scope(|scope| {
            let flushing = scope.spawn(move || blobs.iter().try_for_each(|blob| blob.flush()));
            let unpacked = unpacker.run(tasks)?;
            flushing.join().unwrap_or(Ok(()))?;
            Ok(unpacked)
        })
    }

    /// The one step that makes the images visible.
    pub(crate) fn commit_load(
        &self,
        ready: Vec<Ready>,
        unpacked: Vec<Unpacked>,
        mut spool: Spool,
        pins: Vec<Pin<'_>>,
    ) -> Result<()> {
        let changing = self.lock();
        let committed = self.keep_all(ready, unpacked, &mut spool);
        if committed.is_err() {
            // What this load counted on it needs no more. The reason is in `committed`; what cannot be removed now is swept at the next start.
            drop(pins);
            drop(self.collect_unreferenced(&changing));
        }
        committed
    }

    fn keep_all(&self, ready: Vec<Ready>, unpacked: Vec<Unpacked>, spool: &mut Spool) -> Result<()> {
        let wanted: HashSet<Digest> = ready.iter().flat_map(|image| image.record.blobs(image.id)).collect();
        self.content.keep(wanted.iter().filter_map(|digest| spool.take(digest)))?;
        self.keep_layers(unpacked)?;
        let mut writes = Vec::new();
        for mut image in ready {
            self.fill_in_sizes(&mut image.record)?;
            if image.is_pulled {
                // What the registry has under this name counts from now on, also when the same image was here under another manifest.
                image.record.last_tagged = Some(Timestamp::now());
                writes.push(image.record.put(&image.id)?);
                writes.extend(image.references.iter().flat_map(|reference| put_tag(reference, &image.id)));
                continue;
            }
            self.admit(image.id, image.record, &image.references, &mut writes)?;
        }
        self.write(writes)
    }

    pub(crate) fn keep_layers(&self, unpacked: Vec<Unpacked>) -> Result<()> {
        for layer in unpacked {
            tracing::debug!(chain_id = %layer.chain_id, size_bytes = layer.size_bytes, "layer unpacked");
            layer.pending.commit(layer.size_bytes)?;
        }
        Ok(())
    }

    pub(crate) fn fill_in_sizes(&self, record: &mut ImageRecord) -> Result<()> {
        let chain = record.chain_ids();
        for (layer, chain_id) in record.layers.iter_mut().zip(&chain) {
            let size = self.snapshots.layer_size(chain_id);
            layer.size_bytes = size.ok_or_else(|| ImageError::archive(format!("layer {chain_id} went missing")))?;
        }
        Ok(())
    }

    /// The writes that make an image and its names known. One that is known already keeps its record and gains the names.
    pub(crate) fn admit(
        &self,
        id: Digest,
        mut record: ImageRecord,
        references: &[Reference],
        writes: &mut Vec<Write>,
    ) -> Result<()> {
        if let Some(known) = self.whole_record(id)? {
            record = ImageRecord { is_hidden: false, ..known };
        }
        record.admitted = Some(Timestamp::now());
        if !references.is_empty() {
            record.last_tagged = Some(Timestamp::now());
        }
        writes.push(record.put(&id)?);
        writes.extend(references.iter().flat_map(|reference| put_tag(reference, &id)));
        Ok(())
    }
}

fn names(image: &Ready) -> Vec<std::result::Result<Reference, Digest>> {
    if image.references.is_empty() {
        return vec![Err(image.id)];
    }
    image.references.iter().cloned().map(Ok).collect()
}

pub(crate) fn to_json(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document)
        .map_err(|source| ImageError::Document { what: "a document of ours".to_owned(), source })
}
