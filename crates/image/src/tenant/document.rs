//! What a tenant's documents lead to: for transfers, which move an image descriptor by descriptor.

use berth_types::Digest;

use super::{Resource, Target, Tenant, unknown};
use crate::document::{Descriptor, Document, INDEX_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::pull::TargetPlatform;
use crate::{ImageError, Result, platform};

/// Indexes in indexes.
pub(super) const DEPTH_MAX: usize = 4;
/// Documents of one image.
const DOCUMENTS_MAX: usize = 1024;

/// A manifest or an index, as far as a transfer goes by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// The image manifests of an index.
    Index(Vec<Child>),
    Manifest {
        config: Target,
        /// Bottom to top.
        layers: Vec<Target>,
    },
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    pub target: Target,
    platform: Option<crate::document::Platform>,
}

impl Child {
    /// Whether one of the platforms is the entry's; without any every entry suits.
    pub fn suits(&self, platforms: &[TargetPlatform]) -> bool {
        self.preference(platforms).is_some()
    }

    /// Which of the platforms, in order of preference, is the entry's first.
    pub(super) fn preference(&self, platforms: &[TargetPlatform]) -> Option<usize> {
        let fits = |wanted: &TargetPlatform| match &self.platform {
            Some(offered) => platform::rank(wanted.platform(), offered).is_some(),
            None => true,
        };
        if platforms.is_empty() { Some(0) } else { platforms.iter().position(fits) }
    }
}

impl Leads {
    /// # Errors
    /// `InvalidArgument` for what is ambiguous, of schema 1, or no image.
    pub fn parse(bytes: &[u8], media_type: &str, what: &str) -> Result<Self> {
        Ok(match Document::parse(bytes, what, media_type)? {
            Document::Index(index) => {
                let child = |d: &Descriptor| Child { target: target_of(d), platform: d.platform.clone() };
                Self::Index(index.manifests.iter().map(child).collect())
            }
            Document::Manifest(manifest) => Self::Manifest {
                config: target_of(&manifest.config),
                layers: manifest.layers.iter().map(target_of).collect(),
            },
        })
    }
}

pub(super) fn target_of(descriptor: &Descriptor) -> Target {
    Target {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest,
        size_bytes: descriptor.size,
        annotations: descriptor.annotations.clone().unwrap_or_default(),
    }
}

/// Everything an image is made of, as far as it suits: the documents before what they lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Indexes and manifests, the target first.
    pub documents: Vec<Target>,
    /// Configs and layers, each once.
    pub blobs: Vec<Target>,
    /// Each manifest's digest, its config and layers.
    pub(crate) manifests: Vec<(Digest, Target, Vec<Target>)>,
}

impl Tenant<'_> {
    /// The bytes of a manifest or index.
    ///
    /// # Errors
    /// `NotFound` when the tenant has no such blob.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.blob(digest)?;
        Ok(self.store.content.read(digest, MANIFEST_BYTES_MAX.max(INDEX_BYTES_MAX))?)
    }

    /// Walks from a name's target to everything it needs, of these platforms only when any is given.
    ///
    /// # Errors
    /// `NotFound` when something of it is not here, or nothing suits.
    pub fn parts(&self, target: &Target, platforms: &[TargetPlatform]) -> Result<Parts> {
        let mut parts = Parts::default();
        self.walk(target, platforms, 0, &mut parts)?;
        if parts.manifests.is_empty() {
            let shown: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            return Err(unknown("an image for", shown.join(", ")));
        }
        Ok(parts)
    }

    fn walk(&self, target: &Target, platforms: &[TargetPlatform], depth: usize, parts: &mut Parts) -> Result<()> {
        if parts.documents.iter().any(|known| known.digest == target.digest) {
            return Ok(());
        }
        if depth > DEPTH_MAX || parts.documents.len() >= DOCUMENTS_MAX {
            return Err(ImageError::archive("its indexes have no end"));
        }
        let bytes = self.document(&target.digest)?;
        parts.documents.push(target.clone());
        match Leads::parse(&bytes, &target.media_type, &format!("document {}", target.digest.short()))? {
            Leads::Index(children) => {
                for child in children.iter().filter(|child| child.suits(platforms)) {
                    self.walk(&child.target, platforms, depth + 1, parts)?;
                }
            }
            Leads::Manifest { config, layers } => {
                for blob in std::iter::once(&config).chain(&layers) {
                    self.blob(&blob.digest)?;
                    if !parts.blobs.iter().any(|known| known.digest == blob.digest) {
                        parts.blobs.push(blob.clone());
                    }
                }
                parts.manifests.push((target.digest, config, layers));
            }
        }
        Ok(())
    }

    /// The same, all of it held by a lease from now on.
    ///
    /// # Errors
    /// As for [`Self::parts`]; `NotFound` for the lease.
    pub fn hold_parts(&self, target: &Target, platforms: &[TargetPlatform], lease: &str) -> Result<Parts> {
        let parts = self.parts(target, platforms)?;
        let held = parts.documents.iter().chain(&parts.blobs);
        let held = held.map(|part| Resource { kind: "content".to_owned(), id: part.digest.to_string() });
        self.add_resources(lease, held.collect())?;
        // What went before it was held is missed now.
        self.parts(target, platforms)
    }

    /// Where a blob's bytes are; it must be leased for as long as they are needed.
    pub fn blob_path(&self, digest: &Digest) -> std::path::PathBuf {
        self.store.content.path(digest)
    }
}
