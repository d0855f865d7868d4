//! Images of a tenant as an archive: an OCI layout, and a docker-archive at once where each image is one manifest.

use std::collections::BTreeSet;
use std::io::Write;

use berth_types::Reference;
use serde::Serialize;

use super::document::Parts;
use super::{NamedImage, Tenant};
use crate::document::{Descriptor, Index, OCI_INDEX};
use crate::load::to_json;
use crate::oci_layout::{blob_name, name_annotations};
use crate::pull::TargetPlatform;
use crate::save::Archive;
use crate::{ImageError, Result};

/// What is left out of an archive.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// None: every platform, all of which must be here.
    pub platforms: Vec<TargetPlatform>,
    /// No `manifest.json`.
    pub skips_docker_manifest: bool,
    /// Layers that may not be passed on stay out.
    pub skips_non_distributable: bool,
}

/// `manifest.json` of a docker-archive.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Tenant<'_> {
    /// Writes the images. Their blobs must be leased.
    ///
    /// # Errors
    /// `NotFound` before anything is written when something of them is not here.
    pub fn export_archive(
        &self,
        images: &[NamedImage],
        options: &ExportOptions,
        out: &mut (dyn Write + Send),
    ) -> Result<()> {
        if images.is_empty() {
            return Err(ImageError::Invalid { what: "request", why: "no image to export was named".to_owned() });
        }
        let parts = images.iter().map(|i| self.parts(&i.target, &options.platforms)).collect::<Result<Vec<Parts>>>()?;
        let is_kept =
            |media_type: &str| !(options.skips_non_distributable && crate::document::is_foreign_layer(media_type));
        let all = parts.iter().flat_map(|p| p.documents.iter().chain(&p.blobs));
        let blobs: BTreeSet<_> = all.filter(|part| is_kept(&part.media_type)).map(|part| part.digest).collect();
        let mut tar = Archive { out };
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        for digest in blobs {
            let size = self.store.content.size(&digest)?;
            tar.file(&blob_name(&digest), size, &mut self.store.content.reader(&digest)?)?;
        }
        tar.document("index.json", &to_json(&index(images))?)?;
        if !options.skips_docker_manifest {
            let items: Vec<Item> = images.iter().zip(&parts).filter_map(|(image, parts)| item(image, parts)).collect();
            if !items.is_empty() {
                tar.document("manifest.json", &to_json(&items)?)?;
            }
        }
        tar.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.finish()
    }
}

fn index(images: &[NamedImage]) -> Index {
    let manifests = images.iter().map(|image| {
        let mut annotations = image.target.annotations.clone();
        if let Ok(reference) = image.name.parse::<Reference>() {
            annotations.extend(name_annotations(&reference));
        } else {
            annotations.insert("org.opencontainers.image.ref.name".to_owned(), image.name.clone());
        }
        Descriptor {
            media_type: image.target.media_type.clone(),
            digest: image.target.digest,
            size: image.target.size_bytes,
            platform: None,
            annotations: Some(annotations),
        }
    });
    Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests: manifests.collect() }
}

/// Docker's readers know one manifest per image.
fn item(image: &NamedImage, parts: &Parts) -> Option<Item> {
    let [(_, config, layers)] = &parts.manifests[..] else { return None };
    let name = image.name.parse::<Reference>().map_or_else(|_| image.name.clone(), |reference| reference.familiar());
    Some(Item {
        config: blob_name(&config.digest),
        repo_tags: vec![name],
        layers: layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
    })
}
