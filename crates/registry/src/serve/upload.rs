//! Taking blobs in: at once, in chunks, or by a mount from another repository. An upload lives as long as the process; one that nobody
//! continues is dropped, and its bytes with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_content::{Expected, Ingest};
use berth_types::Digest;
use http::header::CONTENT_RANGE;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::Mutex;

use super::RegistryServer;
use super::answer::{self, Answer, Body, Refusal, invalid, not_found, with_header};
use super::route;

const UPLOADS_MAX: usize = 64;
const IDLE: Duration = Duration::from_secs(3600);
/// Nothing coming for so long ends a request.
const STALL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Upload {
    name: String,
    ingest: Ingest,
    touched: Instant,
}

/// One parameter of a query, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| crate::address::percent_decoded(value))
}

impl RegistryServer {
    pub(super) async fn begin_upload(&self, name: &str, request: Request<Incoming>) -> Answer {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if let (Some(mount), Some(from)) = (parameter(&query, "mount"), parameter(&query, "from")) {
            let (digest, from) = (route::digest(&mount)?, route::name(&from)?);
            if self.shelf.has_blob(&from, &digest) {
                self.shelf.add_blob(name, &digest)?;
                return Ok(created(name, &digest));
            }
        }
        let id = self.new_upload(name)?;
        if let Some(digest) = parameter(&query, "digest") {
            return self.take_rest(name, &id, route::digest(&digest)?, request).await;
        }
        Ok(under_way(StatusCode::ACCEPTED, name, &id, 0))
    }

    pub(super) async fn upload_status(&self, name: &str, id: &str) -> Answer {
        let upload = self.find_upload(name, id).await?;
        let at = upload.lock().await.ingest.size_bytes();
        Ok(under_way(StatusCode::NO_CONTENT, name, id, at))
    }

    pub(super) async fn append_upload(&self, name: &str, id: &str, request: Request<Incoming>) -> Answer {
        let upload = self.find_upload(name, id).await?;
        let mut upload = upload.lock().await;
        check_place(&upload.ingest, &request)?;
        receive(&mut upload, request.into_body()).await?;
        Ok(under_way(StatusCode::ACCEPTED, name, id, upload.ingest.size_bytes()))
    }

    pub(super) async fn finish_upload(&self, name: &str, id: &str, request: Request<Incoming>) -> Answer {
        let digest = parameter(request.uri().query().unwrap_or_default(), "digest");
        let digest = route::digest(&digest.ok_or_else(|| invalid("DIGEST_INVALID", "the digest is missing"))?)?;
        self.find_upload(name, id).await?;
        self.take_rest(name, id, digest, request).await
    }

    pub(super) fn cancel_upload(&self, name: &str, id: &str) -> Answer {
        let mut uploads = self.shelf.uploads.lock();
        let is_ours = uploads.get(id).is_some_and(|upload| upload.try_lock().is_ok_and(|upload| upload.name == name));
        if !is_ours {
            return Err(not_found("BLOB_UPLOAD_UNKNOWN", "there is no such upload"));
        }
        uploads.remove(id);
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    fn new_upload(&self, name: &str) -> Result<String, Refusal> {
        let mut uploads = self.shelf.uploads.lock();
        uploads.retain(|_, upload| upload.try_lock().map_or(true, |upload| upload.touched.elapsed() < IDLE));
        if uploads.len() >= UPLOADS_MAX {
            let message = format!("{UPLOADS_MAX} uploads are under way");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message));
        }
        let ingest = self.shelf.content.begin()?;
        let id = format!("{:032x}", random());
        let upload = Upload { name: name.to_owned(), ingest, touched: Instant::now() };
        uploads.insert(id.clone(), Arc::new(Mutex::new(upload)));
        Ok(id)
    }

    async fn find_upload(&self, name: &str, id: &str) -> Result<Arc<Mutex<Upload>>, Refusal> {
        let found = self.shelf.uploads.lock().get(id).cloned();
        let missing = || not_found("BLOB_UPLOAD_UNKNOWN", "there is no such upload");
        let found = found.ok_or_else(missing)?;
        let is_ours = found.lock().await.name == name;
        if is_ours { Ok(found) } else { Err(missing()) }
    }

    /// The last bytes, then the check and the name. A blob that is not what it must be leaves nothing.
    async fn take_rest(&self, name: &str, id: &str, digest: Digest, request: Request<Incoming>) -> Answer {
        let upload = self.find_upload(name, id).await?;
        {
            let mut upload = upload.lock().await;
            check_place(&upload.ingest, &request)?;
            receive(&mut upload, request.into_body()).await?;
        }
        self.shelf.uploads.lock().remove(id);
        let Some(upload) = Arc::into_inner(upload) else {
            return Err(invalid("BLOB_UPLOAD_INVALID", "another request uses this upload"));
        };
        let staged = upload.into_inner().ingest.finish(Expected { digest: Some(digest), size_bytes: None })?;
        self.shelf.content.keep([staged])?;
        self.shelf.add_blob(name, &digest)?;
        Ok(created(name, &digest))
    }
}

/// `Content-Range: <start>-<end>`, where a client says it, must begin where the upload ends.
fn check_place(ingest: &Ingest, request: &Request<Incoming>) -> Result<(), Refusal> {
    let Some(text) = request.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()) else { return Ok(()) };
    let start = text.trim().trim_start_matches("bytes ").split('-').next().and_then(|start| start.parse::<u64>().ok());
    if start == Some(ingest.size_bytes()) {
        return Ok(());
    }
    let message = format!("the upload is at byte {}", ingest.size_bytes());
    Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message))
}

async fn receive(upload: &mut Upload, mut body: Incoming) -> Result<(), Refusal> {
    loop {
        let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "BLOB_UPLOAD_INVALID", "nothing came for a minute");
        let Some(frame) = tokio::time::timeout(STALL, body.frame()).await.map_err(late)? else { return Ok(()) };
        upload.touched = Instant::now();
        let frame = frame.map_err(|error| invalid("BLOB_UPLOAD_INVALID", format!("the upload broke off: {error}")))?;
        if let Some(bytes) = frame.data_ref() {
            upload.ingest.append(bytes)?;
        }
    }
}

fn created(name: &str, digest: &Digest) -> Response<Body> {
    let response = with_header(answer::empty(StatusCode::CREATED), "location", &format!("/v2/{name}/blobs/{digest}"));
    with_header(response, "docker-content-digest", &digest.to_string())
}

fn under_way(status: StatusCode, name: &str, id: &str, at: u64) -> Response<Body> {
    let location = format!("/v2/{name}/blobs/uploads/{id}");
    let response = with_header(answer::empty(status), "location", &location);
    let response = with_header(response, "docker-upload-uuid", id);
    with_header(response, "range", &format!("0-{}", at.saturating_sub(1)))
}

/// Upload ids are guessed by nobody: whoever knows one may continue the upload.
fn random() -> u128 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let part = || u128::from(std::collections::hash_map::RandomState::new().build_hasher().finish());
    (part() << 64) | part()
}
