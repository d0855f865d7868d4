//! An image's layers become committed snapshots of a tenant under their chain ids, as a client that unpacks would make them.

use berth_types::{Digest, Labels, Timestamp};

use super::{Target, Tenant};
use crate::document::{CONFIG_BYTES_MAX, ConfigDocument, chain_ids, layer_compression};
use crate::pull::TargetPlatform;
use crate::{ImageError, Result};

const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.overlayfs";
const WILL_BE: &str = "containerd.io/snapshot.ref";

/// A snapshot that was made for a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedLayer {
    pub key: String,
    pub parent: Option<String>,
    /// Its chain id.
    pub name: String,
}

impl Tenant<'_> {
    /// Unpacks the manifest of this platform that the target leads to. Layers that are there stay as they are.
    ///
    /// # Errors
    /// `NotFound` when it or a layer is not here; `InvalidArgument` for a layer that is not what its config says, or of a media type that is not
    /// a layer's (an encrypted one), whether its files are here or not.
    pub fn unpack_image(
        &self,
        target: &Target,
        platform: &TargetPlatform,
        lease: Option<&str>,
    ) -> Result<Vec<UnpackedLayer>> {
        let parts = self.parts(target, std::slice::from_ref(platform))?;
        let Some((_, config, layers)) = parts.manifests.first() else { return Ok(Vec::new()) };
        let bytes = self.store.content.read(&config.digest, CONFIG_BYTES_MAX)?;
        let document = ConfigDocument::parse(&bytes, &format!("config {}", config.digest.short()))?;
        if document.diff_ids.len() != layers.len() {
            return Err(ImageError::archive("its config and its manifest have different numbers of layers"));
        }
        // Before anything is found to be there already: bytes that nobody may decrypt are not run because somebody else unpacked them (CVE-2022-24778).
        for layer in layers {
            layer_compression(&layer.media_type, &format!("layer {}", layer.digest.short()))?;
        }
        let mut made = Vec::new();
        let mut parent: Option<String> = None;
        let chain = chain_ids(&document.diff_ids);
        for ((layer, diff_id), chain_id) in layers.iter().zip(&document.diff_ids).zip(chain) {
            let name = chain_id.to_string();
            made.extend(self.unpack_layer(&layer.digest, diff_id, &name, parent.as_deref(), lease)?);
            parent = Some(name);
        }
        if let Some(top) = parent {
            // The image leads to its snapshots, so that collection leaves them.
            let labels: Labels = [(REF_SNAPSHOT.to_owned(), top)].into();
            self.update_blob(&config.digest, &labels, &[format!("labels.{REF_SNAPSHOT}")])?;
        }
        Ok(made)
    }

    fn unpack_layer(
        &self,
        blob: &Digest,
        diff_id: &Digest,
        name: &str,
        parent: Option<&str>,
        lease: Option<&str>,
    ) -> Result<Option<UnpackedLayer>> {
        let snapshots = self.snapshots();
        if snapshots.stat(name).is_ok() {
            return Ok(None);
        }
        let key = format!("extract-{} {name}", Timestamp::now().0);
        let labels: Labels = [(WILL_BE.to_owned(), name.to_owned())].into();
        let mounts = match snapshots.prepare(&key, parent, &labels, lease) {
            Err(error) if berth_types::Classify::class(&error) == berth_types::ErrorClass::AlreadyExists => {
                return Ok(None);
            }
            other => other?,
        };
        let applied = self.apply_layer(blob, &mounts).and_then(|applied| {
            if applied.diff_id == *diff_id {
                return Ok(());
            }
            let what = format!("the content of layer {}", blob.short());
            Err(ImageError::WrongDigest { what, expected: *diff_id, found: applied.diff_id })
        });
        let committed = applied.and_then(|()| match snapshots.commit(name, &key, &Labels::new(), lease) {
            // Somebody else unpacked the same layer meanwhile.
            Err(error) if berth_types::Classify::class(&error) == berth_types::ErrorClass::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        });
        match committed {
            Ok(true) => Ok(Some(UnpackedLayer { key, parent: parent.map(str::to_owned), name: name.to_owned() })),
            Ok(false) => snapshots.remove(&key).map(|()| None),
            Err(error) => {
                // The first error is the one that matters; what stays is collected with the lease.
                snapshots.remove(&key).ok();
                Err(error)
            }
        }
    }
}
