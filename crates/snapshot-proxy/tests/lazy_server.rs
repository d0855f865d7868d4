//! A snapshotter that has a layer without its being unpacked, as stargz-snapshotter does: it commits under the name that the labels say, and answers
//! `AlreadyExists`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use berth_containerd_api::containerd::services::snapshots::v1::snapshots_server::{Snapshots, SnapshotsServer};
use berth_containerd_api::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, ListSnapshotsResponse, MountsRequest,
    MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest,
    StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse,
    ViewSnapshotRequest, ViewSnapshotResponse,
};
use berth_snapshot::Snapshotter as _;
use berth_snapshot_proxy::{Proxy, ProxySettings};
use berth_types::{Classify as _, ErrorClass, Labels};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

const REF: &str = "containerd.io/snapshot.ref";
const NAME: &str = "sha256:b5538b188f1d47573c43b4568790343887eb5a896fd10c4c6978784789d57978";

#[derive(Debug, Default, Clone)]
struct Lazy {
    committed: Arc<Mutex<BTreeMap<String, Info>>>,
    asked: Arc<Mutex<Vec<PrepareSnapshotRequest>>>,
}

type Answer<T> = Result<Response<T>, Status>;

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not asked for"))
}

#[tonic::async_trait]
impl Snapshots for Lazy {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn prepare(&self, request: Request<PrepareSnapshotRequest>) -> Answer<PrepareSnapshotResponse> {
        let request = request.into_inner();
        self.asked.lock().unwrap().push(request.clone());
        let Some(name) = request.labels.get(REF).cloned() else {
            return Ok(Response::new(PrepareSnapshotResponse::default()));
        };
        let info = Info {
            name: name.clone(),
            parent: request.parent,
            kind: Kind::Committed.into(),
            labels: request.labels,
            ..Info::default()
        };
        self.committed.lock().unwrap().insert(name.clone(), info);
        Err(Status::already_exists(format!("target snapshot {name:?}: already exists")))
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Answer<StatSnapshotResponse> {
        let found = self.committed.lock().unwrap().get(&request.into_inner().key).cloned();
        let info = found.ok_or_else(|| Status::not_found("snapshot does not exist"))?;
        Ok(Response::new(StatSnapshotResponse { info: Some(info) }))
    }

    async fn list(&self, _: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let info = self.committed.lock().unwrap().values().cloned().collect();
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(ListSnapshotsResponse { info })]))))
    }

    async fn update(&self, request: Request<UpdateSnapshotRequest>) -> Answer<UpdateSnapshotResponse> {
        let info = request.into_inner().info.unwrap_or_default();
        let mut committed = self.committed.lock().unwrap();
        let known = committed.get_mut(&info.name).ok_or_else(|| Status::not_found("snapshot does not exist"))?;
        known.labels = info.labels;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(known.clone()) }))
    }

    async fn view(&self, _: Request<ViewSnapshotRequest>) -> Answer<ViewSnapshotResponse> {
        no()
    }

    async fn mounts(&self, _: Request<MountsRequest>) -> Answer<MountsResponse> {
        no()
    }

    async fn commit(&self, _: Request<CommitSnapshotRequest>) -> Answer<()> {
        no()
    }

    async fn remove(&self, _: Request<RemoveSnapshotRequest>) -> Answer<()> {
        no()
    }

    async fn usage(&self, _: Request<UsageRequest>) -> Answer<UsageResponse> {
        no()
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Answer<()> {
        no()
    }
}

fn serve(socket: &std::path::Path, lazy: Lazy) {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    // It serves as long as the process lives.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let server = tonic::transport::Server::builder().add_service(SnapshotsServer::new(lazy));
            server.serve_with_incoming(UnixListenerStream::new(listener)).await
        })
    });
}

/// S-085, S-115: what such a snapshotter commits by itself is found under the name its user gave, by that user alone, and may be a parent; all
/// other labels reach it as they are.
#[test]
fn s085_s115_a_layer_that_a_lazy_snapshotter_has() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, lazy) = (dir.path().join("s.sock"), Lazy::default());
    serve(&socket, lazy.clone());
    let settings = ProxySettings::parse(&format!("lazy=unix://{}", socket.display())).unwrap();
    let proxy = Proxy::new(settings).unwrap();
    let (team, other) = (proxy.snapshots("team/"), proxy.snapshots("other/"));
    let said: Labels = [
        (REF, NAME),
        ("containerd.io/snapshot/cri.image-ref", "127.0.0.1:5000/e:1"),
        ("containerd.io/snapshot/cri.layer-digest", "sha256:2024"),
        ("containerd.io/snapshot/remote/stargz.reference", "127.0.0.1:5000/e:1"),
        ("containerd.io/snapshot/remote/stargz.digest", "sha256:2024"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let error = team.prepare("extract-1", None, &said).unwrap_err();
    assert_eq!(error.class(), ErrorClass::AlreadyExists, "{error}");
    assert_eq!(team.stat(NAME).unwrap().labels, said, "the name is seen as it was given");
    assert_eq!(other.stat(NAME).unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(team.walk().unwrap().first().unwrap().name, NAME);
    let more: Labels = [("a".to_owned(), "1".to_owned())].into();
    team.update(NAME, &more, &["labels.a".to_owned()]).unwrap();
    assert_eq!(team.stat(NAME).unwrap().labels, [said.clone(), more].into_iter().flatten().collect());
    other.prepare("extract-1", None, &said).unwrap_err();
    other.stat(NAME).unwrap();
    team.prepare("writable", Some(NAME), &Labels::new()).unwrap();
    let asked = lazy.asked.lock().unwrap();
    assert_eq!(asked[2].parent, format!("team/{NAME}"));
    let mut reached = asked[0].labels.clone();
    assert_eq!(reached.remove("containerd.io/gc.root").unwrap(), "berth");
    assert_eq!(reached.insert(REF.to_owned(), NAME.to_owned()).unwrap(), format!("team/{NAME}"));
    assert_eq!(reached, said);
}
