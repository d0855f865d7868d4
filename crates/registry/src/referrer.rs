//! What refers to a manifest (signatures, bills of materials): asked of the referrers API, and kept in a tag where a registry has none.
//!
//! # Spec
//! distribution-spec 1.1, "Listing Referrers", "Pushing Manifests with Subject", "Referrers Tag Schema".

use berth_content::digest_of;
use berth_types::Digest;
use serde_json::{Value, json};

use crate::manifest::{Fetched, MANIFEST_BYTES_MAX, media_type_of};
use crate::request::Call;
use crate::session::Session;
use crate::{RegistryError, Result};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Session {
    /// The index of what refers to a manifest, from the referrers API or its fallback tag; `None`: nothing does.
    ///
    /// # Errors
    /// `PermissionDenied`, `Unavailable`; not for a registry that knows nothing of referrers.
    pub async fn referrers(&self, digest: &Digest) -> Result<Option<Fetched>> {
        for endpoint in self.endpoints.iter().filter(|e| e.capabilities.pull) {
            let uri = self.uri(endpoint, &format!("referrers/{digest}")).await?;
            let call = Call::get("list referrers of", uri, Self::scope(endpoint, "pull")).accepting(INDEX);
            match self.read_patiently(endpoint, call, MANIFEST_BYTES_MAX).await {
                Ok(answer) => {
                    let (media_type, bytes) = (media_type_of(&answer.headers), answer.bytes);
                    return Ok(Some(Fetched { digest: digest_of(&bytes), media_type, bytes }));
                }
                Err(RegistryError::Status { status: 400 | 404 | 405, .. }) => {}
                Err(error) if error.is_for_next_host() => tracing::debug!("{}", berth_types::report(&error)),
                Err(error) => return Err(error),
            }
        }
        self.tagged_referrers(digest).await
    }

    async fn tagged_referrers(&self, digest: &Digest) -> Result<Option<Fetched>> {
        match self.manifest(&fallback_tag(digest)).await {
            Ok(found) => Ok(Some(found)),
            Err(RegistryError::NoManifest { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// For a registry that did not say that it noted the subject of this manifest: the index under the fallback tag gets an entry for it.
    pub(crate) async fn note_referrer(&self, media_type: &str, manifest: &[u8]) -> Result<()> {
        let Some((subject, descriptor)) = referrer(media_type, manifest) else { return Ok(()) };
        let tag = fallback_tag(&subject);
        let known = self.tagged_referrers(&subject).await?;
        match with_referrer(known.as_ref().map(|found| &found.bytes[..]), descriptor) {
            Ok(Some(index)) => self.send_manifest(&tag, INDEX, &index).await.map(drop),
            Ok(None) => Ok(()),
            Err(NoIndex) => Err(RegistryError::ReferrersTag { tag }),
        }
    }
}

fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// What a manifest refers to, and how an index of referrers describes it.
fn referrer(media_type: &str, manifest: &[u8]) -> Option<(Digest, Value)> {
    let document: Value = serde_json::from_slice(manifest).ok()?;
    let subject = document.get("subject")?.get("digest")?.as_str()?.parse().ok()?;
    let digest = digest_of(manifest).to_string();
    let mut descriptor = json!({ "mediaType": media_type, "digest": digest, "size": manifest.len() });
    let of_config = || document.get("config")?.get("mediaType");
    if let Some(kind) = document.get("artifactType").filter(|kind| kind.as_str() != Some("")).or_else(of_config) {
        descriptor["artifactType"] = kind.clone();
    }
    if let Some(annotations) = document.get("annotations") {
        descriptor["annotations"] = annotations.clone();
    }
    Some((subject, descriptor))
}

/// Something else stands under the tag.
#[derive(Debug, PartialEq, Eq)]
struct NoIndex;

/// The index with one more entry, everything else in it as it is; `None` when it has it.
fn with_referrer(known: Option<&[u8]>, descriptor: Value) -> std::result::Result<Option<Vec<u8>>, NoIndex> {
    let mut index = match known {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| NoIndex)?,
        None => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
    };
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or(NoIndex)?;
    if entries.iter().any(|entry| entry.get("digest") == descriptor.get("digest")) {
        return Ok(None);
    }
    entries.push(descriptor);
    Ok(Some(index.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_added_once() {
        let subject = digest_of(b"image");
        let manifest = json!({
            "schemaVersion": 2, "config": {"mediaType": "application/x-sbom"}, "annotations": {"a": "b"},
            "subject": {"digest": subject.to_string(), "size": 5, "mediaType": "m"}
        });
        let bytes = manifest.to_string().into_bytes();
        let (found, descriptor) = referrer("m", &bytes).unwrap();
        assert_eq!(found, subject);
        assert_eq!(
            (&descriptor["artifactType"], &descriptor["annotations"]["a"]),
            (&json!("application/x-sbom"), &json!("b"))
        );
        let first = with_referrer(None, descriptor.clone()).unwrap().unwrap();
        assert_eq!(with_referrer(Some(&first), descriptor.clone()), Ok(None));
        let second = with_referrer(Some(&first), json!({"digest": "other"})).unwrap().unwrap();
        let index: Value = serde_json::from_slice(&second).unwrap();
        assert_eq!(index["manifests"], json!([descriptor, {"digest": "other"}]));
        let noted = with_referrer(Some(br#"{"manifests":[],"annotations":{"kept":"1"}}"#), json!({"digest": "other"}));
        assert!(String::from_utf8(noted.unwrap().unwrap()).unwrap().contains(r#""kept":"1""#));
        for other in [&b"rubbish"[..], br#"{"schemaVersion":2,"config":{},"layers":[]}"#] {
            assert_eq!(
                with_referrer(Some(other), json!({"digest": "other"})),
                Err(NoIndex),
                "nobody's manifest is replaced"
            );
        }
        assert_eq!(referrer("m", br#"{"schemaVersion":2}"#), None);
    }
}
