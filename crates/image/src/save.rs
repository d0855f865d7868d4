//! Saving images: one tar that is an OCI layout and a docker-archive at once. The same images give the same bytes, whenever they are saved.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use berth_types::{Digest, Reference};
use serde::Serialize;
use tar::{EntryType, Header};

use crate::document::{Descriptor, Index, OCI_INDEX, Platform};
use crate::load::to_json;
use crate::oci_layout::{blob_name, name_annotations};
use crate::record::ImageRecord;
use crate::store::{ImageStore, not_found};
use crate::{ImageError, ProgressFn, Result};

/// `manifest.json` of a docker-archive.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Saved {
    id: Digest,
    record: ImageRecord,
    platform: Platform,
    references: Vec<Reference>,
}

impl ImageStore {
    /// A tar that is both OCI layout and docker-archive, as Docker writes it. A repository without a tag means all its tags. Layers that several
    /// images have are written once.
    ///
    /// # Errors
    /// `NotFound` before anything is written; later when a blob cannot be read or the sink fails.
    pub fn save(&self, names: &[String], out: &mut (dyn Write + Send), progress: ProgressFn<'_>) -> Result<()> {
        let (saved, _pins) = {
            let _changing = self.lock();
            let saved = self.chosen(names)?;
            let blobs: Vec<Digest> = saved.iter().flat_map(|image| image.record.blobs(image.id)).collect();
            (saved, blobs.into_iter().map(|digest| self.pin(digest)).collect::<Vec<_>>())
        };
        let mut tar = Archive { out };
        let blobs: BTreeMap<String, Digest> =
            saved.iter().flat_map(|i| i.record.blobs(i.id)).map(|digest| (blob_name(&digest), digest)).collect();
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        let layers: BTreeMap<Digest, Digest> =
            saved.iter().flat_map(|i| &i.record.layers).map(|layer| (layer.blob, layer.diff_id)).collect();
        for (name, digest) in blobs {
            let size = self.content.size(&digest)?;
            tar.file(&name, size, &mut self.content.reader(&digest)?)?;
            if let Some(diff_id) = layers.get(&digest) {
                progress(&diff_id.short(), "Saved layer", Some(size), Some(size));
            }
        }
        tar.document("index.json", &to_json(&self.index(&saved)?)?)?;
        tar.document("manifest.json", &to_json(&items(&saved))?)?;
        tar.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.finish()
    }

    /// The images that are meant, each once, with the names it is saved under.
    fn chosen(&self, names: &[String]) -> Result<Vec<Saved>> {
        let mut chosen: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for name in names {
            for (id, reference) in self.meant(name)? {
                let references = chosen.entry(id).or_default();
                references.extend(reference.filter(|r| !references.contains(r)));
            }
        }
        if chosen.is_empty() {
            return Err(ImageError::Invalid { what: "request", why: "no image to save was named".to_owned() });
        }
        let mut saved = Vec::with_capacity(chosen.len());
        for (id, mut references) in chosen {
            references.sort();
            let image = self.get_by_id(&id)?;
            let platform = Platform {
                architecture: image.config.architecture().to_string(),
                os: image.config.os().to_string(),
                variant: image.config.variant().clone(),
            };
            let record = self.record(&id)?.ok_or_else(|| not_found(&id.to_string()))?;
            saved.push(Saved { id, record, platform, references });
        }
        Ok(saved)
    }

    fn meant(&self, name: &str) -> Result<Vec<(Digest, Option<Reference>)>> {
        let parsed = name.parse::<Reference>().ok();
        if let Some(repository) = parsed.as_ref().filter(|r| r.tag().is_none() && r.digest().is_none()) {
            let tags =
                self.references_by_id()?.into_iter().flat_map(|(id, tags)| tags.into_iter().map(move |tag| (id, tag)));
            let mut all: Vec<(Digest, Option<Reference>)> = tags
                .filter(|(_, tag)| tag.tag().is_some() && tag.repository() == repository.repository())
                .map(|(id, tag)| (id, Some(tag)))
                .collect();
            all.sort();
            if !all.is_empty() {
                return Ok(all);
            }
        }
        let (id, record) = self.find(name)?;
        if record.is_hidden {
            return Err(not_found(name));
        }
        let reference = parsed.filter(|r| r.tag().is_some() && r.digest().is_none());
        let is_tag = reference.as_ref().map(|r| self.tag_target(r)).transpose()?.flatten() == Some(id);
        Ok(vec![(id, reference.filter(|_| is_tag))])
    }

    fn index(&self, saved: &[Saved]) -> Result<Index> {
        let mut manifests = Vec::new();
        for image in saved {
            let plain = Descriptor {
                media_type: image.record.manifest_media_type.clone(),
                digest: image.record.manifest,
                size: self.content.size(&image.record.manifest)?,
                platform: Some(image.platform.clone()),
                annotations: None,
            };
            if image.references.is_empty() {
                manifests.push(plain);
                continue;
            }
            for reference in &image.references {
                manifests.push(Descriptor { annotations: Some(name_annotations(reference)), ..plain.clone() });
            }
        }
        Ok(Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests })
    }
}

fn items(saved: &[Saved]) -> Vec<Item> {
    let item = |image: &Saved| Item {
        config: blob_name(&image.id),
        repo_tags: (!image.references.is_empty()).then(|| image.references.iter().map(Reference::familiar).collect()),
        layers: image.record.layers.iter().map(|layer| blob_name(&layer.blob)).collect(),
    };
    saved.iter().map(item).collect()
}

/// Writer of a tar in which nothing depends on the time or the machine.
pub(crate) struct Archive<'o> {
    pub(crate) out: &'o mut (dyn Write + Send),
}

impl Archive<'_> {
    pub(crate) fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    pub(crate) fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, bytes.len() as u64, &mut &*bytes)
    }

    pub(crate) fn file(&mut self, name: &str, size: u64, body: &mut (impl Read + ?Sized)) -> Result<()> {
        self.header(name, EntryType::Regular, 0o644, size)?;
        let failed = |source| ImageError::Io { operation: "save", object: name.to_owned(), source };
        let mut body = io::BufReader::with_capacity(256 << 10, body.take(size));
        let written = io::copy(&mut body, self.out).map_err(failed)?;
        if written != size {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        self.out.write_all(&[0; 512][..padding]).map_err(failed)
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let failed = |source| ImageError::Io { operation: "save", object: name.to_owned(), source };
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(failed)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(failed)
    }

    pub(crate) fn finish(self) -> Result<()> {
        let failed = |source| ImageError::Io { operation: "save", object: "the end of the archive".to_owned(), source };
        self.out.write_all(&[0; 1024]).map_err(failed)?;
        self.out.flush().map_err(failed)
    }
}
