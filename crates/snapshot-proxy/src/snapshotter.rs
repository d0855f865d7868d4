//! The snapshots of an external snapshotter, as the contract has them.

use std::sync::Arc;

use berth_containerd_api::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info as WireInfo, Kind as WireKind, ListSnapshotsRequest, MountsRequest,
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest,
    ViewSnapshotRequest,
};
use berth_containerd_api::containerd::types::Mount as WireMount;
use berth_snapshot::{Info, Kind, Mount, SnapshotError, Snapshotter, Usage};
use berth_types::{Classify, ErrorClass, Labels, Timestamp, label};
use tonic::Status;

use crate::Result;
use crate::connection::{Connection, body};

/// Keeps what we made from a collector of the server's own (a containerd); ours alone decides. Not seen from here.
const KEEP: (&str, &str) = ("containerd.io/gc.root", "berth");
/// The name a snapshot will be committed under. A lazy snapshotter (stargz, nydus, soci) commits it by itself under just that name, so it must be the
/// whole one; not seen from here.
const WILL_BE: &str = "containerd.io/snapshot.ref";
/// Snapshots read in one walk, and the text of those that are ours.
const LIST_MAX: usize = 1_000_000;
const LIST_BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub struct ProxySnapshotter {
    connection: Arc<Connection>,
    prefix: String,
}

impl ProxySnapshotter {
    pub(crate) fn new(connection: Arc<Connection>, prefix: &str) -> Self {
        Self { connection, prefix: prefix.to_owned() }
    }

    /// What the snapshotter is called here.
    pub fn name(&self) -> &str {
        &self.connection.settings().name
    }

    fn remote(&self) -> String {
        self.connection.settings().remote_name.clone()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn full_parent(&self, parent: Option<&str>) -> String {
        parent.filter(|parent| !parent.is_empty()).map(|parent| self.full(parent)).unwrap_or_default()
    }

    fn info(&self, info: WireInfo) -> Info {
        let plain = |name: &str| name.strip_prefix(&self.prefix).unwrap_or(name).to_owned();
        let instant = |at: Option<prost_types::Timestamp>| {
            let at = at.unwrap_or_default();
            Timestamp(at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos)))
        };
        let mut labels = info.labels;
        if labels.get(KEEP.0).is_some_and(|value| value == KEEP.1) {
            labels.remove(KEEP.0);
        }
        if let Some(name) = labels.get_mut(WILL_BE) {
            *name = plain(name);
        }
        Info {
            name: plain(&info.name),
            parent: (!info.parent.is_empty()).then(|| plain(&info.parent)),
            kind: match WireKind::try_from(info.kind) {
                Ok(WireKind::View) => Kind::View,
                Ok(WireKind::Committed) => Kind::Committed,
                _ => Kind::Active,
            },
            created: instant(info.created_at),
            updated: instant(info.updated_at),
            labels,
        }
    }

    /// Labels as the server gets them.
    fn kept(&self, labels: &Labels) -> Labels {
        let mut labels = labels.clone();
        labels.entry(KEEP.0.to_owned()).or_insert_with(|| KEEP.1.to_owned());
        if let Some(name) = labels.get_mut(WILL_BE) {
            *name = self.full(name);
        }
        labels
    }

    fn checked<'k>(&self, key: &'k str) -> Result<&'k str> {
        if key.is_empty() {
            return Err(SnapshotError::Key { key: String::new() });
        }
        Ok(key)
    }
}

fn text_bytes(info: &WireInfo) -> usize {
    let labels = info.labels.iter().map(|(key, value)| key.len() + value.len());
    size_of::<WireInfo>() + info.name.len() + info.parent.len() + labels.sum::<usize>()
}

fn mounts(mounts: Vec<WireMount>) -> Vec<Mount> {
    mounts.into_iter().map(|mount| Mount { kind: mount.r#type, source: mount.source, options: mount.options }).collect()
}

impl Snapshotter for ProxySnapshotter {
    fn stat(&self, key: &str) -> Result<Info> {
        let message = StatSnapshotRequest { snapshotter: self.remote(), key: self.full(key) };
        let request = self.connection.request(message);
        let found = self.connection.call("look up", key, |mut client| async move {
            let info = body(client.stat(request).await?).info;
            info.ok_or_else(|| Status::internal("its answer says nothing"))
        })?;
        Ok(self.info(found))
    }

    /// The change is made here and sent as a whole: servers differ in what they make of field paths.
    fn update(&self, key: &str, labels: &Labels, fields: &[String]) -> Result<Info> {
        let labels = label::updated(self.stat(key)?.labels, labels, fields)?;
        let message = UpdateSnapshotRequest {
            snapshotter: self.remote(),
            info: Some(WireInfo { name: self.full(key), labels: self.kept(&labels), ..WireInfo::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
        };
        let request = self.connection.request(message);
        let found = self.connection.call("update", key, |mut client| async move {
            let info = body(client.update(request).await?).info;
            info.ok_or_else(|| Status::internal("its answer says nothing"))
        })?;
        Ok(self.info(found))
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        let request = self.connection.request(UsageRequest { snapshotter: self.remote(), key: self.full(key) });
        let usage =
            self.connection.call("measure", key, |mut client| async move { client.usage(request).await.map(body) })?;
        Ok(Usage {
            size_bytes: u64::try_from(usage.size).unwrap_or(0),
            inodes: u64::try_from(usage.inodes).unwrap_or(0),
        })
    }

    fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request = self.connection.request(MountsRequest { snapshotter: self.remote(), key: self.full(key) });
        let found =
            self.connection.call("mount", key, |mut client| async move { client.mounts(request).await.map(body) })?;
        Ok(mounts(found.mounts))
    }

    fn prepare(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>> {
        let message = PrepareSnapshotRequest {
            snapshotter: self.remote(),
            key: self.full(self.checked(key)?),
            parent: self.full_parent(parent),
            labels: self.kept(labels),
        };
        let request = self.connection.request(message);
        let made = self
            .connection
            .call("prepare", key, |mut client| async move { client.prepare(request).await.map(body) })?;
        Ok(mounts(made.mounts))
    }

    fn view(&self, key: &str, parent: Option<&str>, labels: &Labels) -> Result<Vec<Mount>> {
        let message = ViewSnapshotRequest {
            snapshotter: self.remote(),
            key: self.full(self.checked(key)?),
            parent: self.full_parent(parent),
            labels: self.kept(labels),
        };
        let request = self.connection.request(message);
        let made =
            self.connection.call("view", key, |mut client| async move { client.view(request).await.map(body) })?;
        Ok(mounts(made.mounts))
    }

    fn commit(&self, name: &str, key: &str, labels: &Labels) -> Result<()> {
        let message = CommitSnapshotRequest {
            snapshotter: self.remote(),
            name: self.full(self.checked(name)?),
            key: self.full(key),
            labels: self.kept(labels),
            ..CommitSnapshotRequest::default()
        };
        let request = self.connection.request(message);
        self.connection.call("commit", key, |mut client| async move { client.commit(request).await.map(drop) })
    }

    fn remove(&self, key: &str) -> Result<()> {
        let request =
            self.connection.request(RemoveSnapshotRequest { snapshotter: self.remote(), key: self.full(key) });
        self.connection.call("remove", key, |mut client| async move { client.remove(request).await.map(drop) })
    }

    fn walk(&self) -> Result<Vec<Info>> {
        let message = ListSnapshotsRequest { snapshotter: self.remote(), filters: Vec::new() };
        let request = self.connection.request(message);
        let prefix = self.prefix.clone();
        let found = self.connection.call("list", "", |mut client| async move {
            let mut stream = body(client.list(request).await?);
            let (mut found, mut seen, mut bytes) = (Vec::new(), 0, 0);
            while let Some(piece) = stream.message().await? {
                seen += piece.info.len();
                let ours = piece.info.into_iter().filter(|info| info.name.starts_with(&prefix));
                found.extend(ours.inspect(|info| bytes += text_bytes(info)));
                if seen > LIST_MAX || bytes > LIST_BYTES_MAX {
                    return Err(Status::resource_exhausted("it lists more snapshots than any server has"));
                }
            }
            Ok(found)
        })?;
        let mut infos: Vec<Info> = found.into_iter().map(|info| self.info(info)).collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(infos)
    }

    fn cleanup(&self) -> Result<()> {
        let request = self.connection.request(CleanupRequest { snapshotter: self.remote() });
        let done =
            self.connection.call("clean up", "", |mut client| async move { client.cleanup(request).await.map(drop) });
        match done {
            // One that has nothing to clean up need not have the call.
            Err(error) if error.class() == ErrorClass::Unimplemented => Ok(()),
            other => other,
        }
    }
}
