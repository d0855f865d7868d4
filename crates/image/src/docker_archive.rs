//! The archive form of `docker save`: a `manifest.json` that names, for each image, a config file and layer tars.
//!
//! `repositories` and the per-layer `json` and `VERSION` files of older writers repeat what `manifest.json` says and are not read.

use berth_types::{Digest, Reference};
use serde::Deserialize;

use crate::candidate::{Candidate, packed_layer};
use crate::document::{CONFIG_BYTES_MAX, ConfigDocument, LAYERS_MAX, MANIFEST_BYTES_MAX, parse_archive_json};
use crate::spool::Spool;
use crate::{ImageError, Result};

pub(crate) const IMAGES_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Item {
    pub(crate) config: String,
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Option<Vec<String>>,
}

pub(crate) fn read(spool: &Spool) -> Result<Vec<Candidate>> {
    let items = items(&spool.document("manifest.json", MANIFEST_BYTES_MAX)?)?;
    items.into_iter().map(|item| candidate(spool, item)).collect()
}

/// What a `manifest.json` names.
pub(crate) fn items(bytes: &[u8]) -> Result<Vec<Item>> {
    let items: Vec<Item> = parse_archive_json(bytes, "manifest.json")?;
    if items.is_empty() || items.len() > IMAGES_MAX {
        let why = format!("its manifest.json names {} images, not 1 to {IMAGES_MAX}", items.len());
        return Err(ImageError::archive(why));
    }
    Ok(items)
}

fn candidate(spool: &Spool, item: Item) -> Result<Candidate> {
    let config_bytes = spool.document(&item.config, CONFIG_BYTES_MAX)?;
    let id = berth_content::digest_of(&config_bytes);
    check_name(&item.config, id)?;
    let config = ConfigDocument::parse(&config_bytes, &item.config)?.facts();
    let names = item.layers.unwrap_or_default();
    if names.len() > LAYERS_MAX {
        return Err(ImageError::archive(format!(
            "an image has {} layers; at most {LAYERS_MAX} can be mounted",
            names.len()
        )));
    }
    let layers = names
        .iter()
        .map(|name| packed_layer(spool.follow(name)?, &format!("layer {name:?}")))
        .collect::<Result<Vec<_>>>()?;
    let references = item.repo_tags.unwrap_or_default().iter().map(|tag| tagged(tag)).collect::<Result<Vec<_>>>()?;
    Candidate {
        id,
        config,
        config_bytes: config_bytes.len() as u64,
        manifest: None,
        layers,
        references,
        is_pulled: false,
    }
    .check()
}

/// A config file named after its digest must have it (CVE-2014-9358: an image's id is what its bytes are, never what a name says).
fn check_name(name: &str, found: Digest) -> Result<()> {
    let stem = name.rsplit('/').next().unwrap_or(name);
    match Digest::from_hex(stem.strip_suffix(".json").unwrap_or(stem)) {
        Ok(expected) if expected != found => {
            Err(ImageError::WrongDigest { what: format!("config {name:?}"), expected, found })
        }
        _ => Ok(()),
    }
}

fn tagged(text: &str) -> Result<Reference> {
    let bad = |why: String| ImageError::archive(format!("bad image name {text:?} in manifest.json: {why}"));
    let reference: Reference = text.parse().map_err(|e: berth_types::reference::ReferenceError| bad(e.to_string()))?;
    if reference.tag().is_none() || reference.digest().is_some() {
        return Err(bad("a name with a tag is needed".to_owned()));
    }
    Ok(reference)
}
