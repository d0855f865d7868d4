//! An image as an archive offers it: every document read and checked, no layer looked into yet.

use berth_content::Staged;
use berth_types::{Digest, Reference};

use crate::compression::{self, Compression};
use crate::document::{ConfigFacts, Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST, layer_media_type};
use crate::spool::Spool;
use crate::{ImageError, Result};

#[derive(Debug)]
pub(crate) struct Candidate {
    /// Digest of the config: the image's id.
    pub(crate) id: Digest,
    pub(crate) config: ConfigFacts,
    pub(crate) config_bytes: u64,
    /// The manifest that came with it; `None`: we make one.
    pub(crate) manifest: Option<(Digest, Manifest)>,
    /// Bottom to top, as many as the config has diff ids.
    pub(crate) layers: Vec<PackedLayer>,
    pub(crate) references: Vec<Reference>,
    /// From a registry: its manifest replaces another that the store may have for the same image.
    pub(crate) is_pulled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PackedLayer {
    pub(crate) blob: Digest,
    pub(crate) size_bytes: u64,
    pub(crate) compression: Compression,
}

impl Candidate {
    /// Refuses what does not belong together.
    pub(crate) fn check(self) -> Result<Self> {
        let (layers, diff_ids) = (self.layers.len(), self.config.diff_ids.len());
        if layers != diff_ids {
            let why = format!("image {} has {layers} layers but its config names {diff_ids}", self.id.short());
            return Err(ImageError::archive(why));
        }
        if self.config.platform.os != "linux" {
            let why = format!("image {} is for {}, not for linux", self.id.short(), self.config.platform);
            return Err(ImageError::archive(why));
        }
        Ok(self)
    }

    /// The manifest that describes the layers as they are kept.
    pub(crate) fn made_manifest(&self, layers: &[PackedLayer]) -> Manifest {
        let plain = |media_type: &str, digest, size| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
        };
        Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config: plain(OCI_CONFIG, self.id, self.config_bytes),
            layers: layers.iter().map(|l| plain(layer_media_type(l.compression), l.blob, l.size_bytes)).collect(),
        }
    }
}

/// A layer of the archive, its compression told by its bytes.
pub(crate) fn packed_layer(staged: &Staged, what: &str) -> Result<PackedLayer> {
    let (compression, _) = compression::detect(staged.reader()?, what)?;
    Ok(PackedLayer { blob: staged.digest(), size_bytes: staged.size_bytes(), compression })
}

/// Two images of one archive must not claim the same name.
pub(crate) fn check_references(candidates: &[Candidate]) -> Result<()> {
    let mut seen = std::collections::HashMap::new();
    for candidate in candidates {
        for reference in &candidate.references {
            if seen.insert(reference, candidate.id).is_some_and(|other| other != candidate.id) {
                let why = format!("two of its images claim the name {}", reference.familiar());
                return Err(ImageError::archive(why));
            }
        }
    }
    Ok(())
}

/// What the archive holds, whichever form it has. With both a `manifest.json` and an `index.json` both must tell of the same images, else
/// another tool would see another image under the same name.
pub(crate) fn candidates(spool: &Spool) -> Result<Vec<Candidate>> {
    let is_layout = spool.has("index.json");
    let is_docker = spool.has("manifest.json");
    let mut found = match (is_layout, is_docker) {
        (true, _) => crate::oci_layout::read(spool)?,
        (false, true) => crate::docker_archive::read(spool)?,
        (false, false) => {
            return Err(ImageError::archive("it has neither a manifest.json nor an index.json: no image archive"));
        }
    };
    if is_layout && is_docker {
        merge(&mut found, crate::docker_archive::read(spool)?)?;
    }
    check_references(&found)?;
    Ok(found)
}

fn merge(layout: &mut [Candidate], docker: Vec<Candidate>) -> Result<()> {
    for theirs in docker {
        let blobs = |c: &Candidate| c.layers.iter().map(|layer| layer.blob).collect::<Vec<_>>();
        let ours = layout.iter_mut().find(|ours| ours.id == theirs.id && blobs(ours) == blobs(&theirs));
        let Some(ours) = ours else {
            let why = format!("manifest.json has image {} which index.json does not have", theirs.id.short());
            return Err(ImageError::archive(why));
        };
        for reference in theirs.references {
            if !ours.references.contains(&reference) {
                ours.references.push(reference);
            }
        }
    }
    Ok(())
}
