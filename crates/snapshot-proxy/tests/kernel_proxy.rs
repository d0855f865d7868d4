//! External snapshotters against the whole contract: Debian's containerd serves its own. Needs root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use berth_snapshot::{Driver, SnapshotStore, Snapshotter as _, testsuite};
use berth_snapshot_proxy::{Proxy, ProxySettings};
use berth_testkit::Containerd;
use berth_types::{Classify as _, ErrorClass};

fn proxy(server: &Containerd, remote: &str) -> Proxy {
    let text = format!("far=unix://{},snapshotter={remote},namespace=berth-test", server.socket().display());
    Proxy::new(ProxySettings::parse(&text).unwrap()).unwrap()
}

fn whole_contract(root: &Path, server: &Containerd, remote: &str) {
    let proxy = proxy(server, remote);
    proxy.probe().unwrap();
    let fail = |violation| panic!("{remote}: {violation}");
    testsuite::snapshotter::run(&proxy.snapshots("tenant/"), testsuite::snapshotter::Sizes::Blocks)
        .unwrap_or_else(fail);
    let driver = || -> Box<dyn Driver> { Box::new(proxy.driver()) };
    let store = SnapshotStore::open_with(&root.join("store"), driver()).unwrap();
    // Its native copies let default ACLs change the files below, and forget the times of directories: a fault of its own.
    if remote != "native" {
        testsuite::run(&store).unwrap_or_else(fail);
    }
    testsuite::reboot::run(&|| SnapshotStore::open_with(&root.join("reboot"), driver())).unwrap_or_else(fail);
    testsuite::crash::run(&|| SnapshotStore::open_with(&root.join("crash"), driver())).unwrap_or_else(fail);
    let left = proxy.snapshots("").walk().unwrap();
    assert!(left.is_empty(), "the server still keeps {left:?}");
}

/// S-085, S-087, S-115.
#[test]
fn s085_s087_s115_containerds_overlayfs_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let server = Containerd::start(&dir.path().join("ctd"));
    whole_contract(dir.path(), &server, "overlayfs");
}

/// S-085, S-115, S-086: a server whose snapshots are whole trees and no overlays, as those of block devices and of other kernels' unions
/// (AUFS) are. These can be had over the proxy only.
#[test]
fn s085_s086_s115_containerds_native_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let server = Containerd::start(&dir.path().join("ctd"));
    whole_contract(dir.path(), &server, "native");
}

/// S-085: nobody listens, the server goes, the server comes back.
#[test]
fn s085_an_unreachable_snapshotter_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("far=unix://{}", dir.path().join("none.sock").display());
    let nobody = Proxy::new(ProxySettings::parse(&nobody).unwrap()).unwrap();
    let error = nobody.probe().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(error.to_string().starts_with("snapshotter far cannot be reached at "), "{error}");
    assert!(error.hint().unwrap().contains("proxy-snapshotter"), "{:?}", error.hint());

    let mut server = Containerd::start(&dir.path().join("ctd"));
    let proxy = proxy(&server, "overlayfs");
    proxy.snapshots("").prepare("kept", None, &berth_types::Labels::new()).unwrap();
    server.kill();
    assert_eq!(proxy.snapshots("").stat("kept").unwrap_err().class(), ErrorClass::Unavailable);
    drop(server);
    let _server = Containerd::start(&dir.path().join("ctd"));
    assert_eq!(proxy.snapshots("").stat("kept").unwrap().name, "kept", "it is found again by itself");
}

/// S-085: files of a layer are there as long as somebody holds on to them, also when the layer goes; the path never means another's meanwhile. What is
/// written of a snapshot is whole, and nothing half written is left beside it.
#[test]
fn s085_files_hold_as_long_as_they_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let server = Containerd::start(&dir.path().join("ctd"));
    let proxy = proxy(&server, "overlayfs");
    let store = SnapshotStore::open_with(&dir.path().join("store"), Box::new(proxy.driver())).unwrap();
    let chain = |number: u8| berth_types::ChainId::from_bytes([number; 32]);
    let make = |number: u8| {
        let layer = store.begin_layer(&chain(number)).unwrap();
        std::fs::write(layer.dir().join("file"), number.to_string()).unwrap();
        layer
    };
    make(1).commit(1).unwrap();
    let files = store.layer_dir(&chain(1));
    let home = dir.path().join("store/layers").join(chain(1).hex());
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.join("snapshot.json")).unwrap()).unwrap();
    assert_eq!(record["is_committed"], true);
    assert!(!home.join("snapshot.new").exists());

    store.remove_layer(&chain(1)).unwrap();
    store.trash().empty().unwrap();
    for number in 2..6 {
        make(number).commit(1).unwrap();
        assert_eq!(std::fs::read_to_string(store.layer_dir(&chain(number)).join("file")).unwrap(), number.to_string());
    }
    // The server deleted what was below; the mount is still this layer's and nobody else's.
    assert!(!files.join("file").exists() || std::fs::read_to_string(files.join("file")).unwrap() == "1");
    assert!(files.is_dir());
    drop(files);

    // Made again while somebody looks at the old one: both are right.
    let old = store.layer_dir(&chain(2));
    let again = store.begin_layer(&chain(2)).unwrap();
    std::fs::write(again.dir().join("file"), "new").unwrap();
    store.replace_layer(again, 3).unwrap();
    assert_eq!(std::fs::read_to_string(old.join("file")).unwrap(), "2");
    assert_eq!(std::fs::read_to_string(store.layer_dir(&chain(2)).join("file")).unwrap(), "new");
    drop(old);
    store.drop_replaced(&|_| std::collections::BTreeSet::new()).unwrap();
    for number in 2..6 {
        store.remove_layer(&chain(number)).unwrap();
    }
    store.trash().empty().unwrap();
    let left = proxy.snapshots("").walk().unwrap();
    assert!(left.is_empty(), "the server still keeps {left:?}");
}
