//! Paths of the distribution-spec. Pure: what comes out is a valid name, digest, tag or id.

use berth_types::{Digest, Reference};
use http::StatusCode;

use super::answer::{Refusal, invalid, not_found};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Tag(String),
    Digest(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Tags(String),
    Manifest(String, Target),
    Blob(String, Digest),
    Uploads(String),
    Upload(String, String),
    Referrers(String, Digest),
}

impl Route {
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "UNSUPPORTED", "there is nothing at this path");
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or_else(unknown)?,
            None => return Err(unknown()),
        };
        if let Some(text) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name(text)?));
        }
        if let Some(text) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return Ok(Self::Uploads(name(text)?));
        }
        let (before, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(text) = before.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(name(text)?, upload_id(last)?));
        }
        if let Some(text) = before.strip_suffix("/manifests") {
            return Ok(Self::Manifest(name(text)?, target(last)?));
        }
        if let Some(text) = before.strip_suffix("/blobs") {
            return Ok(Self::Blob(name(text)?, digest(last)?));
        }
        if let Some(text) = before.strip_suffix("/referrers") {
            return Ok(Self::Referrers(name(text)?, digest(last)?));
        }
        Err(unknown())
    }
}

/// A repository's name by the grammar of references: no component is empty, `..` or begins with `_`.
pub(super) fn name(text: &str) -> Result<String, Refusal> {
    let reference = format!("registry.invalid/{text}").parse::<Reference>();
    match reference {
        Ok(reference) if reference.path() == text => Ok(text.to_owned()),
        _ => Err(invalid("NAME_INVALID", "the repository's name is not valid")),
    }
}

pub(super) fn digest(text: &str) -> Result<Digest, Refusal> {
    crate::address::percent_decoded(text).parse().map_err(|_| invalid("DIGEST_INVALID", "the digest is not valid"))
}

fn target(text: &str) -> Result<Target, Refusal> {
    if text.contains(':') || text.contains("%3A") {
        return digest(text).map(Target::Digest);
    }
    let is_tag = format!("registry.invalid/x:{text}").parse::<Reference>().is_ok_and(|r| r.tag() == Some(text));
    if is_tag { Ok(Target::Tag(text.to_owned())) } else { Err(invalid("TAG_INVALID", "the tag is not valid")) }
}

fn upload_id(text: &str) -> Result<String, Refusal> {
    let is_id = text.len() <= 40 && !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_id { Ok(text.to_owned()) } else { Err(not_found("BLOB_UPLOAD_UNKNOWN", "there is no such upload")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let hex = "a".repeat(64);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        for (path, expect) in [
            ("/v2/", Some(Route::Base)),
            ("/v2/a/b/tags/list", Some(Route::Tags("a/b".into()))),
            ("/v2/a/manifests/latest", Some(Route::Manifest("a".into(), Target::Tag("latest".into())))),
            (&format!("/v2/a/manifests/sha256:{hex}"), Some(Route::Manifest("a".into(), Target::Digest(digest)))),
            (&format!("/v2/a/blobs/sha256%3A{hex}"), Some(Route::Blob("a".into(), digest))),
            ("/v2/a/blobs/uploads/", Some(Route::Uploads("a".into()))),
            ("/v2/a/blobs/uploads/12ab", Some(Route::Upload("a".into(), "12ab".into()))),
            (&format!("/v2/a/referrers/sha256:{hex}"), Some(Route::Referrers("a".into(), digest))),
            ("/v2/../manifests/latest", None),
            ("/v2/a/../b/manifests/latest", None),
            ("/v2/_blobs/manifests/latest", None),
            ("/v2/A/manifests/latest", None),
            ("/v2/a/manifests/..", None),
            ("/v2/a/manifests/a%2fb", None),
            ("/v2/a/blobs/sha256:../../etc/passwd", None),
            ("/v2/a/blobs/uploads/../x", None),
            ("/v1/x", None),
            ("/", None),
        ] {
            assert_eq!(Route::parse(path).ok(), expect, "{path}");
        }
    }
}
