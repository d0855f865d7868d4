//! What the metadata keeps of an image: which blobs it is made of and when it was tagged. Everything else is in the config blob.
//!
//! Format 1: JSON in table `Images` under the image's id. Table `Tags`: full reference -> image id.

use berth_metadata::{Table, Write};
use berth_types::{Digest, Reference, Timestamp};
use serde::{Deserialize, Serialize};

use crate::document::chain_ids;
use crate::{ImageError, Result};

const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) format: u32,
    pub(crate) manifest: Digest,
    pub(crate) manifest_media_type: String,
    /// Bottom to top.
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) last_tagged: Option<Timestamp>,
    /// When it came to be here; not known of images of earlier versions.
    #[serde(default)]
    pub(crate) admitted: Option<Timestamp>,
    /// Removed by force while a stopped container uses it: not listed any more, deleted with the container.
    #[serde(default)]
    pub(crate) is_hidden: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Digest,
    /// Unpacked: sum of the sizes of regular files.
    pub(crate) size_bytes: u64,
}

impl ImageRecord {
    pub(crate) fn new(manifest: Digest, manifest_media_type: &str, layers: Vec<LayerRecord>) -> Self {
        let manifest_media_type = manifest_media_type.to_owned();
        Self {
            format: FORMAT,
            manifest,
            manifest_media_type,
            layers,
            last_tagged: None,
            admitted: Some(Timestamp::now()),
            is_hidden: false,
        }
    }

    pub(crate) fn parse(id: &str, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|source| ImageError::Record { id: id.to_owned(), source })
    }

    pub(crate) fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>())
    }

    /// Every blob the image needs; `id` is its config.
    pub(crate) fn blobs(&self, id: Digest) -> impl Iterator<Item = Digest> {
        [id, self.manifest].into_iter().chain(self.layers.iter().map(|layer| layer.blob))
    }

    pub(crate) fn put(&self, id: &Digest) -> Result<Write> {
        let key = id.to_string();
        let value = serde_json::to_vec(self).map_err(|source| ImageError::Record { id: key.clone(), source })?;
        Ok(Write::Put { table: Table::Images, key, value })
    }
}

/// What the containerd API knew of the name before is no longer so.
pub(crate) fn put_tag(reference: &Reference, id: &Digest) -> [Write; 2] {
    let put = Write::Put { table: Table::Tags, key: reference.to_string(), value: id.to_string().into_bytes() };
    [put, forget_name(reference)]
}

pub(crate) fn delete_tag(reference: &Reference) -> [Write; 2] {
    [Write::Delete { table: Table::Tags, key: reference.to_string() }, forget_name(reference)]
}

fn forget_name(reference: &Reference) -> Write {
    Write::Delete { table: Table::Names, key: format!("{}/{reference}", crate::tenant::DOCKER_TENANT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of format 1 stay readable.
    #[test]
    fn format_1_is_read() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let json = format!(
            r#"{{"format":1,"manifest":"{digest}","manifest_media_type":"m","layers":[{{"diff_id":"{digest}","blob":"{digest}",
            "size_bytes":5}}],"last_tagged":"2026-11-23T10:00:00.000000000Z","is_hidden":false}}"#
        );
        let record = ImageRecord::parse(&digest, json.as_bytes()).unwrap();
        let mut expect = ImageRecord::new(
            digest.parse().unwrap(),
            "m",
            vec![LayerRecord { diff_id: digest.parse().unwrap(), blob: digest.parse().unwrap(), size_bytes: 5 }],
        );
        expect.admitted = None;
        expect.last_tagged = Some("2026-11-23T10:00:00Z".parse().unwrap());
        assert_eq!(record, expect);
    }
}
