//! An image that came in by the containerd API becomes one of the Docker face's: when its blobs are all there, by one more record and a tag.
//! Its layers may be unpacked or not; what is missing is unpacked (and verified) when a container needs it.

use berth_metadata::Write;
use berth_types::{Digest, Reference};

use super::Tenant;
use super::name::Target;
use crate::document::{
    CONFIG_BYTES_MAX, ConfigDocument, Descriptor, Document, INDEX_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest,
    layer_compression,
};
use crate::record::{ImageRecord, LayerRecord};
use crate::{ImageError, Result, platform};

/// Indexes in indexes.
const DEPTH_MAX: usize = 4;

impl Tenant<'_> {
    /// The writes that make the target an image of the Docker face under this name.
    pub(super) fn adopt(&self, target: &Target, reference: &Reference) -> Result<Vec<Write>> {
        let descriptor = Descriptor {
            media_type: target.media_type.clone(),
            digest: target.digest,
            size: target.size_bytes,
            platform: None,
            annotations: None,
        };
        let (digest, manifest) = self.manifest_of(&descriptor, 0)?;
        let id = manifest.config.digest;
        let bytes = self.store.content.read(&id, CONFIG_BYTES_MAX)?;
        let config = ConfigDocument::parse(&bytes, &format!("config {}", id.short()))?;
        if config.platform().os != "linux" || config.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::archive(format!("image {} is not one for containers here", id.short())));
        }
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (layer, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            // An encrypted one is none of ours, also where its files are here from somebody who may decrypt it (CVE-2022-24778).
            layer_compression(&layer.media_type, &format!("layer {}", layer.digest.short()))?;
            if !self.store.content.has(&layer.digest) {
                return Err(super::unknown("content", layer.digest));
            }
            layers.push(LayerRecord { diff_id: *diff_id, blob: layer.digest, size_bytes: 0 });
        }
        let mut record = ImageRecord::new(digest, &manifest.media_type, layers);
        for (layer, chain_id) in record.layers.iter_mut().zip(crate::document::chain_ids(&config.diff_ids)) {
            layer.size_bytes = self.store.snapshots.layer_size(&chain_id).unwrap_or(0);
        }
        let mut writes = Vec::new();
        self.store.admit(id, record, std::slice::from_ref(reference), &mut writes)?;
        Ok(writes)
    }

    /// The manifest for this host that the descriptor leads to.
    fn manifest_of(&self, descriptor: &Descriptor, depth: usize) -> Result<(Digest, Manifest)> {
        let what = format!("document {}", descriptor.digest.short());
        let bytes = self.store.content.read(&descriptor.digest, MANIFEST_BYTES_MAX.max(INDEX_BYTES_MAX))?;
        match Document::parse(&bytes, &what, &descriptor.media_type)? {
            Document::Manifest(manifest) => Ok((descriptor.digest, manifest)),
            Document::Index(_) if depth == DEPTH_MAX => Err(ImageError::archive("its indexes have no end")),
            Document::Index(index) => {
                let host = platform::host();
                let rank = |child: &Descriptor| match &child.platform {
                    Some(offered) => platform::rank(&host, offered),
                    None => Some(u32::MAX),
                };
                let mut fitting: Vec<&Descriptor> = index.manifests.iter().filter(|c| rank(c).is_some()).collect();
                fitting.sort_by_key(|child| rank(child));
                let there = fitting.into_iter().find(|child| self.store.content.has(&child.digest));
                self.manifest_of(there.ok_or_else(|| super::unknown("content", &what))?, depth + 1)
            }
        }
    }
}
