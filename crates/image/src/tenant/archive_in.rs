//! An archive becomes blobs of a tenant: an OCI layout as it is, a docker-archive with manifests made for it. Names are the caller's affair.
//!
//! Everything an OCI layout has below `blobs`, and what a docker-archive names, is held by the caller's lease; what nothing leads to is collected
//! after it. All is kept in one step, so that a bad archive leaves nothing.
//!
//! # Spec
//! image-spec "Image Layout Specification"; the archive form of `docker save`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use berth_types::{Digest, Reference};

use super::{Target, Tenant};
use crate::candidate::packed_layer;
use crate::compression::{self, Compression};
use crate::docker_archive::{self, IMAGES_MAX, Item};
use crate::document::{
    Descriptor, Document, INDEX_BYTES_MAX, Index, LAYERS_MAX, MANIFEST_BYTES_MAX, Manifest, OCI_INDEX,
};
use crate::load::to_json;
use crate::oci_layout::{check_layout, name_annotations};
use crate::spool::Spool;
use crate::{ImageError, Result};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Each is flushed, and has a record.
const BLOBS_MAX: usize = 20_000;

/// What an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The index over all of it.
    pub index: Target,
    /// What the index names, with its annotations.
    pub images: Vec<Target>,
    /// Blobs that the tenant did not have before, with their sizes.
    pub new_blobs: Vec<(Digest, u64)>,
}

/// One import under way.
struct Import<'s> {
    tenant: Tenant<'s>,
    spool: Spool,
    /// What becomes a blob of the tenant.
    wanted: BTreeSet<Digest>,
}

impl Tenant<'_> {
    /// Reads an archive to its end; gzip and zstd are undone.
    ///
    /// # Errors
    /// `InvalidArgument` when it is damaged or neither form; `NotFound` for the lease.
    pub fn import_archive(&self, tar: &mut (dyn Read + Send), lease: &str) -> Result<Imported> {
        let (compression, source) = compression::detect(tar, "the image archive")?;
        let mut plain =
            compression::decoder(compression, source, self.store.expansion).map_err(ImageError::reading_archive)?;
        let spool = Spool::fill(&self.store.content, &mut plain)?;
        drop(plain);
        let mut import = Import { tenant: *self, spool, wanted: BTreeSet::new() };
        let bytes = import.index()?;
        let Document::Index(index) = Document::parse(&bytes, "index.json", "")? else {
            return Err(ImageError::archive("its index.json is a manifest"));
        };
        if index.manifests.len() > IMAGES_MAX {
            return Err(ImageError::archive(format!("it has more than {IMAGES_MAX} images")));
        }
        let digest = import.add(&bytes)?;
        Ok(Imported {
            index: Target {
                media_type: OCI_INDEX.to_owned(),
                digest,
                size_bytes: bytes.len() as u64,
                annotations: BTreeMap::new(),
            },
            images: index.manifests.iter().map(super::document::target_of).collect(),
            new_blobs: import.keep(lease)?,
        })
    }
}

impl Import<'_> {
    /// The index the archive has, or would have had.
    fn index(&mut self) -> Result<Vec<u8>> {
        check_layout(&self.spool)?;
        if self.spool.has("index.json") {
            self.wanted.extend(self.spool.blobs());
            return self.spool.document("index.json", INDEX_BYTES_MAX);
        }
        if !self.spool.has("manifest.json") {
            return Err(ImageError::archive("it is neither an OCI layout nor a docker-archive"));
        }
        let items = docker_archive::items(&self.spool.document("manifest.json", MANIFEST_BYTES_MAX)?)?;
        to_json(&self.docker_index(items)?)
    }

    fn keep(mut self, lease: &str) -> Result<Vec<(Digest, u64)>> {
        if self.wanted.len() > BLOBS_MAX {
            return Err(ImageError::archive(format!("it has more than {BLOBS_MAX} blobs")));
        }
        let staged = self.wanted.iter().filter_map(|digest| self.spool.take(digest)).collect();
        self.tenant.keep_blobs(staged, lease)
    }

    /// A document of ours as a blob.
    fn add(&mut self, bytes: &[u8]) -> Result<Digest> {
        let staged = self.tenant.store.content.stage(bytes)?;
        let digest = staged.digest();
        self.spool.add(staged);
        self.wanted.insert(digest);
        Ok(digest)
    }

    fn docker_index(&mut self, items: Vec<Item>) -> Result<Index> {
        let mut manifests = Vec::new();
        for item in items {
            let document = to_json(&self.docker_manifest(&item)?)?;
            let digest = self.add(&document)?;
            let plain = descriptor(DOCKER_MANIFEST.to_owned(), digest, document.len() as u64);
            let tags = item.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                manifests.push(plain.clone());
            }
            for tag in tags {
                let reference: Reference = tag.parse().map_err(|error: berth_types::reference::ReferenceError| {
                    ImageError::archive(format!("bad image name {tag:?} in manifest.json: {error}"))
                })?;
                let annotations = Some(name_annotations(&reference.with_default_tag()));
                manifests.push(Descriptor { annotations, ..plain.clone() });
            }
        }
        Ok(Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests })
    }

    fn docker_manifest(&mut self, item: &Item) -> Result<Manifest> {
        let names = item.layers.as_deref().unwrap_or_default();
        if names.len() > LAYERS_MAX {
            return Err(ImageError::archive(format!("an image has more than {LAYERS_MAX} layers")));
        }
        let layers = names.iter().map(|name| self.docker_layer(name)).collect::<Result<Vec<_>>>()?;
        let config = self.spool.follow(&item.config)?;
        let config = descriptor(DOCKER_CONFIG.to_owned(), config.digest(), config.size_bytes());
        self.wanted.insert(config.digest);
        Ok(Manifest { schema_version: 2, media_type: DOCKER_MANIFEST.to_owned(), config, layers })
    }

    fn docker_layer(&mut self, name: &str) -> Result<Descriptor> {
        let layer = packed_layer(self.spool.follow(name)?, name)?;
        self.wanted.insert(layer.blob);
        let media_type = match layer.compression {
            Compression::None => DOCKER_LAYER.to_owned(),
            Compression::Gzip => format!("{DOCKER_LAYER}.gzip"),
            Compression::Zstd => format!("{DOCKER_LAYER}.zstd"),
        };
        Ok(descriptor(media_type, layer.blob, layer.size_bytes))
    }
}

fn descriptor(media_type: String, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type, digest, size, platform: None, annotations: None }
}
