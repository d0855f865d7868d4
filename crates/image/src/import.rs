//! Making images out of trees: `import` of a root file system's tar, `commit` of a container's writable layer. Both add one layer to a config.

use std::io::{Read, Write as _};

use berth_content::{Copying, Expected, Staged};
use berth_rootfs::OverlayRootfs;
use berth_types::{Digest, Timestamp};
use serde_json::{Map, Value, json};

use crate::compression::{self, Compression};
use crate::document::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, chain_ids, layer_media_type};
use crate::instruction;
use crate::load::to_json;
use crate::record::{ImageRecord, LayerRecord};
use crate::store::{ImageStore, Pin};
use crate::unpack::{Packed, Task, Unpacked, Unpacker};
use crate::{CommitOptions, Image, ImageError, ProgressFn, Result, layer_pack, platform, tree_diff};

/// A tar without entries: two blocks of zeros. Docker makes no layer of it.
const EMPTY_TAR_BYTES: u64 = 1024;

impl ImageStore {
    /// A flat root file system (tar, optionally gzip or zstd) becomes an image of one layer for this host's platform.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad tar or a bad change; nothing stays then.
    pub fn import(
        &self,
        tar: &mut (dyn Read + Send),
        options: &CommitOptions,
        progress: ProgressFn<'_>,
    ) -> Result<Digest> {
        let config = instruction::apply(options.config.clone(), &options.changes)?;
        let (compression, source) = compression::detect(tar, "the imported archive")?;
        let mut plain =
            compression::decoder(compression, source, self.expansion).map_err(ImageError::reading_archive)?;
        let mut ingest = self.content.begin()?;
        ingest.append_from(&mut plain, &mut Vec::new()).map_err(|failed| match failed {
            Copying::Read(e) => ImageError::reading_archive(e),
            Copying::Write(e) => e.into(),
        })?;
        drop(plain);
        let layer = ingest.finish(Expected::default())?;
        self.add_layer(None, layer, config, options, progress)
    }

    /// The writable layer becomes the newest layer of a new image on top of `base`. The caller pauses the container.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad change; nothing stays then.
    pub fn commit(&self, base: &Image, rootfs: &OverlayRootfs, options: &CommitOptions) -> Result<Digest> {
        let upper = rootfs.upper.as_deref().ok_or_else(|| ImageError::Invalid {
            what: "container",
            why: "its root file system has no writable layer".to_owned(),
        })?;
        let config = instruction::apply(options.config.clone(), &options.changes)?;
        let ingest = self.content.begin()?;
        let mut out = std::io::BufWriter::with_capacity(256 << 10, ingest);
        match self.snapshots.base(rootfs) {
            Some(base) => tree_diff::pack(Some(&base), upper, &mut out)?,
            None => layer_pack::pack(upper, &rootfs.lowers, &mut out)?,
        }
        let failed = |source| ImageError::Io { operation: "write", object: "the new layer".to_owned(), source };
        out.flush().map_err(failed)?;
        let ingest = out.into_inner().map_err(|e| failed(e.into_error()))?;
        let layer = ingest.finish(Expected::default())?;
        self.add_layer(Some(base), layer, config, options, &|_, _, _, _| {})
    }

    fn add_layer(
        &self,
        base: Option<&Image>,
        layer: Staged,
        config: Value,
        options: &CommitOptions,
        progress: ProgressFn<'_>,
    ) -> Result<Digest> {
        let is_empty = base.is_some() && is_empty_tar(&layer)?;
        let mut diff_ids = base.map(|b| b.diff_ids.clone()).unwrap_or_default();
        if !is_empty {
            diff_ids.push(layer.digest());
        }
        let document = new_config(base, config, &diff_ids, is_empty, options);
        let staged_config = self.content.stage(&to_json(&document)?)?;
        let id = staged_config.digest();
        let mut below: Vec<LayerRecord> = base.map(|b| b.layers.iter().map(record_of).collect()).unwrap_or_default();
        let pins = self.pin_base(base, &diff_ids)?;
        let unpacked = if is_empty { Vec::new() } else { self.unpack_new(&layer, &diff_ids, progress)? };
        if !is_empty {
            below.push(LayerRecord { diff_id: layer.digest(), blob: layer.digest(), size_bytes: 0 });
        }
        let manifest = self.new_manifest(&staged_config, &below, (!is_empty).then_some(&layer))?;
        let staged_manifest = self.content.stage(&to_json(&manifest)?)?;
        let record = ImageRecord::new(staged_manifest.digest(), OCI_MANIFEST, below);
        let blobs = [Some(staged_config), Some(staged_manifest), (!is_empty).then_some(layer)];
        let changing = self.lock();
        let kept = self.keep_new(id, record, blobs.into_iter().flatten(), unpacked, options);
        if kept.is_err() {
            drop(pins); // what this image was to be made of
            // The reason is in `kept`; what cannot be removed now is swept at the next start.
            drop(self.collect_unreferenced(&changing));
        }
        kept.map(|()| id)
    }

    fn pin_base(&self, base: Option<&Image>, diff_ids: &[Digest]) -> Result<Vec<Pin<'_>>> {
        let _changing = self.lock();
        let mut pins: Vec<Pin<'_>> = chain_ids(diff_ids).into_iter().map(|chain_id| self.pin(chain_id)).collect();
        for layer in base.iter().flat_map(|b| &b.layers) {
            pins.push(self.pin(layer.blob));
            if !self.content.has(&layer.blob) {
                return Err(ImageError::Conflict { why: format!("layer {} of the base image is gone", layer.blob) });
            }
        }
        Ok(pins)
    }

    fn unpack_new(&self, layer: &Staged, diff_ids: &[Digest], progress: ProgressFn<'_>) -> Result<Vec<Unpacked>> {
        let mut chain = chain_ids(diff_ids);
        let Some(chain_id) = chain.pop() else { return Ok(Vec::new()) };
        let task = Task {
            packed: Packed::Staged(layer),
            compression: Compression::None,
            diff_id: layer.digest(),
            chain_id,
            below: chain.pop(),
            is_unpacked_already: self.snapshots.has_layer(&chain_id),
        };
        let unpacker = Unpacker::new(&self.snapshots, self.expansion, progress);
        std::thread::scope(|scope| {
            let flushing = scope.spawn(|| layer.flush());
            let unpacked = unpacker.run(vec![task])?;
            flushing.join().unwrap_or(Ok(()))?;
            Ok(unpacked)
        })
    }

    fn new_manifest(&self, config: &Staged, layers: &[LayerRecord], new: Option<&Staged>) -> Result<Manifest> {
        let plain = |media_type: &str, digest, size| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
        };
        let mut descriptors = Vec::with_capacity(layers.len());
        for layer in layers {
            descriptors.push(match new.filter(|staged| staged.digest() == layer.blob) {
                Some(staged) => plain(layer_media_type(Compression::None), layer.blob, staged.size_bytes()),
                None => {
                    let packed = self.packed_of(layer.blob)?;
                    plain(layer_media_type(packed.compression), layer.blob, packed.size_bytes)
                }
            });
        }
        Ok(Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: plain(OCI_CONFIG, config.digest(), config.size_bytes()),
            layers: descriptors,
        })
    }

    fn keep_new(
        &self,
        id: Digest,
        mut record: ImageRecord,
        blobs: impl Iterator<Item = Staged>,
        unpacked: Vec<Unpacked>,
        options: &CommitOptions,
    ) -> Result<()> {
        self.content.keep(blobs)?;
        self.keep_layers(unpacked)?;
        self.fill_in_sizes(&mut record)?;
        let references =
            options.reference.iter().cloned().map(berth_types::Reference::with_default_tag).collect::<Vec<_>>();
        let mut writes = Vec::new();
        self.admit(id, record, &references, &mut writes)?;
        self.write(writes)
    }
}

fn record_of(layer: &crate::Layer) -> LayerRecord {
    LayerRecord { diff_id: layer.diff_id, blob: layer.blob, size_bytes: layer.size_bytes }
}

/// Nothing but zeros, and no more of them than an end marker has.
fn is_empty_tar(layer: &Staged) -> Result<bool> {
    if layer.size_bytes() != EMPTY_TAR_BYTES {
        return Ok(false);
    }
    Ok(layer.read(EMPTY_TAR_BYTES)?.iter().all(|byte| *byte == 0))
}

/// The base's config with the new layer, the container's config and one more line of history.
fn new_config(
    base: Option<&Image>,
    config: Value,
    diff_ids: &[Digest],
    is_empty: bool,
    options: &CommitOptions,
) -> Value {
    let host = platform::host();
    let mut document = match base {
        Some(base) => base.config_json.as_object().cloned().unwrap_or_default(),
        None => {
            let mut fresh = Map::new();
            fresh.insert("architecture".to_owned(), json!(host.architecture));
            fresh.insert("os".to_owned(), json!(host.os));
            if let Some(variant) = host.variant {
                fresh.insert("variant".to_owned(), json!(variant));
            }
            fresh
        }
    };
    let created = Timestamp::now().to_string();
    let mut line = Map::new();
    line.insert("created".to_owned(), json!(created));
    for (key, text) in [("created_by", &options.created_by), ("author", &options.author), ("comment", &options.message)]
    {
        if !text.is_empty() {
            line.insert(key.to_owned(), json!(text));
        }
    }
    if is_empty {
        line.insert("empty_layer".to_owned(), json!(true));
    }
    let mut history = document.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    history.push(Value::Object(line));
    document.insert("history".to_owned(), Value::Array(history));
    document.insert("created".to_owned(), json!(created));
    if !options.author.is_empty() {
        document.insert("author".to_owned(), json!(options.author));
    }
    document.insert("config".to_owned(), config);
    document.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    // What Docker once recorded of the container an image was made from says nothing about this one.
    for stale in ["container", "container_config", "id", "parent", "Size"] {
        document.remove(stale);
    }
    Value::Object(document)
}
