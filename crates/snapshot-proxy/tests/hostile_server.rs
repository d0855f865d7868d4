//! A snapshotter that answers what none should: its words, its lists and its mounts are bounded and named. The mount of a tmpfs needs root.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_containerd_api::containerd::services::snapshots::v1::snapshots_server::{Snapshots, SnapshotsServer};
use berth_containerd_api::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, ListSnapshotsResponse, MountsRequest,
    MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest, StatSnapshotRequest,
    StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest, UsageResponse,
    ViewSnapshotRequest, ViewSnapshotResponse,
};
use berth_snapshot::{Mount, Snapshotter as _};
use berth_snapshot_proxy::{Proxy, ProxySettings, mount};
use berth_types::{Classify as _, ErrorClass};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct Hostile {
    pieces: Arc<AtomicUsize>,
}

type Answer<T> = Result<Response<T>, Status>;

fn refused<T>() -> Answer<T> {
    Err(Status::internal(format!("\u{1b}[2Jno{}", "!".repeat(6000))))
}

#[tonic::async_trait]
impl Snapshots for Hostile {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    /// Large ones, without an end.
    async fn list(&self, _: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let pieces = Arc::clone(&self.pieces);
        let endless = std::iter::from_fn(move || {
            let number = pieces.fetch_add(1, Ordering::Relaxed);
            let labels: BTreeMap<String, String> = [("large".to_owned(), "x".repeat(PIECE_BYTES))].into();
            let info = Info { name: format!("ours/{number}"), labels, ..Info::default() };
            Some(Ok(ListSnapshotsResponse { info: vec![info] }))
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(endless))))
    }

    async fn stat(&self, _: Request<StatSnapshotRequest>) -> Answer<StatSnapshotResponse> {
        refused()
    }

    async fn prepare(&self, _: Request<PrepareSnapshotRequest>) -> Answer<PrepareSnapshotResponse> {
        refused()
    }

    async fn view(&self, _: Request<ViewSnapshotRequest>) -> Answer<ViewSnapshotResponse> {
        refused()
    }

    async fn mounts(&self, _: Request<MountsRequest>) -> Answer<MountsResponse> {
        refused()
    }

    async fn commit(&self, _: Request<CommitSnapshotRequest>) -> Answer<()> {
        refused()
    }

    async fn remove(&self, _: Request<RemoveSnapshotRequest>) -> Answer<()> {
        refused()
    }

    async fn update(&self, _: Request<UpdateSnapshotRequest>) -> Answer<UpdateSnapshotResponse> {
        refused()
    }

    async fn usage(&self, _: Request<UsageRequest>) -> Answer<UsageResponse> {
        refused()
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Answer<()> {
        refused()
    }
}

/// S-087, hostile.md: lists without an end are given up before they fill the memory, and words are shown without what a terminal obeys.
#[test]
fn what_a_server_says_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let (listener, hostile) = (std::os::unix::net::UnixListener::bind(&socket).unwrap(), Hostile::default());
    listener.set_nonblocking(true).unwrap();
    let pieces = Arc::clone(&hostile.pieces);
    // It serves as long as the process lives.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let server = tonic::transport::Server::builder().add_service(SnapshotsServer::new(hostile));
            server.serve_with_incoming(UnixListenerStream::new(listener)).await
        })
    });
    let settings = ProxySettings::parse(&format!("far=unix://{}", socket.display())).unwrap();
    let snapshots = Proxy::new(settings).unwrap().snapshots("ours/");
    let error = snapshots.walk().unwrap_err();
    assert_eq!(error.class(), ErrorClass::ResourceExhausted, "{error}");
    assert_eq!(error.to_string(), "snapshotter far cannot list \"\": it lists more snapshots than any server has");
    assert!(pieces.load(Ordering::Relaxed) < 80, "{} MiB were asked for", pieces.load(Ordering::Relaxed));
    let error = snapshots.stat("a").unwrap_err().to_string();
    assert!(error.starts_with("snapshotter far cannot look up \"a\": [2Jno!!!"), "{error}");
    assert!(error.len() < 1100 && !error.contains('\u{1b}'), "{} bytes", error.len());
}

/// What cannot be mounted is named with its kind and options; options that are the mount's and not the file system's are known.
#[test]
fn mounts_are_named_and_their_options_known() {
    let of = |kind: &str, options: &[&str]| {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        mount(&[Mount { kind: kind.to_owned(), source: "x".to_owned(), options }])
    };
    let error = berth_types::report(&of("nosuchfs", &["ro", "deep=1"]).unwrap_err());
    assert!(error.contains("cannot mount x") && error.contains("as nosuchfs with \"ro,deep=1\": "), "{error}");
    let all = ["rw", "nosuid", "nodev", "noexec", "noatime", "relatime", "size=64k"];
    of("tmpfs", &all).unwrap_or_else(|error| panic!("{}", berth_types::report(&error)));
}
