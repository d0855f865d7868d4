//! An archive becomes blobs of a tenant: an OCI layout as it is, a docker-archive with manifests made for it. Names are the caller's affair.
//!
//! Everything brought is held by the caller's lease; what nothing leads to is collected after it.
//!
//! # Spec
//! image-spec "Image Layout Specification"; the archive form of `docker save`.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use berth_content::Expected;
use berth_types::{Digest, Labels, Reference};
use serde::Deserialize;

use super::{Target, Tenant};
use crate::compression;
use crate::document::{
    Descriptor, Document, INDEX_BYTES_MAX, Index, LAYERS_MAX, Manifest, OCI_INDEX, parse_archive_json,
};
use crate::load::to_json;
use crate::oci_layout::name_annotations;
use crate::tar_stream::{EntryKind, TarReader};
use crate::{ImageError, Result};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYOUT_BYTES_MAX: u64 = 4096;
const FILES_MAX: usize = 20_000;
const IMAGES_MAX: usize = 1024;
const LINKS_MAX: usize = 16;

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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// One import under way.
struct Import<'s, 'l> {
    tenant: Tenant<'s>,
    lease: &'l str,
    files: HashMap<String, (Digest, u64)>,
    links: HashMap<String, String>,
    documents: HashMap<String, Vec<u8>>,
    new_blobs: Vec<(Digest, u64)>,
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
        let mut import = Import {
            tenant: *self,
            lease,
            files: HashMap::new(),
            links: HashMap::new(),
            documents: HashMap::new(),
            new_blobs: Vec::new(),
        };
        import.read(&mut TarReader::new(&mut plain))?;
        import.finish()
    }
}

impl Import<'_, '_> {
    fn read(&mut self, tar: &mut TarReader<'_>) -> Result<()> {
        while tar.next_entry()? {
            let (kind, name) = (tar.entry().kind, plain_name(&tar.entry().path)?);
            if self.files.len() + self.links.len() >= FILES_MAX {
                return Err(ImageError::archive(format!("it has more than {FILES_MAX} files")));
            }
            match kind {
                EntryKind::Directory => {}
                EntryKind::Symlink | EntryKind::HardLink => {
                    let target = String::from_utf8_lossy(&tar.entry().link).into_owned();
                    let base =
                        if kind == EntryKind::Symlink { name.rsplit_once('/').map_or("", |(d, _)| d) } else { "" };
                    let target = joined(base, &target)?;
                    self.links.insert(name, target);
                }
                EntryKind::File => self.file(tar, name)?,
                _ => return Err(ImageError::archive(format!("{name:?} is a device or pipe"))),
            }
        }
        Ok(())
    }

    fn file(&mut self, tar: &mut TarReader<'_>, name: String) -> Result<()> {
        let limit = match name.as_str() {
            "oci-layout" => Some(LAYOUT_BYTES_MAX),
            "index.json" | "manifest.json" => Some(INDEX_BYTES_MAX),
            _ => None,
        };
        if let Some(limit) = limit {
            let bytes = document(tar, &name, limit)?;
            self.documents.insert(name, bytes);
            return Ok(());
        }
        let expected = match name.strip_prefix("blobs/") {
            Some(rest) => Some(rest.replacen('/', ":", 1).parse::<Digest>().map_err(|error| {
                ImageError::archive(format!("{name:?} is not named after a sha256 digest: {error}"))
            })?),
            None => None,
        };
        let size = tar.entry().size;
        let kept = self.keep(tar, &name, Expected { digest: expected, size_bytes: Some(size) })?;
        self.files.insert(name, (kept, size));
        Ok(())
    }

    /// The current entry's data as a blob under the lease.
    fn keep(&mut self, tar: &mut TarReader<'_>, name: &str, expected: Expected) -> Result<Digest> {
        let reference = format!("import-{}-{}", self.lease, self.files.len());
        let writer = match self.tenant.write_blob(&reference, expected, Some(self.lease)) {
            Err(ImageError::Exists { .. }) => {
                let digest = expected.digest.unwrap_or_else(|| Digest::from_bytes([0; 32]));
                self.hold(digest)?;
                return Ok(digest);
            }
            other => other?,
        };
        let is_shared = matches!(writer, super::BlobWriter::Shared(_));
        let mut at = 0;
        while let Some((offset, piece)) = tar.next_piece()? {
            if offset != at {
                return Err(ImageError::archive(format!("{name:?} is sparse")));
            }
            at += piece.len() as u64;
            if !is_shared {
                writer.append(piece)?;
            }
        }
        self.commit(writer, expected)
    }

    fn commit(&mut self, writer: super::BlobWriter, expected: Expected) -> Result<Digest> {
        let size = writer.status().offset;
        let known = writer.status().expected;
        match self.tenant.commit_blob(writer, expected, &Labels::new(), Some(self.lease)) {
            Ok(digest) => {
                self.new_blobs.push((digest, size));
                Ok(digest)
            }
            Err(ImageError::Exists { name, .. }) => {
                let digest = expected.digest.or(known).or_else(|| name.parse().ok());
                let digest = digest.ok_or_else(|| ImageError::archive("a blob has no digest"))?;
                self.hold(digest)?;
                Ok(digest)
            }
            Err(error) => Err(error),
        }
    }

    fn hold(&self, digest: Digest) -> Result<()> {
        let resource = super::Resource { kind: "content".to_owned(), id: digest.to_string() };
        self.tenant.add_resource(self.lease, resource)
    }

    /// A document of ours as a blob.
    fn keep_bytes(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = crate::document::digest_of_document(bytes);
        let expected = Expected { digest: Some(digest), size_bytes: Some(bytes.len() as u64) };
        let reference = format!("import-{}-{}", self.lease, digest.short());
        match self.tenant.write_blob(&reference, expected, Some(self.lease)) {
            Err(ImageError::Exists { .. }) => self.hold(digest)?,
            Err(error) => return Err(error),
            Ok(writer) => {
                if matches!(writer, super::BlobWriter::Ingest(_)) {
                    writer.restart()?;
                    writer.append(bytes)?;
                }
                self.commit(writer, expected)?;
            }
        }
        Ok(digest)
    }

    fn finish(mut self) -> Result<Imported> {
        if let Some(bytes) = self.documents.get("oci-layout") {
            let layout: Layout = parse_archive_json(bytes, "oci-layout")?;
            if layout.image_layout_version != "1.0.0" {
                return Err(ImageError::archive("its layout version is not 1.0.0"));
            }
        }
        let bytes = match (self.documents.remove("index.json"), self.documents.remove("manifest.json")) {
            (Some(index), _) => index,
            (None, Some(manifest)) => to_json(&self.docker_index(&manifest)?)?,
            (None, None) => {
                return Err(ImageError::archive("it is neither an OCI layout nor a docker-archive"));
            }
        };
        let Document::Index(index) = Document::parse(&bytes, "index.json", "")? else {
            return Err(ImageError::archive("its index.json is a manifest"));
        };
        if index.manifests.len() > IMAGES_MAX {
            return Err(ImageError::archive(format!("it has more than {IMAGES_MAX} images")));
        }
        let digest = self.keep_bytes(&bytes)?;
        let size_bytes = bytes.len() as u64;
        Ok(Imported {
            index: Target { media_type: OCI_INDEX.to_owned(), digest, size_bytes, annotations: BTreeMap::new() },
            images: index.manifests.iter().map(super::document::target_of).collect(),
            new_blobs: self.new_blobs,
        })
    }

    /// The index a docker-archive would have had.
    fn docker_index(&mut self, manifest: &[u8]) -> Result<Index> {
        let items: Vec<Item> = parse_archive_json(manifest, "manifest.json")?;
        if items.is_empty() || items.len() > IMAGES_MAX {
            return Err(ImageError::archive(format!("its manifest.json names {} images", items.len())));
        }
        let mut manifests = Vec::new();
        for item in items {
            let document = to_json(&self.docker_manifest(&item)?)?;
            let digest = self.keep_bytes(&document)?;
            let plain = Descriptor {
                media_type: DOCKER_MANIFEST.to_owned(),
                digest,
                size: document.len() as u64,
                platform: None,
                annotations: None,
            };
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

    fn docker_manifest(&self, item: &Item) -> Result<Manifest> {
        let names = item.layers.as_deref().unwrap_or_default();
        if names.len() > LAYERS_MAX {
            return Err(ImageError::archive(format!("an image has more than {LAYERS_MAX} layers")));
        }
        let layers = names.iter().map(|name| self.docker_layer(name)).collect::<Result<Vec<_>>>()?;
        let (digest, size) = self.follow(&item.config)?;
        let config =
            Descriptor { media_type: DOCKER_CONFIG.to_owned(), digest, size, platform: None, annotations: None };
        Ok(Manifest { schema_version: 2, media_type: DOCKER_MANIFEST.to_owned(), config, layers })
    }

    fn docker_layer(&self, name: &str) -> Result<Descriptor> {
        let (digest, size) = self.follow(name)?;
        let (compression, _) = compression::detect(self.tenant.open_blob(&digest)?, name)?;
        let media_type = match compression {
            compression::Compression::None => DOCKER_LAYER.to_owned(),
            compression::Compression::Gzip => format!("{DOCKER_LAYER}.gzip"),
            compression::Compression::Zstd => format!("{DOCKER_LAYER}.zstd"),
        };
        Ok(Descriptor { media_type, digest, size, platform: None, annotations: None })
    }

    /// A file by its name, through the archive's own links.
    fn follow(&self, name: &str) -> Result<(Digest, u64)> {
        let mut name = joined("", name)?;
        for _ in 0..LINKS_MAX {
            if let Some(found) = self.files.get(&name) {
                return Ok(*found);
            }
            let Some(next) = self.links.get(&name) else { break };
            name.clone_from(next);
        }
        Err(ImageError::archive(format!("it has no file {name:?}")))
    }
}

fn document(tar: &mut TarReader<'_>, name: &str, limit: u64) -> Result<Vec<u8>> {
    if tar.entry().size > limit {
        return Err(ImageError::TooLarge { what: name.to_owned(), bytes_max: limit });
    }
    let mut bytes = Vec::new();
    while let Some((_, piece)) = tar.next_piece()? {
        bytes.extend_from_slice(piece);
    }
    Ok(bytes)
}

fn plain_name(path: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(path).map_err(|_| ImageError::archive("a file name is not UTF-8"))?;
    joined("", text)
}

/// A name below the archive's root, `.` and `..` resolved.
fn joined(base: &str, name: &str) -> Result<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| ImageError::archive(format!("{name:?} leaves the archive")))?;
            }
            other => parts.push(other),
        }
    }
    Ok(parts.join("/"))
}
