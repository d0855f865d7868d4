//! `Snapshots`: the engine's own snapshotter, whatever it is, under containerd's name `overlayfs`; and external ones under theirs.

use berth_containerd_api::containerd::events as wire_events;
use berth_containerd_api::containerd::services::snapshots::v1::snapshots_server::Snapshots;
use berth_containerd_api::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info as WireInfo, Kind as WireKind, ListSnapshotsRequest,
    ListSnapshotsResponse, MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse,
    UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use berth_core::filter::{Fields, map_field, text_field};
use berth_snapshot::{Info, Kind};
use tonic::{Request, Response, Status};

use super::{Answer, Answers, filters, paths};
use crate::Face;
use crate::convert::{instant, mount, signed};
use crate::tenant;

const LIST_PIECE: usize = 100;

struct InfoFields<'a>(&'a Info);

impl Fields for InfoFields<'_> {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["kind"] => Some(kind_name(self.0.kind).to_owned()),
            ["name"] => text_field(&self.0.name),
            ["parent"] => self.0.parent.clone(),
            ["labels", key @ ..] => map_field(key, &self.0.labels),
            _ => None,
        }
    }
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::View => "view",
        Kind::Active => "active",
        Kind::Committed => "committed",
    }
}

fn info(info: Info) -> WireInfo {
    let kind = match info.kind {
        Kind::View => WireKind::View,
        Kind::Active => WireKind::Active,
        Kind::Committed => WireKind::Committed,
    };
    WireInfo {
        name: info.name,
        parent: info.parent.unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(instant(info.created)),
        updated_at: Some(instant(info.updated)),
        labels: info.labels,
    }
}

fn parent(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[tonic::async_trait]
impl Snapshots for Face {
    async fn prepare(&self, request: Request<PrepareSnapshotRequest>) -> Answer<PrepareSnapshotResponse> {
        let (tenant, lease) = (tenant::of(&request)?, tenant::lease_of(&request));
        let request = request.into_inner();
        let event = wire_events::SnapshotPrepare {
            key: request.key.clone(),
            parent: request.parent.clone(),
            snapshotter: request.snapshotter.clone(),
        };
        let mounts = self
            .store(&tenant, move |store| {
                let parent = parent(request.parent);
                store.snapshots_of(&request.snapshotter)?.prepare(
                    &request.key,
                    parent.as_deref(),
                    &request.labels,
                    lease.as_deref(),
                )
            })
            .await?;
        self.publish(&tenant, "/snapshot/prepare", &event, None);
        Ok(Response::new(PrepareSnapshotResponse { mounts: mounts.into_iter().map(mount).collect() }))
    }

    async fn view(&self, request: Request<ViewSnapshotRequest>) -> Answer<ViewSnapshotResponse> {
        let (tenant, lease) = (tenant::of(&request)?, tenant::lease_of(&request));
        let request = request.into_inner();
        let event = wire_events::SnapshotPrepare {
            key: request.key.clone(),
            parent: request.parent.clone(),
            snapshotter: request.snapshotter.clone(),
        };
        let mounts = self
            .store(&tenant, move |store| {
                let parent = parent(request.parent);
                store.snapshots_of(&request.snapshotter)?.view(
                    &request.key,
                    parent.as_deref(),
                    &request.labels,
                    lease.as_deref(),
                )
            })
            .await?;
        self.publish(&tenant, "/snapshot/prepare", &event, None);
        Ok(Response::new(ViewSnapshotResponse { mounts: mounts.into_iter().map(mount).collect() }))
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Answer<MountsResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let mounts =
            self.store(&tenant, move |store| store.snapshots_of(&request.snapshotter)?.mounts(&request.key)).await?;
        Ok(Response::new(MountsResponse { mounts: mounts.into_iter().map(mount).collect() }))
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Answer<()> {
        let (tenant, lease) = (tenant::of(&request)?, tenant::lease_of(&request));
        let request = request.into_inner();
        let event = wire_events::SnapshotCommit {
            key: request.key.clone(),
            name: request.name.clone(),
            snapshotter: request.snapshotter.clone(),
        };
        self.store(&tenant, move |store| {
            store.snapshots_of(&request.snapshotter)?.commit(
                &request.name,
                &request.key,
                &request.labels,
                lease.as_deref(),
            )
        })
        .await?;
        self.publish(&tenant, "/snapshot/commit", &event, None);
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let event = wire_events::SnapshotRemove { key: request.key.clone(), snapshotter: request.snapshotter.clone() };
        self.store(&tenant, move |store| store.snapshots_of(&request.snapshotter)?.remove(&request.key)).await?;
        self.publish(&tenant, "/snapshot/remove", &event, None);
        Ok(Response::new(()))
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Answer<StatSnapshotResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let known = self.look(&tenant, |store| store.known_snapshot(&request.snapshotter, &request.key))?;
        let found = match known {
            Some(found) => found,
            None => {
                self.store(&tenant, move |store| store.snapshots_of(&request.snapshotter)?.stat(&request.key)).await?
            }
        };
        Ok(Response::new(StatSnapshotResponse { info: Some(info(found)) }))
    }

    async fn update(&self, request: Request<UpdateSnapshotRequest>) -> Answer<UpdateSnapshotResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let new = request.info.unwrap_or_default();
        let paths = paths(request.update_mask);
        let changed = self
            .store(&tenant, move |store| {
                store.snapshots_of(&request.snapshotter)?.update(&new.name, &new.labels, &paths)
            })
            .await?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(info(changed)) }))
    }

    type ListStream = Answers<ListSnapshotsResponse>;

    async fn list(&self, request: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let filters = filters(&request.filters)?;
        let found = self.store(&tenant, move |store| store.snapshots_of(&request.snapshotter)?.walk()).await?;
        let found: Vec<WireInfo> =
            found.into_iter().filter(|found| filters.matches(&InfoFields(found))).map(info).collect();
        let pieces: Vec<Result<ListSnapshotsResponse, Status>> =
            found.chunks(LIST_PIECE).map(|piece| Ok(ListSnapshotsResponse { info: piece.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Answer<UsageResponse> {
        let tenant = tenant::of(&request)?;
        let request = request.into_inner();
        let usage =
            self.store(&tenant, move |store| store.snapshots_of(&request.snapshotter)?.usage(&request.key)).await?;
        Ok(Response::new(UsageResponse { size: signed(usage.size_bytes), inodes: signed(usage.inodes) }))
    }

    async fn cleanup(&self, request: Request<CleanupRequest>) -> Answer<()> {
        let tenant = tenant::of(&request)?;
        let snapshotter = request.into_inner().snapshotter;
        self.store(&tenant, move |store| store.snapshots_of(&snapshotter)?.cleanup()).await?;
        Ok(Response::new(()))
    }
}
