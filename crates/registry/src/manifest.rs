//! Manifests by tag and digest, and tags: small documents, bounded and checked against their digest.

use berth_content::digest_of;
use berth_types::Digest;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::request::{Call, Document};
use crate::session::Session;
use crate::{RegistryError, Result, address};

/// CVE-2017-11468, CVE-2023-2253.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
const TAG_PAGES_MAX: usize = 200;
const TAGS_MAX: usize = 100_000;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// What a registry says of a manifest without giving it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub digest: Digest,
    pub media_type: String,
}

/// A document whose bytes have this digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Session {
    /// The digest a tag stands for, where a registry tells without handing the manifest out; `None`: it does not.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `Unavailable`.
    pub async fn describe(&self, tag: &str) -> Result<Option<Described>> {
        let mut last = None;
        for endpoint in self.endpoints.iter().filter(|e| e.capabilities.resolve) {
            match self.describe_at(endpoint, tag).await {
                Ok(found) => return Ok(found),
                Err(error) if error.is_for_next_host() => last = Some(passed_over(endpoint, error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_host("resolve tags")))
    }

    async fn describe_at(&self, endpoint: &Endpoint, tag: &str) -> Result<Option<Described>> {
        let mut call = self.manifest_call(endpoint, tag).await?;
        call.method = Method::HEAD;
        let answer = match self.call_patiently(endpoint, call).await {
            Ok(answer) => answer,
            // Not every registry knows HEAD; the GET that follows says what is the matter.
            Err(RegistryError::Status { status: 400 | 405 | 501, .. }) => return Ok(None),
            Err(error) => return Err(self.not_found(error, tag)),
        };
        let media_type = media_type_of(answer.response.headers());
        let digest = answer.header("docker-content-digest").and_then(|text| text.trim().parse().ok());
        Ok(digest.map(|digest| Described { digest, media_type }))
    }

    /// A manifest or index by tag or digest (`sha256:…`).
    ///
    /// # Errors
    /// `NotFound`; `DataLoss` when the bytes are not what the digest says; `InvalidArgument` when it is too large.
    pub async fn manifest(&self, target: &str) -> Result<Fetched> {
        let by_digest: Option<Digest> = target.parse().ok();
        let mut last = None;
        for endpoint in &self.endpoints {
            let can = endpoint.capabilities;
            if !(if by_digest.is_some() { can.pull } else { can.resolve }) {
                continue;
            }
            match self.manifest_at(endpoint, target, by_digest).await {
                Ok(found) => return Ok(found),
                Err(error) if error.is_for_next_host() => last = Some(passed_over(endpoint, error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_host("pull manifests")))
    }

    async fn manifest_at(&self, endpoint: &Endpoint, target: &str, by_digest: Option<Digest>) -> Result<Fetched> {
        let call = self.manifest_call(endpoint, target).await?;
        let document = self.read_patiently(endpoint, call, MANIFEST_BYTES_MAX).await;
        let document = document.map_err(|error| self.not_found(error, target))?;
        let media_type = media_type_of(&document.headers);
        let stated = document.header("docker-content-digest").map(|text| text.trim().parse::<Digest>());
        if media_type.starts_with("application/vnd.docker.distribution.manifest.v1+") {
            let what = format!("the schema 1 manifest of {} ({media_type})", self.named_target(target));
            return Err(RegistryError::Unsupported { what });
        }
        let bytes = document.bytes;
        let digest = digest_of(&bytes);
        let what = || format!("manifest {} from {}", self.named_target(target), endpoint.authority);
        if let Some(expected) = by_digest.filter(|expected| *expected != digest) {
            return Err(RegistryError::WrongDigest { what: what(), expected, found: digest });
        }
        match stated {
            Some(Ok(expected)) if expected != digest => {
                Err(RegistryError::WrongDigest { what: what(), expected, found: digest })
            }
            _ => Ok(Fetched { digest, media_type, bytes }),
        }
    }

    /// A small blob (an image's config), whole, checked.
    ///
    /// # Errors
    /// As for [`Self::manifest`].
    pub async fn document(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>> {
        let mut last = None;
        for endpoint in self.endpoints.iter().filter(|e| e.capabilities.pull) {
            let uri = self.uri(endpoint, &format!("blobs/{digest}")).await?;
            let call = Call::get("fetch", uri, Self::scope(endpoint, "pull"));
            let read = self.read_patiently(endpoint, call, bytes_max).await;
            let checked = read.and_then(|document| match digest_of(&document.bytes) {
                found if found == *digest => Ok(document.bytes),
                found => Err(RegistryError::WrongDigest {
                    what: format!("blob {} from {}", digest.short(), endpoint.authority),
                    expected: *digest,
                    found,
                }),
            });
            match checked {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.is_for_next_host() => last = Some(passed_over(endpoint, error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_host("pull blobs")))
    }

    /// Puts a manifest under a tag or its digest.
    ///
    /// # Errors
    /// `PermissionDenied`; `DataLoss` when the registry says it has another digest now.
    pub async fn put_manifest(&self, target: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let (digest, is_subject_noted) = self.send_manifest(target, media_type, bytes).await?;
        if !is_subject_noted {
            self.note_referrer(media_type, bytes).await?;
        }
        Ok(digest)
    }

    /// Also whether the registry says that it noted what the manifest refers to.
    pub(crate) async fn send_manifest(&self, target: &str, media_type: &str, bytes: &[u8]) -> Result<(Digest, bool)> {
        let endpoint = self.push_endpoint()?;
        let mut call =
            Call::get("push", self.uri(endpoint, &format!("manifests/{target}")).await?, push_scope(endpoint));
        call.method = Method::PUT;
        call.body = Bytes::copy_from_slice(bytes);
        let kind = HeaderValue::from_str(media_type)
            .map_err(|_| RegistryError::Unsupported { what: format!("media type {media_type:?}") })?;
        call.headers.insert(CONTENT_TYPE, kind);
        let answer = self.call_patiently(endpoint, call).await?;
        let digest = digest_of(bytes);
        let stated = answer.header("docker-content-digest").and_then(|text| text.trim().parse::<Digest>().ok());
        let is_subject_noted = answer.header("oci-subject").is_some();
        answer.drain("push").await;
        match stated {
            Some(found) if found != digest => {
                let what = format!("manifest {}", self.named_target(target));
                Err(RegistryError::WrongDigest { what, expected: digest, found })
            }
            _ => Ok((digest, is_subject_noted)),
        }
    }

    /// All tags of the repository, as the registry sorts them.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when there is no end of them.
    pub async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut last = None;
        for endpoint in self.endpoints.iter().filter(|e| e.capabilities.resolve) {
            let mut next = Some(self.uri(endpoint, "tags/list?n=1000").await?);
            let (mut tags, mut pages) = (Vec::new(), 0);
            while let Some(uri) = next.take() {
                pages += 1;
                let call = Call::get("list tags of", uri.clone(), Self::scope(endpoint, "pull"));
                let answer = match self.read_patiently(endpoint, call, MANIFEST_BYTES_MAX).await {
                    Ok(answer) => answer,
                    Err(error) if error.is_for_next_host() => {
                        last = Some(passed_over(endpoint, self.not_found(error, "")));
                        break;
                    }
                    Err(error) => return Err(error),
                };
                next = next_page(&uri, &answer);
                let Ok(page) = serde_json::from_slice::<Page>(&answer.bytes) else {
                    let why = "its list of tags is not valid JSON";
                    last = Some(passed_over(endpoint, RegistryError::misbehaves(&endpoint.authority, why)));
                    break;
                };
                tags.extend(page.tags.unwrap_or_default());
                if pages >= TAG_PAGES_MAX || tags.len() > TAGS_MAX {
                    let what = format!("the list of tags of {}", self.reference.familiar_repository());
                    return Err(RegistryError::TooLarge { what, bytes_max: TAGS_MAX as u64 });
                }
                if next.is_none() {
                    return Ok(tags);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.no_host("list tags")))
    }

    async fn manifest_call(&self, endpoint: &Endpoint, target: &str) -> Result<Call> {
        let uri = self.uri(endpoint, &format!("manifests/{target}")).await?;
        Ok(Call::get("fetch", uri, Self::scope(endpoint, "pull")).accepting(ACCEPT))
    }

    pub(crate) async fn uri(&self, endpoint: &Endpoint, rest: &str) -> Result<http::Uri> {
        endpoint.uri(self.registry.speaks_tls(endpoint).await, rest)
    }

    pub(crate) fn push_endpoint(&self) -> Result<&Endpoint> {
        self.endpoints.iter().find(|e| e.capabilities.push).ok_or_else(|| self.no_host("push"))
    }

    pub(crate) fn no_host(&self, what: &str) -> RegistryError {
        let why = format!("no configured host of {} may {what}", self.reference.domain());
        RegistryError::Refused { why }
    }

    fn named_target(&self, target: &str) -> String {
        let joint = if target.contains(':') { '@' } else { ':' };
        format!("{}{joint}{target}", self.reference.familiar_repository())
    }

    fn not_found(&self, error: RegistryError, target: &str) -> RegistryError {
        match error {
            RegistryError::Status { status: 404, code, .. } if code == "name_unknown" && target.is_empty() => {
                RegistryError::NoManifest { name: self.reference.familiar_repository() }
            }
            RegistryError::Status { status: 404, .. } => RegistryError::NoManifest { name: self.named_target(target) },
            other => other,
        }
    }
}

/// Said of each host but the one whose error is told in the end.
pub(crate) fn passed_over(endpoint: &Endpoint, error: RegistryError) -> RegistryError {
    match &error {
        RegistryError::WrongDigest { .. } => {
            tracing::warn!(host = endpoint.authority, "wrong bytes are thrown away: {error}");
        }
        _ => tracing::debug!(host = endpoint.authority, "{}", berth_types::report(&error)),
    }
    error
}

pub(crate) fn push_scope(endpoint: &Endpoint) -> String {
    Session::scope(endpoint, "pull,push")
}

pub(crate) fn media_type_of(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `Link: </v2/…>; rel="next"`, on the same host.
fn next_page(uri: &http::Uri, answer: &Document) -> Option<http::Uri> {
    let link = answer.header(LINK)?;
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    address::resolve(uri, target).filter(|next| address::is_same_origin(uri, next))
}
