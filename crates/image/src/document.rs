//! Manifests, indexes and configs: read from bytes with limits, refused where two readers could see two different things.
//! Pure: no files, no store.
//!
//! # Spec
//! image-spec "Image Manifest", "Image Index", "Image Configuration"; distribution "Image Manifest Version 2, Schema 2".

mod strict;

use std::collections::BTreeMap;

use berth_types::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use strict::Spelling;

use crate::compression::Compression;
use crate::{ImageError, Result};

/// Limits of documents (CVE-2023-25153, CVE-2017-11468).
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 << 20;
pub(crate) const INDEX_BYTES_MAX: u64 = 8 << 20;
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// More layers than any overlay mount takes.
pub(crate) const LAYERS_MAX: usize = 500;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a descriptor of a manifest leads to.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Every field either kind of document may have; which are there decides the kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    history: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// `described_as` is the media type in the descriptor that led here; empty for an `index.json`.
    pub(crate) fn parse(bytes: &[u8], what: &str, described_as: &str) -> Result<Self> {
        let raw: Raw = parse_json(bytes, what, Spelling::Manifest)?;
        let invalid = |why: &str| ImageError::Invalid { what: "image archive", why: format!("{what} {why}") };
        if raw.fs_layers.is_some() || raw.history.is_some() {
            return Err(invalid("is or contains a schema 1 manifest, which is not supported"));
        }
        if raw.schema_version != Some(2) {
            return Err(invalid("does not have schemaVersion 2"));
        }
        let inner = raw.media_type.unwrap_or_default();
        if !inner.is_empty() && !described_as.is_empty() && inner != described_as {
            return Err(invalid(&format!("is described as {described_as:?} but says it is {inner:?}")));
        }
        let media_type = if inner.is_empty() { described_as.to_owned() } else { inner };
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Self::index(media_type, manifests, what),
            (None, Some(config), Some(layers)) => Self::manifest(media_type, config, layers, what),
            (Some(_), _, _) => Err(invalid("is both an index and a manifest")),
            (None, _, _) => Err(invalid("is neither an index nor a manifest")),
        }
    }

    fn index(media_type: String, manifests: Vec<Descriptor>, what: &str) -> Result<Self> {
        let media_type = if media_type.is_empty() { OCI_INDEX.to_owned() } else { media_type };
        if media_type != OCI_INDEX && media_type != DOCKER_LIST {
            return Err(ImageError::MediaType { what: format!("{what}, an index,"), media_type });
        }
        Ok(Self::Index(Index { schema_version: 2, media_type, manifests }))
    }

    fn manifest(media_type: String, config: Descriptor, layers: Vec<Descriptor>, what: &str) -> Result<Self> {
        let media_type = if media_type.is_empty() { OCI_MANIFEST.to_owned() } else { media_type };
        if media_type != OCI_MANIFEST && media_type != DOCKER_MANIFEST {
            return Err(ImageError::MediaType { what: format!("{what}, a manifest,"), media_type });
        }
        if config.media_type != OCI_CONFIG && config.media_type != DOCKER_CONFIG {
            let what = format!("the config of {what}");
            return Err(ImageError::MediaType { what, media_type: config.media_type });
        }
        if layers.len() > LAYERS_MAX {
            return Err(ImageError::archive(format!(
                "{what} has {} layers; at most {LAYERS_MAX} can be mounted",
                layers.len()
            )));
        }
        Ok(Self::Manifest(Manifest { schema_version: 2, media_type, config, layers }))
    }
}

/// The compression a layer's media type promises.
pub(crate) fn layer_compression(media_type: &str, what: &str) -> Result<Compression> {
    let oci = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"))
        .and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_prefix('+') });
    let docker = media_type
        .strip_prefix("application/vnd.docker.image.rootfs.diff.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"))
        .and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_prefix('.') });
    match oci.or(docker) {
        Some("") => Ok(Compression::None),
        Some("gzip") => Ok(Compression::Gzip),
        Some("zstd") => Ok(Compression::Zstd),
        _ => Err(ImageError::MediaType { what: what.to_owned(), media_type: media_type.to_owned() }),
    }
}

/// Whether a layer is only to be had from whoever owns it (image-spec "Non-Distributable Layers"; Docker's foreign layers).
pub(crate) fn is_foreign_layer(media_type: &str) -> bool {
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// Of the bytes as they are.
pub(crate) fn digest_of_document(bytes: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(bytes).into())
}

/// The media type of a layer we describe ourselves.
pub(crate) fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

/// An image config, checked, with what the store needs of it.
#[derive(Debug, Clone)]
pub(crate) struct ConfigDocument {
    pub(crate) json: serde_json::Value,
    pub(crate) typed: berth_oci::image::ImageConfiguration,
    pub(crate) diff_ids: Vec<Digest>,
}

/// What is kept of a config while an archive of perhaps many images is looked at.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFacts {
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) platform: Platform,
}

impl ConfigDocument {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let json: serde_json::Value = parse_json(bytes, what, Spelling::Any)?;
        let failed = |source| ImageError::Document { what: what.to_owned(), source };
        let typed: berth_oci::image::ImageConfiguration = serde_json::from_slice(bytes).map_err(failed)?;
        if typed.rootfs().typ() != "layers" {
            let why = format!("{what} has rootfs type {:?}, expected \"layers\"", typed.rootfs().typ());
            return Err(ImageError::archive(why));
        }
        if typed.rootfs().diff_ids().len() > LAYERS_MAX {
            return Err(ImageError::archive(format!("{what} has more than {LAYERS_MAX} layers")));
        }
        let digest = |text: &String| {
            text.parse::<Digest>().map_err(|e| ImageError::archive(format!("{what} has a bad diff id: {e}")))
        };
        let diff_ids: Vec<Digest> = typed.rootfs().diff_ids().iter().map(digest).collect::<Result<_>>()?;
        let history = typed.history().as_deref().unwrap_or_default();
        let with_layer = history.iter().filter(|item| item.empty_layer() != Some(true)).count();
        if with_layer > diff_ids.len() {
            let why = format!("{what} has {} layers but its history names {with_layer}", diff_ids.len());
            return Err(ImageError::archive(why));
        }
        Ok(Self { json, typed, diff_ids })
    }

    pub(crate) fn facts(self) -> ConfigFacts {
        ConfigFacts { platform: self.platform(), diff_ids: self.diff_ids }
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform {
            architecture: self.typed.architecture().to_string(),
            os: self.typed.os().to_string(),
            variant: self.typed.variant().clone(),
        }
    }
}

/// Parses JSON that is not ambiguous.
pub(crate) fn parse_archive_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    parse_json(bytes, what, Spelling::Any)
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8], what: &str, spelling: Spelling) -> Result<T> {
    let failed = |source| ImageError::Document { what: what.to_owned(), source };
    strict::check(bytes, spelling).map_err(failed)?;
    serde_json::from_slice(bytes).map_err(failed)
}

/// Chain ids of a stack of layers, bottom to top (image-spec config, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => *diff_id,
            Some(below) => Digest::from_bytes(sha2::Sha256::digest(format!("{below} {diff_id}")).into()),
        };
        chain.push(next);
    }
    chain
}

/// The blobs that a manifest or an index names; none when it is neither.
pub(crate) fn children(bytes: &[u8]) -> Vec<Digest> {
    match Document::parse(bytes, "a document", "") {
        Ok(Document::Manifest(manifest)) => {
            manifest.layers.iter().chain([&manifest.config]).map(|descriptor| descriptor.digest).collect()
        }
        Ok(Document::Index(index)) => index.manifests.iter().map(|descriptor| descriptor.digest).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
