//! Manifests, tags and referrers.

use berth_content::digest_of;
use berth_types::Digest;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use super::RegistryServer;
use super::answer::{self, Answer, Refusal, invalid, not_found, with_header};
use super::route::Target;
use super::upload::parameter;
use crate::MANIFEST_BYTES_MAX;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Tags of one page when nothing is said.
const PAGE: usize = 1000;

/// What has to be known of a manifest to keep it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    urls: Option<Vec<String>>,
}

impl RegistryServer {
    pub(super) fn get_manifest(&self, name: &str, target: &Target, is_head: bool) -> Answer {
        let unknown = || not_found("MANIFEST_UNKNOWN", "there is no such manifest");
        let digest = match target {
            Target::Digest(digest) => *digest,
            Target::Tag(tag) => self.shelf.tag(name, tag)?.ok_or_else(unknown)?,
        };
        let media_type = self.shelf.media_type(name, &digest)?.ok_or_else(unknown)?;
        let bytes = self.shelf.content.read(&digest, MANIFEST_BYTES_MAX)?;
        let response = answer::bytes(&media_type, bytes, is_head);
        Ok(with_header(response, "docker-content-digest", &digest.to_string()))
    }

    pub(super) async fn put_manifest(&self, name: &str, target: &Target, request: Request<Incoming>) -> Answer {
        let stated = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let stated = stated.split(';').next().unwrap_or_default().trim().to_owned();
        let limit = usize::try_from(MANIFEST_BYTES_MAX).unwrap_or(usize::MAX);
        let too_large = |_| {
            let message = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
        };
        let bytes = Limited::new(request.into_body(), limit).collect().await.map_err(too_large)?.to_bytes();
        let digest = digest_of(&bytes);
        if matches!(target, Target::Digest(wanted) if *wanted != digest) {
            return Err(invalid("DIGEST_INVALID", format!("the manifest has digest {digest}")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| invalid("MANIFEST_INVALID", format!("the manifest is not valid: {error}")))?;
        let media_type = self.check(name, &manifest, stated)?;
        self.shelf.content.keep([self.shelf.content.stage(&bytes)?])?;
        self.shelf.add_manifest(name, &digest, &media_type)?;
        if let Target::Tag(tag) = target {
            self.shelf.set_tag(name, tag, &digest)?;
        }
        let response = answer::empty(StatusCode::CREATED);
        let response = with_header(response, "location", &format!("/v2/{name}/manifests/{digest}"));
        let response = with_header(response, "docker-content-digest", &digest.to_string());
        let Some(subject) = &manifest.subject else { return Ok(response) };
        let descriptor = referrer(&manifest, &media_type, &digest, bytes.len());
        self.shelf.add_referrer(name, &subject.digest, &digest, descriptor.to_string().as_bytes())?;
        Ok(with_header(response, "oci-subject", &subject.digest.to_string()))
    }

    /// Refuses what is ambiguous, unknown, or names what the repository does not have. Returns the media type.
    fn check(&self, name: &str, manifest: &Manifest, stated: String) -> Result<String, Refusal> {
        let wrong = |why: &str| Err(invalid("MANIFEST_INVALID", why));
        if manifest.schema_version != 2 {
            return wrong("schema 1 is not supported");
        }
        let media_type = manifest.media_type.clone().unwrap_or_else(|| stated.clone());
        if !stated.is_empty() && stated != media_type {
            return wrong("its media type is not the one it is sent as");
        }
        let is_index = manifest.manifests.is_some();
        if is_index && (manifest.layers.is_some() || manifest.config.is_some()) {
            return wrong("it is both an index and a manifest");
        }
        let known: &[&str] = if is_index { &[INDEX, DOCKER_LIST] } else { &[MANIFEST, DOCKER_MANIFEST] };
        if !known.contains(&media_type.as_str()) {
            return wrong("its media type is not supported");
        }
        let unknown = |digest: &Digest| not_found("MANIFEST_BLOB_UNKNOWN", format!("{digest} is not in {name}"));
        for descriptor in manifest.config.iter().chain(manifest.layers.iter().flatten()) {
            let is_elsewhere = descriptor.urls.as_ref().is_some_and(|urls| !urls.is_empty());
            if !is_elsewhere && !self.shelf.has_blob(name, &descriptor.digest) {
                return Err(unknown(&descriptor.digest));
            }
        }
        for descriptor in manifest.manifests.iter().flatten() {
            if self.shelf.media_type(name, &descriptor.digest)?.is_none() {
                return Err(unknown(&descriptor.digest));
            }
        }
        Ok(media_type)
    }

    pub(super) fn tags(&self, name: &str, query: &str) -> Answer {
        if !self.shelf.is_known(name) {
            return Err(not_found("NAME_UNKNOWN", format!("there is no repository {name}")));
        }
        let count = parameter(query, "n").and_then(|n| n.parse::<usize>().ok()).unwrap_or(PAGE).min(PAGE);
        let last = parameter(query, "last").unwrap_or_default();
        let all = self.shelf.tags(name)?;
        let mut left = all.into_iter().filter(|tag| last.is_empty() || *tag > last);
        let page: Vec<String> = left.by_ref().take(count).collect();
        let mut response = answer::json(&json!({ "name": name, "tags": page }));
        if let (Some(last), Some(_)) = (page.last(), left.next()) {
            let link = format!("</v2/{name}/tags/list?n={count}&last={last}>; rel=\"next\"");
            if let Ok(value) = HeaderValue::from_str(&link) {
                response.headers_mut().insert(LINK, value);
            }
        }
        Ok(response)
    }

    pub(super) fn get_referrers(&self, name: &str, digest: &Digest, query: &str) -> Answer {
        let wanted = parameter(query, "artifactType");
        let all = self.shelf.referrers(name, digest)?;
        let all = all.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
        let fitting: Vec<Value> = all
            .filter(|descriptor| wanted.as_ref().is_none_or(|kind| descriptor["artifactType"] == kind.as_str()))
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": fitting });
        let response = answer::bytes(INDEX, index.to_string().into_bytes(), false);
        Ok(if wanted.is_some() { with_header(response, "oci-filters-applied", "artifactType") } else { response })
    }
}

/// distribution-spec, "Pushing Manifests with Subject".
fn referrer(manifest: &Manifest, media_type: &str, digest: &Digest, size: usize) -> Value {
    let config_type = manifest.config.as_ref().map(|config| config.media_type.clone());
    let mut descriptor = json!({ "mediaType": media_type, "digest": digest, "size": size });
    if let Some(kind) = manifest.artifact_type.clone().or(config_type).filter(|kind| !kind.is_empty()) {
        descriptor["artifactType"] = json!(kind);
    }
    if let Some(annotations) = &manifest.annotations {
        descriptor["annotations"] = annotations.clone();
    }
    descriptor
}
