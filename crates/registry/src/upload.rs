//! Pushing blobs: not at all where the registry has them, by a mount where it has them elsewhere, else in chunks that are resumed.
//!
//! # Spec
//! distribution-spec 1.1, "Pushing blobs", "Pushing a blob in chunks", "Mounting a blob from another repository".

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use berth_types::Digest;
use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderValue, Method, Uri};

use crate::endpoint::Endpoint;
use crate::manifest::push_scope;
use crate::request::{Answer, Call, check_lead};
use crate::retry::Patience;
use crate::session::Session;
use crate::{RegistryError, Result, address};

/// Sent at once; the memory of an upload.
const CHUNK_BYTES: u64 = 4 << 20;
/// A registry may take its time with a large blob that is complete.
const COMMIT_PATIENCE: Duration = Duration::from_secs(300);

/// Repositories that are tried; each can cost the registry an upload that it begins instead.
const MOUNTS_MAX: usize = 4;

/// How a blob came to be in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    Existed,
    /// From another repository of the registry.
    Mounted(String),
    Uploaded,
}

/// What a registry makes of the wish to take a blob from another repository.
enum Mount {
    Done,
    /// It cannot, and began an upload instead.
    Begun(Upload),
    Refused,
}

/// An upload under way, as the registry tells of it.
struct Upload {
    location: Uri,
    at: u64,
}

impl Session {
    /// Makes the registry have a blob. `sources`: repositories of the same registry that may have it. `progress`: bytes sent so far.
    ///
    /// # Errors
    /// `PermissionDenied`; `Unavailable` when it broke off too often.
    pub async fn push_blob(
        &self,
        digest: &Digest,
        path: &Path,
        size: u64,
        sources: &[String],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Pushed> {
        let endpoint = self.push_endpoint()?;
        // However many layers an image has.
        let _turn = self.registry.pushes.acquire().await;
        if self.has_blob(endpoint, digest).await? {
            return Ok(Pushed::Existed);
        }
        let file = File::open(path).map_err(|e| RegistryError::io("open", path, e))?;
        let mut upload = None;
        for source in sources.iter().filter(|source| **source != endpoint.repository).take(MOUNTS_MAX) {
            let earlier = match self.mount(endpoint, digest, source).await? {
                Mount::Done => {
                    self.abandon(endpoint, upload).await;
                    return Ok(Pushed::Mounted(source.clone()));
                }
                Mount::Begun(begun) => upload.replace(begun),
                Mount::Refused => None,
            };
            self.abandon(endpoint, earlier).await;
        }
        let mut patience = Patience::new(&self.registry.options);
        loop {
            let permit = self.registry.streams.acquire().await;
            let error = match self.upload(endpoint, digest, (&file, path, size), &mut upload, progress).await {
                Ok(()) => return Ok(Pushed::Uploaded),
                Err(error) => error,
            };
            drop(permit);
            // A registry that forgot the upload is begun with again.
            let is_forgotten = matches!(error, RegistryError::Status { status: 404 | 416, .. });
            let is_again = is_forgotten || error.is_passing();
            if !is_again || !patience.wait(error.retry_after()).await {
                return Err(error);
            }
            let before = upload.as_ref().map_or(0, |u| u.at);
            upload = if is_forgotten { None } else { self.resumed(endpoint, upload).await };
            if upload.as_ref().is_some_and(|u| u.at > before) {
                patience.progressed();
            }
            tracing::debug!(%digest, "trying again: {}", berth_types::report(&error));
        }
    }

    async fn has_blob(&self, endpoint: &Endpoint, digest: &Digest) -> Result<bool> {
        let uri = self.uri(endpoint, &format!("blobs/{digest}")).await?;
        let mut call = Call::get("look for", uri, push_scope(endpoint));
        call.method = Method::HEAD;
        match self.call_patiently(endpoint, call).await {
            Ok(_) => Ok(true),
            Err(RegistryError::Status { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn mount(&self, endpoint: &Endpoint, digest: &Digest, source: &str) -> Result<Mount> {
        let rest = format!("blobs/uploads/?mount={digest}&from={}", address::percent_encoded(source));
        let scope = format!("{} repository:{source}:pull", push_scope(endpoint));
        let mut call = Call::get("mount in", self.uri(endpoint, &rest).await?, scope);
        call.method = Method::POST;
        match self.call_patiently(endpoint, call).await {
            Ok(answer) if answer.status().as_u16() == 201 => Ok(Mount::Done),
            Ok(answer) => self.begun(endpoint, answer).await.map(Mount::Begun),
            // Who may not read the source uploads.
            Err(RegistryError::Denied { .. } | RegistryError::Status { status: 400..=499, .. }) => Ok(Mount::Refused),
            Err(error) => Err(error),
        }
    }

    /// The registry need not keep an upload that nobody goes on with; one that cannot be told keeps it for a while.
    async fn abandon(&self, endpoint: &Endpoint, upload: Option<Upload>) {
        let Some(upload) = upload else { return };
        let mut call = Call::get("cancel", upload.location, push_scope(endpoint));
        call.method = Method::DELETE;
        match self.call(endpoint, call).await {
            Ok(answer) => answer.drain("cancel").await,
            Err(error) => tracing::debug!("{}", berth_types::report(&error)),
        }
    }

    async fn begin(&self, endpoint: &Endpoint) -> Result<Upload> {
        let mut call = Call::get("push to", self.uri(endpoint, "blobs/uploads/").await?, push_scope(endpoint));
        call.method = Method::POST;
        let answer = self.call_patiently(endpoint, call).await?;
        self.begun(endpoint, answer).await
    }

    async fn begun(&self, endpoint: &Endpoint, answer: Answer) -> Result<Upload> {
        let location = next_location(endpoint, &answer)?;
        answer.drain("push to").await;
        Ok(Upload { location, at: 0 })
    }

    /// All chunks from where the upload is, and the end of it.
    async fn upload(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        (file, path, size): (&File, &Path, u64),
        upload: &mut Option<Upload>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let current = match upload {
            Some(current) => current,
            None => upload.insert(self.begin(endpoint).await?),
        };
        while current.at < size {
            progress(current.at);
            let length = CHUNK_BYTES.min(size - current.at);
            let mut chunk = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut chunk, current.at).map_err(|e| RegistryError::io("read", path, e))?;
            let mut call = Call::get("push to", current.location.clone(), push_scope(endpoint));
            call.method = Method::PATCH;
            call.body = Bytes::from(chunk);
            call.patience = Some(COMMIT_PATIENCE);
            let range = format!("{}-{}", current.at, current.at + length - 1);
            call.headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits are a valid header"));
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            let answer = self.call(endpoint, call).await?;
            current.location = next_location(endpoint, &answer)?;
            let sent = current.at + length;
            current.at = match received(&answer).filter(|at| *at <= size) {
                // Of one byte a registry says the same as of none.
                Some(0) if sent == 1 => sent,
                // It may have kept a part; of nothing there would be no end.
                Some(at) if at <= current.at => {
                    let why = format!("it takes nothing of an upload that is at byte {at}");
                    return Err(RegistryError::misbehaves(&endpoint.authority, why));
                }
                Some(at) => at,
                None => sent,
            };
            answer.drain("push to").await;
        }
        progress(size);
        let uri = address::with_query(&current.location, "digest", &digest.to_string());
        let mut call = Call::get("push to", uri, push_scope(endpoint));
        call.method = Method::PUT;
        call.patience = Some(COMMIT_PATIENCE);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self.call(endpoint, call).await?.drain("push to").await;
        Ok(())
    }

    /// Asks how far an upload came; one that cannot be asked is begun again.
    async fn resumed(&self, endpoint: &Endpoint, upload: Option<Upload>) -> Option<Upload> {
        let upload = upload?;
        let call = Call::get("resume", upload.location.clone(), push_scope(endpoint));
        let answer = self.call(endpoint, call).await.ok()?;
        let location =
            if answer.header(LOCATION).is_some() { next_location(endpoint, &answer).ok()? } else { upload.location };
        let at = received(&answer)?;
        answer.drain("resume").await;
        Some(Upload { location, at })
    }
}

fn next_location(endpoint: &Endpoint, answer: &Answer) -> Result<Uri> {
    let wrong = |why: &str| RegistryError::misbehaves(&endpoint.authority, why);
    let location = answer.header(LOCATION).ok_or_else(|| wrong("it began an upload without saying where"))?;
    let uri = address::resolve(&answer.uri, location).ok_or_else(|| wrong("it began an upload at no web address"))?;
    check_lead(&answer.uri, &uri, "wants its upload at")?;
    Ok(uri)
}

/// `Range: 0-<last>`: how many bytes are there. `0-0` is also what registries say of none.
fn received(answer: &Answer) -> Option<u64> {
    let last: u64 = answer.header(RANGE)?.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}
