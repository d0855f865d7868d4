//! `Content`: blobs of a tenant by digest, and what is being written. Writing is in [`write`].

mod write;

use std::os::unix::fs::FileExt as _;

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::content::v1::content_server::Content;
use berth_containerd_api::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest, ListContentResponse,
    ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse, Status as WireStatus,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use berth_content::IngestStatus;
use berth_core::filter::{Fields, map_field};
use berth_image::tenant::{BlobInfo, Tenant as StoreTenant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answer, Answers, filters, paths};
use crate::Face;
use crate::convert::{digest, instant, signed};
use crate::tenant;

/// Bytes per message of a read.
const PIECE_BYTES: usize = 512 << 10;
/// Pieces read ahead of the connection.
const PIECES_AHEAD: usize = 4;
/// As long as documents of images are.
const AT_HAND_BYTES_MAX: usize = 64 << 10;
/// Infos per message of a list.
const LIST_PIECE: usize = 100;

struct InfoFields<'a>(&'a BlobInfo);

impl Fields for InfoFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["digest"] => Some(self.0.digest.to_string()),
            ["size"] => Some(self.0.size_bytes.to_string()),
            ["labels", key @ ..] => map_field(key, &self.0.labels),
            _ => None,
        }
    }
}

struct StatusFields<'a>(&'a IngestStatus);

impl Fields for StatusFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        (path == ["ref"]).then(|| self.0.reference.clone())
    }
}

fn info(blob: BlobInfo) -> Info {
    Info {
        digest: blob.digest.to_string(),
        size: signed(blob.size_bytes),
        created_at: Some(instant(blob.created)),
        updated_at: Some(instant(blob.updated)),
        labels: blob.labels,
    }
}

fn ingest(status: IngestStatus) -> WireStatus {
    WireStatus {
        started_at: Some(instant(status.started)),
        updated_at: Some(instant(status.updated)),
        r#ref: status.reference,
        offset: signed(status.offset),
        total: status.total.map(signed).unwrap_or_default(),
        expected: status.expected.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

#[tonic::async_trait]
impl Content for Face {
    async fn info(&self, request: Request<InfoRequest>) -> Answer<InfoResponse> {
        let tenant = tenant::of(&request)?;
        let digest = digest(&request.into_inner().digest)?;
        let found = match self.look(&tenant, |store| store.recorded_blob(&digest))? {
            Some(found) => found,
            None => self.store(&tenant, move |store| store.blob(&digest)).await?,
        };
        Ok(Response::new(InfoResponse { info: Some(info(found)) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Answer<UpdateResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = request.info.unwrap_or_default();
        let digest = digest(&new.digest)?;
        let paths = paths(request.update_mask);
        let changed = self.store(&tenant, move |store| store.update_blob(&digest, &new.labels, &paths)).await?;
        Ok(Response::new(UpdateResponse { info: Some(info(changed)) }))
    }

    type ListStream = Answers<ListContentResponse>;

    async fn list(&self, request: Request<ListContentRequest>) -> Answer<Self::ListStream> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let blobs = self.store(&tenant, |store| store.blobs()).await?;
        let found: Vec<Info> = blobs.into_iter().filter(|blob| filters.matches(&InfoFields(blob))).map(info).collect();
        let pieces: Vec<Result<ListContentResponse, Status>> =
            found.chunks(LIST_PIECE).map(|piece| Ok(ListContentResponse { info: piece.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let digest = digest(&request.into_inner().digest)?;
        self.store(&tenant, move |store| store.delete_blob(&digest)).await?;
        let event = wire_events::ContentDelete { digest: digest.to_string() };
        self.publish(&tenant, "/content/delete", &event, None);
        Ok(Response::new(()))
    }

    type ReadStream = Answers<ReadContentResponse>;

    async fn read(&self, request: Request<ReadContentRequest>) -> Answer<Self::ReadStream> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let digest = digest(&request.digest)?;
        let (file, size) = match self.look(&tenant, |store| store.open_recorded_blob(&digest))? {
            Some(opened) => opened,
            None => {
                let open =
                    move |store: StoreTenant<'_>| Ok((store.open_blob(&digest)?, store.blob(&digest)?.size_bytes));
                self.store(&tenant, open).await?
            }
        };
        let out_of_range = |what: &str| Status::out_of_range(format!("read of content {digest} {what}"));
        let offset = u64::try_from(request.offset).map_err(|_| out_of_range("before its beginning"))?;
        if offset > size {
            return Err(out_of_range("beyond its end"));
        }
        let left = size - offset;
        let length = match u64::try_from(request.size) {
            Ok(0) => left,
            Ok(wanted) if wanted <= left => wanted,
            _ => return Err(out_of_range("beyond its end")),
        };
        if let Some(data) = at_hand(&file, offset, length) {
            let message = ReadContentResponse { offset: signed(offset), data };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(message)))));
        }
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || send_pieces(&file, offset, length, &sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let tenant = tenant::of(&request)?;
        let reference = request.into_inner().r#ref;
        let found = self.store(&tenant, move |store| store.ingest_status(&reference)).await?;
        Ok(Response::new(StatusResponse { status: Some(ingest(found)) }))
    }

    async fn list_statuses(&self, request: Request<ListStatusesRequest>) -> Answer<ListStatusesResponse> {
        let tenant = tenant::of(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let found = self.store(&tenant, |store| store.ingest_statuses()).await?;
        let statuses = found.into_iter().filter(|status| filters.matches(&StatusFields(status))).map(ingest).collect();
        Ok(Response::new(ListStatusesResponse { statuses }))
    }

    type WriteStream = Answers<WriteContentResponse>;

    async fn write(&self, request: Request<Streaming<WriteContentRequest>>) -> Answer<Self::WriteStream> {
        let tenant = tenant::of(&request)?;
        let lease = tenant::lease_of(&request);
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let session = write::Session::new(self.clone(), tenant, lease);
        tokio::spawn(session.serve(request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let reference = request.into_inner().r#ref;
        self.store(&tenant, move |store| store.abort_ingest(&reference)).await?;
        Ok(Response::new(()))
    }
}

/// A short piece that is in the page cache: who reads it waits for no disk. `None`: it is to be read on a thread.
fn at_hand(file: &std::fs::File, offset: u64, length: u64) -> Option<Vec<u8>> {
    let mut data = vec![0; usize::try_from(length).ok().filter(|wanted| (1..=AT_HAND_BYTES_MAX).contains(wanted))?];
    let mut pieces = [std::io::IoSliceMut::new(&mut data)];
    let read = rustix::io::preadv2(file, &mut pieces, offset, rustix::io::ReadWriteFlags::NOWAIT).ok()?;
    (read == data.len()).then_some(data)
}

/// On a thread of its own; ends when the client hangs up.
fn send_pieces(
    file: &std::fs::File,
    mut offset: u64,
    length: u64,
    sender: &mpsc::Sender<Result<ReadContentResponse, Status>>,
) {
    let end = offset.saturating_add(length);
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut data = vec![0; wanted];
        let message = match file.read_exact_at(&mut data, offset) {
            Ok(()) => Ok(ReadContentResponse { offset: signed(offset), data }),
            Err(error) => Err(Status::data_loss(format!("cannot read the content at byte {offset}: {error}"))),
        };
        let is_broken = message.is_err();
        if sender.blocking_send(message).is_err() || is_broken {
            return;
        }
        offset += wanted as u64;
    }
}
