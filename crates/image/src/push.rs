//! What has to be in a registry for an image to be there. The blobs are those that came: a pulled image is pushed under the same digests.

use std::collections::HashMap;
use std::path::PathBuf;

use berth_types::{Digest, Reference};

use crate::document::MANIFEST_BYTES_MAX;
use crate::store::{ImageStore, Pin, not_found};
use crate::{ImageError, Result};

/// An image on its way to a registry. Its blobs stay as long as this does.
#[derive(Debug)]
pub struct Outgoing<'s> {
    pub id: Digest,
    pub manifest: Vec<u8>,
    pub manifest_digest: Digest,
    pub media_type: String,
    pub config: OutgoingBlob,
    /// Bottom to top, each blob once.
    pub layers: Vec<OutgoingBlob>,
    _pins: Vec<Pin<'s>>,
}

#[derive(Debug, Clone)]
pub struct OutgoingBlob {
    pub digest: Digest,
    /// What people know the layer by here: its diff id; of a config the digest.
    pub shown: String,
    pub size_bytes: u64,
    pub path: PathBuf,
}

impl ImageStore {
    /// The image a tag names.
    ///
    /// # Errors
    /// `NotFound` in Docker's words, `DataLoss` when a blob is gone.
    pub fn outgoing(&self, reference: &Reference) -> Result<Outgoing<'_>> {
        let _changing = self.lock();
        let Some(id) = self.tag_target(reference)? else {
            return Err(ImageError::NotTagged { name: reference.familiar() });
        };
        let record = self.record(&id)?.ok_or_else(|| not_found(&reference.familiar()))?;
        let pins = record.blobs(id).map(|digest| self.pin(digest)).collect();
        let blob = |digest: Digest, shown: String| -> Result<OutgoingBlob> {
            Ok(OutgoingBlob {
                digest,
                shown,
                size_bytes: self.content.size(&digest)?,
                path: self.content.path(&digest),
            })
        };
        let mut layers: Vec<OutgoingBlob> = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            if !layers.iter().any(|known| known.digest == layer.blob) {
                layers.push(blob(layer.blob, layer.diff_id.short())?);
            }
        }
        Ok(Outgoing {
            id,
            manifest: self.content.read(&record.manifest, MANIFEST_BYTES_MAX)?,
            manifest_digest: record.manifest,
            media_type: record.manifest_media_type.clone(),
            config: blob(id, id.short())?,
            layers,
            _pins: pins,
        })
    }

    /// Every tag of a repository (`domain/path`), sorted.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn tags_of(&self, repository: &str) -> Result<Vec<Reference>> {
        let names = self.references_by_id()?.into_values().flatten();
        let mut tags: Vec<Reference> = names.filter(|r| r.tag().is_some() && r.repository() == repository).collect();
        tags.sort();
        Ok(tags)
    }

    /// Which repositories (paths) of a registry have a blob, as far as names here tell: where it can be mounted from.
    ///
    /// # Errors
    /// When records cannot be read.
    pub fn repositories_with(&self, domain: &str) -> Result<HashMap<Digest, Vec<String>>> {
        let mut names = self.references_by_id()?;
        let mut found: HashMap<Digest, Vec<String>> = HashMap::new();
        for (id, record) in self.records()? {
            // Only a digest reference proves that the registry has it.
            let proven = names.remove(&id).unwrap_or_default().into_iter();
            let proven = proven.filter(|r| r.digest().is_some() && r.domain() == domain);
            for path in proven.map(|r| r.path().to_owned()) {
                for blob in record.blobs(id) {
                    let paths = found.entry(blob).or_default();
                    if !paths.contains(&path) {
                        paths.push(path.clone());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Notes under which digest a registry has the image now.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn note_pushed(&self, id: &Digest, reference: &Reference) -> Result<()> {
        let _changing = self.lock();
        if self.record(id)?.is_none() {
            return Ok(());
        }
        self.write(crate::record::put_tag(reference, id).to_vec())
    }
}
