//! The OCI image layout: `oci-layout`, `index.json` and `blobs/`. Of an index with several platforms the one that suits this host is taken.
//!
//! # Spec
//! image-spec "Image Layout Specification"; the annotation `io.containerd.image.name` for full names.

use berth_types::{Digest, Reference};
use serde::Deserialize;

use crate::candidate::{Candidate, packed_layer};
use crate::document::{
    CONFIG_BYTES_MAX, ConfigDocument, ConfigFacts, Descriptor, Document, INDEX_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest,
    Platform, layer_compression, parse_archive_json,
};
use crate::platform;
use crate::spool::Spool;
use crate::{ImageError, Result};

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const ATTESTATION: &str = "vnd.docker.reference.type";
const INDEX_DEPTH_MAX: u32 = 4;
/// Descriptors looked at in all indexes of one archive together.
const DESCRIPTORS_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// A manifest found by walking the indexes, before the best platform is chosen.
struct Found {
    descriptor: Descriptor,
    manifest: Manifest,
    config: ConfigFacts,
    config_bytes: u64,
}

struct Walk<'s> {
    spool: &'s Spool,
    descriptors_left: usize,
}

pub(crate) fn read(spool: &Spool) -> Result<Vec<Candidate>> {
    check_layout(spool)?;
    let bytes = spool.document("index.json", INDEX_BYTES_MAX)?;
    let Document::Index(index) = Document::parse(&bytes, "index.json", "")? else {
        return Err(ImageError::archive("its index.json is a manifest"));
    };
    let host = platform::host();
    let mut walk = Walk { spool, descriptors_left: DESCRIPTORS_MAX };
    let mut offered = Vec::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut others = Vec::new();
    for descriptor in &index.manifests {
        let found = walk.manifests(descriptor, 0)?;
        offered.extend(found.iter().map(|f| f.config.platform.to_string()));
        let (best, rest) = split_best(&host, found);
        others.extend(rest.into_iter().map(|f| (descriptor, f)));
        if let Some(found) = best {
            add(&mut candidates, candidate(spool, descriptor, found)?);
        }
    }
    // A single image of another platform was meant, whatever this host is.
    if candidates.is_empty() && others.len() == 1 {
        for (descriptor, found) in others {
            candidates.push(candidate(spool, descriptor, found)?);
        }
    }
    if candidates.is_empty() {
        let found = if offered.is_empty() { "none at all".to_owned() } else { offered.join(", ") };
        return Err(ImageError::NoPlatform { wanted: host.to_string(), found });
    }
    Ok(candidates)
}

pub(crate) fn check_layout(spool: &Spool) -> Result<()> {
    // Docker's own readers do not insist on the file; a version we do not know is another matter.
    if !spool.has("oci-layout") {
        return Ok(());
    }
    let layout: Layout = parse_archive_json(&spool.document("oci-layout", 4096)?, "oci-layout")?;
    if layout.image_layout_version != "1.0.0" {
        let shown: String = layout.image_layout_version.chars().take(40).collect();
        return Err(ImageError::archive(format!("its layout version is {shown:?}, expected 1.0.0")));
    }
    Ok(())
}

/// The same image under several names is one candidate.
fn add(candidates: &mut Vec<Candidate>, new: Candidate) {
    match candidates
        .iter_mut()
        .find(|c| c.id == new.id && c.manifest.as_ref().map(|m| m.0) == new.manifest.as_ref().map(|m| m.0))
    {
        Some(same) => same.references.extend(new.references),
        None => candidates.push(new),
    }
}

fn split_best(host: &Platform, mut found: Vec<Found>) -> (Option<Found>, Vec<Found>) {
    let rank_of = |f: &Found| platform::rank(host, f.descriptor.platform.as_ref().unwrap_or(&f.config.platform));
    let best = found.iter().enumerate().filter_map(|(i, f)| Some((rank_of(f)?, i))).min();
    match best {
        Some((_, i)) => (Some(found.swap_remove(i)), Vec::new()),
        None => (None, found),
    }
}

impl Walk<'_> {
    /// Every image manifest a descriptor leads to.
    fn manifests(&mut self, descriptor: &Descriptor, depth: u32) -> Result<Vec<Found>> {
        self.descriptors_left = self
            .descriptors_left
            .checked_sub(1)
            .ok_or_else(|| ImageError::archive(format!("its indexes have more than {DESCRIPTORS_MAX} entries")))?;
        if is_attestation(descriptor) {
            return Ok(Vec::new());
        }
        let what = format!("manifest {}", descriptor.digest.short());
        let bytes = self.spool.blob_document(&descriptor.digest, &what, MANIFEST_BYTES_MAX)?;
        check_size(descriptor, bytes.len() as u64, &what)?;
        match Document::parse(&bytes, &what, &descriptor.media_type)? {
            Document::Manifest(manifest) => Ok(vec![self.found(descriptor, manifest)?]),
            Document::Index(_) if depth == INDEX_DEPTH_MAX => {
                Err(ImageError::archive(format!("its indexes are nested deeper than {INDEX_DEPTH_MAX}")))
            }
            Document::Index(index) => self.nested(&index.manifests, depth + 1),
        }
    }

    /// An index may name platforms that the archive does not carry: those are passed over.
    fn nested(&mut self, descriptors: &[Descriptor], depth: u32) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for descriptor in descriptors {
            let is_here = self.spool.has(&format!("blobs/sha256/{}", descriptor.digest.hex()));
            if is_here {
                found.extend(self.manifests(descriptor, depth)?);
            }
        }
        Ok(found)
    }

    fn found(&self, descriptor: &Descriptor, manifest: Manifest) -> Result<Found> {
        let what = format!("config {}", manifest.config.digest.short());
        let bytes = self.spool.blob_document(&manifest.config.digest, &what, CONFIG_BYTES_MAX)?;
        check_size(&manifest.config, bytes.len() as u64, &what)?;
        let config = ConfigDocument::parse(&bytes, &what)?.facts();
        Ok(Found { descriptor: descriptor.clone(), manifest, config, config_bytes: bytes.len() as u64 })
    }
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    let is_marked = descriptor.annotations.as_ref().is_some_and(|a| a.contains_key(ATTESTATION));
    is_marked || descriptor.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
}

fn check_size(descriptor: &Descriptor, found: u64, what: &str) -> Result<()> {
    if descriptor.size == found {
        return Ok(());
    }
    Err(ImageError::archive(format!("{what} has {found} bytes, its descriptor says {}", descriptor.size)))
}

fn candidate(spool: &Spool, top: &Descriptor, found: Found) -> Result<Candidate> {
    let mut layers = Vec::with_capacity(found.manifest.layers.len());
    for (i, descriptor) in found.manifest.layers.iter().enumerate() {
        let what = format!("layer {} of image {}", i + 1, found.manifest.config.digest.short());
        let promised = layer_compression(&descriptor.media_type, &what)?;
        let staged = spool.blob(&descriptor.digest, &what)?;
        check_size(descriptor, staged.size_bytes(), &what)?;
        let layer = packed_layer(staged, &what)?;
        if layer.compression != promised {
            let why =
                format!("{what} has media type {:?} but its bytes are {:?}", descriptor.media_type, layer.compression);
            return Err(ImageError::archive(why));
        }
        layers.push(layer);
    }
    Candidate {
        id: found.manifest.config.digest,
        config: found.config,
        config_bytes: found.config_bytes,
        manifest: Some((found.descriptor.digest, found.manifest)),
        layers,
        references: names(top)?,
        is_pulled: false,
    }
    .check()
}

/// A full name from containerd's annotation, else from the ref name when it is more than a tag.
fn names(descriptor: &Descriptor) -> Result<Vec<Reference>> {
    let annotation = |key| descriptor.annotations.as_ref().and_then(|a| a.get(key)).map(String::as_str);
    let text = annotation(NAME).or_else(|| annotation(REF_NAME).filter(|name| name.contains([':', '/'])));
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let bad = |why: String| ImageError::archive(format!("bad image name {text:?} in index.json: {why}"));
    let reference: Reference = text.parse().map_err(|e: berth_types::reference::ReferenceError| bad(e.to_string()))?;
    if reference.digest().is_some() && reference.tag().is_none() {
        return Ok(Vec::new()); // a name by digest alone tags nothing
    }
    untagged_digest(reference.with_default_tag()).map(|r| vec![r]).map_err(bad)
}

/// `name:tag@digest` names the tag; the digest is known from the descriptor.
fn untagged_digest(reference: Reference) -> std::result::Result<Reference, String> {
    let Some(tag) = reference.digest().and(reference.tag()) else {
        return Ok(reference);
    };
    format!("{}:{tag}", reference.repository())
        .parse()
        .map_err(|e: berth_types::reference::ReferenceError| e.to_string())
}

/// For writers of layouts: the annotations that make other tools find the name.
pub(crate) fn name_annotations(reference: &Reference) -> std::collections::BTreeMap<String, String> {
    let tag = reference.tag().unwrap_or("latest").to_owned();
    [(NAME.to_owned(), reference.to_string()), (REF_NAME.to_owned(), tag)].into()
}

/// The name of a blob in a layout.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
