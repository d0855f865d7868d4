//! `Write`: one ingest over one stream of messages.
//!
//! ```text
//! client                                          we
//! STAT   ref [total expected]                     offset so far
//! WRITE  offset data                              offset after it       an offset of 0 with bytes there begins anew
//! COMMIT offset [data total expected labels]      the digest            and the stream ends
//! ```
//! A stream that breaks leaves the ingest, to be gone on with under its reference.

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use berth_content::Expected;
use berth_core::Tenant;
use berth_image::ImageError;
use berth_image::tenant::BlobWriter;
use berth_types::Digest;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::Face;
use crate::convert::{digest, instant, signed};
use crate::status::IntoStatus as _;

pub(super) struct Session {
    face: Face,
    tenant: Tenant,
    lease: Option<String>,
    reference: String,
    /// What a later message has to agree with.
    expected: Expected,
    /// Away while a thread works with it, and after the commit.
    writer: Option<BlobWriter>,
}

impl Session {
    pub(super) fn new(face: Face, tenant: Tenant, lease: Option<String>) -> Self {
        Self { face, tenant, lease, reference: String::new(), expected: Expected::default(), writer: None }
    }

    /// Until the commit, an error, or the client's end.
    pub(super) async fn serve(
        mut self,
        mut requests: Streaming<WriteContentRequest>,
        answers: mpsc::Sender<Result<WriteContentResponse, Status>>,
    ) {
        while let Ok(Some(request)) = requests.message().await {
            let is_last = request.action == WriteAction::Commit as i32;
            let answer = self.take(request).await;
            let is_failed = answer.is_err();
            if answers.send(answer).await.is_err() || is_failed || is_last {
                return;
            }
        }
    }

    async fn take(&mut self, mut request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        self.agree(&request)?;
        if self.writer.is_none() {
            self.open().await?;
        }
        let data = std::mem::take(&mut request.data);
        match WriteAction::try_from(request.action) {
            Ok(WriteAction::Stat) => {}
            Ok(WriteAction::Write | WriteAction::Commit) => {
                self.append(request.offset, data).await?;
            }
            Err(_) => return Err(Status::invalid_argument(format!("write action {} is unknown", request.action))),
        }
        if request.action == WriteAction::Commit as i32 {
            return self.commit(request).await;
        }
        let writer = self.writer.as_ref().ok_or_else(lost)?;
        let status = writer.status();
        Ok(WriteContentResponse {
            action: request.action,
            started_at: Some(instant(status.started)),
            updated_at: Some(instant(status.updated)),
            offset: signed(status.offset),
            total: status.total.map(signed).unwrap_or_default(),
            digest: String::new(),
        })
    }

    /// Reference, total and digest may come with any message, but never another one than before.
    fn agree(&mut self, request: &WriteContentRequest) -> Result<(), Status> {
        let other = |what: &str| Status::invalid_argument(format!("the write's {what} is another one than before"));
        if !request.r#ref.is_empty() && request.r#ref != self.reference {
            if !self.reference.is_empty() {
                return Err(other("reference"));
            }
            self.reference.clone_from(&request.r#ref);
        }
        if request.total > 0 {
            let total = u64::try_from(request.total).unwrap_or_default();
            if self.expected.size_bytes.is_some_and(|known| known != total) {
                return Err(other("total"));
            }
            self.expected.size_bytes = Some(total);
        }
        if !request.expected.is_empty() {
            let wanted = digest(&request.expected)?;
            if self.expected.digest.is_some_and(|known| known != wanted) {
                return Err(other("expected digest"));
            }
            self.expected.digest = Some(wanted);
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Status> {
        let (reference, expected, lease) = (self.reference.clone(), self.expected, self.lease.clone());
        let opened =
            self.face.store(&self.tenant, move |store| store.write_blob(&reference, expected, lease.as_deref()));
        self.writer = Some(opened.await?);
        Ok(())
    }

    async fn append(&mut self, offset: i64, data: Vec<u8>) -> Result<(), Status> {
        let writer = self.writer.take().ok_or_else(lost)?;
        let offset = u64::try_from(offset).map_err(|_| Status::out_of_range("the write's offset is negative"))?;
        let here = writer.status().offset;
        if offset != here && offset > 0 {
            self.writer = Some(writer);
            return Err(Status::out_of_range(format!("write at {offset} must be at the current offset {here}")));
        }
        // Only data that begins at 0 begins anew: a commit without data may leave the offset out.
        let is_anew = offset == 0 && here > 0 && !data.is_empty();
        let work = move || {
            let begun = if is_anew { writer.restart() } else { Ok(()) };
            let done = begun.and_then(|()| if data.is_empty() { Ok(here) } else { writer.append(&data) });
            (writer, done)
        };
        let (writer, done) = tokio::task::spawn_blocking(work).await.map_err(|_| lost())?;
        self.writer = Some(writer);
        done.map(drop).map_err(|error: ImageError| error.into_status())
    }

    async fn commit(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let writer = self.writer.take().ok_or_else(lost)?;
        let status = writer.status();
        let (expected, lease) = (self.expected, self.lease.clone());
        let committed: Digest = self
            .face
            .store(&self.tenant, move |store| store.commit_blob(writer, expected, &request.labels, lease.as_deref()))
            .await?;
        let event = wire_events::ContentCreate {
            digest: committed.to_string(),
            size: signed(status.offset),
            ..Default::default()
        };
        self.face.publish(&self.tenant, "/content/create", &event, None);
        Ok(WriteContentResponse {
            action: request.action,
            started_at: Some(instant(status.started)),
            updated_at: Some(instant(status.updated)),
            offset: signed(status.offset),
            total: signed(status.offset),
            digest: committed.to_string(),
        })
    }
}

fn lost() -> Status {
    Status::internal("the write ended early")
}
