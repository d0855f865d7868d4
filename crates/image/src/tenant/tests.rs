use std::fs;
use std::sync::Arc;

use berth_content::{Expected, digest_of};
use berth_metadata::Metadata;
use berth_snapshot::Kind;
use berth_types::{Classify as _, Digest, ErrorClass, Labels, Timestamp};

use super::*;
use crate::tar_stream::{Entry, EntryKind, TarWriter};
use crate::{ImageUse, TargetPlatform};

struct Scratch {
    dir: tempfile::TempDir,
    store: ImageStore,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    Scratch { dir, store }
}

fn open(root: &std::path::Path) -> ImageStore {
    let metadata = Arc::new(Metadata::open(&root.join("metadata.redb")).unwrap());
    ImageStore::open(root, metadata).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn collect(store: &ImageStore) {
    store.collect(&|_| ImageUse::Unused).unwrap();
}

fn put(tenant: &Tenant<'_>, bytes: &[u8], of: &[(&str, &str)], lease: Option<&str>) -> Digest {
    let expected = Expected { digest: Some(digest_of(bytes)), size_bytes: Some(bytes.len() as u64) };
    let writer = tenant.write_blob("ref", expected, lease).unwrap();
    writer.append(&bytes[usize::try_from(writer.status().offset).unwrap()..]).unwrap();
    tenant.commit_blob(writer, expected, &labels(of), lease).unwrap()
}

fn layer(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    let entry =
        Entry { kind: EntryKind::File, path: name.as_bytes().to_vec(), mode: 0o644, size: 4, ..Entry::default() };
    tar.start(&entry).unwrap();
    tar.data(b"data").unwrap();
    tar.finish().unwrap();
    bytes
}

/// S-114: blobs of tenants with labels; one tenant does not see another's, and need not send what another sent.
#[test]
fn s114_blobs_of_tenants() {
    let scratch = scratch();
    let (a, b) = (scratch.store.tenant("a").unwrap(), scratch.store.tenant("b").unwrap());
    let digest = put(&a, b"hello", &[("containerd.io/gc.root", "now"), ("x", "1")], None);
    let info = a.blob(&digest).unwrap();
    assert_eq!((info.size_bytes, info.labels["x"].as_str()), (5, "1"));
    assert_eq!(b.blob(&digest).unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(b.read_blob(&digest, 0, &mut [0]).unwrap_err().class(), ErrorClass::NotFound);
    let expected = Expected { digest: Some(digest), size_bytes: Some(5) };
    assert_eq!(a.write_blob("again", expected, None).unwrap_err().class(), ErrorClass::AlreadyExists);
    let writer = b.write_blob("mine", expected, None).unwrap();
    assert_eq!(writer.status().offset, 5, "nothing to send");
    b.commit_blob(writer, expected, &labels(&[("containerd.io/gc.root", "now")]), None).unwrap();
    let updated = a.update_blob(&digest, &labels(&[("x", "2")]), &["labels.x".to_owned()]).unwrap();
    assert_eq!(updated.labels["x"], "2");
    assert_eq!(updated.labels.len(), 2);
    a.delete_blob(&digest).unwrap();
    assert_eq!(a.blobs().unwrap(), []);
    let mut buffer = [0; 3];
    assert_eq!(b.read_blob(&digest, 2, &mut buffer).unwrap(), 3);
    assert_eq!(&buffer, b"llo");
    b.delete_blob(&digest).unwrap();
    assert!(!scratch.store.content.has(&digest), "nobody has it any more");
    assert!(scratch.store.tenant("no/name").is_err() && scratch.store.tenant("").is_err());
}

/// S-114: leases keep what they hold, flat ones nothing more, and no longer than they last.
#[test]
fn s114_leases_and_collection() {
    let scratch = scratch();
    let tenant = scratch.store.tenant("k8s.io").unwrap();
    tenant.create_lease("work", &Labels::new()).unwrap();
    assert_eq!(tenant.create_lease("work", &Labels::new()).unwrap_err().class(), ErrorClass::AlreadyExists);
    let child = put(&tenant, b"child", &[], Some("work"));
    let parent = put(&tenant, b"parent", &[("containerd.io/gc.ref.content.0", &child.to_string())], Some("work"));
    let loose = put(&tenant, b"loose", &[], None);
    let missing = tenant.commit_blob(
        tenant.write_blob("x", Expected::default(), None).unwrap(),
        Expected::default(),
        &Labels::new(),
        Some("no"),
    );
    assert_eq!(missing.unwrap_err().class(), ErrorClass::NotFound);
    collect(&scratch.store);
    assert_eq!(tenant.blob(&loose).unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(tenant.blobs().unwrap().len(), 2);

    let content = |digest: &Digest| Resource { kind: "content".to_owned(), id: digest.to_string() };
    tenant.create_lease("flat", &labels(&[("containerd.io/gc.flat", "1")])).unwrap();
    tenant.add_resource("flat", content(&parent)).unwrap();
    assert_eq!(tenant.resources("work").unwrap().iter().filter(|r| r.kind == "content").count(), 2);
    tenant.delete_lease("work", true).unwrap();
    assert_eq!(tenant.blob(&child).unwrap_err().class(), ErrorClass::NotFound);
    tenant.blob(&parent).unwrap();

    let past = Timestamp(Timestamp::now().0 - 1).to_string();
    tenant.create_lease("old", &labels(&[("containerd.io/gc.expire", &past)])).unwrap();
    tenant.add_resource("old", content(&parent)).unwrap();
    tenant.delete_resource("flat", &content(&parent)).unwrap();
    collect(&scratch.store);
    assert_eq!(tenant.blobs().unwrap(), []);
    let left: Vec<String> = tenant.leases().unwrap().into_iter().map(|lease| lease.id).collect();
    assert_eq!(left, ["flat"]);
    let kind = Resource { kind: "cattle".to_owned(), id: "x".to_owned() };
    assert_eq!(tenant.add_resource("flat", kind).unwrap_err().class(), ErrorClass::InvalidArgument);
}

/// S-117: image names with labels, unique per tenant; what they lead to stays, by labels or by what the document says.
#[test]
fn s117_names_keep_what_they_lead_to() {
    let scratch = scratch();
    let tenant = scratch.store.tenant("k8s.io").unwrap();
    tenant.create_lease("pull", &Labels::new()).unwrap();
    let blob = put(&tenant, b"layer", &[], Some("pull"));
    let config = put(&tenant, b"{}", &[], Some("pull"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{blob}","size":5}}]}}"#
    );
    let digest = put(&tenant, manifest.as_bytes(), &[], Some("pull"));
    let target = Target {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest,
        size_bytes: manifest.len() as u64,
        annotations: std::collections::BTreeMap::new(),
    };
    tenant.create_image("registry/x:1", target.clone(), &labels(&[("a", "1")])).unwrap();
    let twice = tenant.create_image("registry/x:1", target.clone(), &Labels::new());
    assert_eq!(twice.unwrap_err().class(), ErrorClass::AlreadyExists);
    tenant.delete_lease("pull", true).unwrap();
    assert_eq!(tenant.blobs().unwrap().len(), 3);
    let changed = tenant.update_image("registry/x:1", target.clone(), &labels(&[("b", "2")]), &["labels.b".to_owned()]);
    assert_eq!(changed.unwrap().labels, labels(&[("a", "1"), ("b", "2")]));
    assert_eq!(scratch.store.tenant("other").unwrap().images().unwrap(), []);
    // Who labels a manifest says what it keeps: layers that are unpacked can go.
    let only_config = labels(&[("containerd.io/gc.ref.content.config", &config.to_string())]);
    tenant.update_blob(&digest, &only_config, &[]).unwrap();
    collect(&scratch.store);
    assert_eq!(tenant.blob(&blob).unwrap_err().class(), ErrorClass::NotFound);
    tenant.blob(&config).unwrap();
    assert_eq!(scratch.store.delete_namespace("k8s.io").unwrap_err().class(), ErrorClass::FailedPrecondition);
    tenant.delete_image("registry/x:1", true, &|_| ImageUse::Unused).unwrap();
    assert_eq!(tenant.blobs().unwrap(), []);
    scratch.store.delete_namespace("k8s.io").unwrap();
    assert_eq!(scratch.store.namespaces().unwrap().len(), 1);
}

/// S-115, S-116, S-082: a layer applied by the diff service and committed under its chain id is a layer for all; others are the tenant's own.
#[test]
fn s115_snapshots_of_tenants_share_layers() {
    let scratch = scratch();
    let store = &scratch.store;
    let tenant = store.tenant("k8s.io").unwrap();
    tenant.create_lease("l", &Labels::new()).unwrap();
    let bytes = layer("one");
    let blob = put(&tenant, &bytes, &[], Some("l"));
    let snapshots = tenant.snapshots();
    let mounts = snapshots.prepare("extract-1", None, &Labels::new(), Some("l")).unwrap();
    let applied = tenant.apply_layer(&blob, &mounts).unwrap();
    assert_eq!((applied.diff_id, applied.size_bytes), (digest_of(&bytes), bytes.len() as u64));
    snapshots.commit(&applied.diff_id.to_string(), "extract-1", &Labels::new(), Some("l")).unwrap();
    assert!(store.snapshots.has_layer(&applied.diff_id));

    // Another tenant that says what it is about to unpack learns that it is there.
    let other = store.tenant("other").unwrap();
    let will_be = labels(&[("containerd.io/snapshot.ref", &applied.diff_id.to_string())]);
    other.create_lease("l", &Labels::new()).unwrap();
    let there = other.snapshots().prepare("extract-2", None, &will_be, Some("l")).unwrap_err();
    assert_eq!(there.class(), ErrorClass::AlreadyExists);
    let name = applied.diff_id.to_string();
    assert_eq!(other.snapshots().stat(&name).unwrap().kind, Kind::Committed);
    other.snapshots().prepare("c", Some(&name), &Labels::new(), Some("l")).unwrap();

    // Written by hand: the tenant's own, whatever it is called.
    let fake = digest_of(b"fake").to_string();
    let mounts = snapshots.prepare("hand", None, &Labels::new(), Some("l")).unwrap();
    fs::write(std::path::Path::new(&mounts[0].source).join("x"), "x").unwrap();
    snapshots.commit(&fake, "hand", &Labels::new(), Some("l")).unwrap();
    assert!(!store.snapshots.has_layer(&digest_of(b"fake")));

    tenant.delete_lease("l", true).unwrap();
    assert_eq!(snapshots.stat(&name).unwrap_err().class(), ErrorClass::NotFound);
    assert!(store.snapshots.has_layer(&applied.diff_id), "the other tenant's container is on it");
    other.delete_lease("l", true).unwrap();
    assert!(!store.snapshots.has_layer(&applied.diff_id));
    assert_eq!(fs::read_dir(scratch.dir.path().join("snapshots/overlay/snapshots")).unwrap().count(), 0);
}

/// S-114: while blobs and snapshots come and go under leases and collection runs all the time, nothing leased is ever collected.
#[test]
fn s114_no_window_for_collection() {
    let scratch = scratch();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                collect(&scratch.store);
            }
        });
        let workers: Vec<_> = (0..2)
            .map(|thread| {
                let store = &scratch.store;
                scope.spawn(move || {
                    let name = format!("t{thread}");
                    let tenant = store.tenant(&name).unwrap();
                    for round in 0..12 {
                        let lease = format!("l{round}");
                        tenant.create_lease(&lease, &Labels::new()).unwrap();
                        let bytes = format!("shared {round}").into_bytes();
                        let expected =
                            Expected { digest: Some(digest_of(&bytes)), size_bytes: Some(bytes.len() as u64) };
                        let writer = tenant.write_blob(&lease, expected, Some(&lease)).unwrap();
                        if writer.status().offset == 0 {
                            writer.append(&bytes).unwrap();
                        }
                        match tenant.commit_blob(writer, expected, &Labels::new(), Some(&lease)) {
                            Ok(digest) => {
                                assert_eq!(
                                    tenant.open_blob(&digest).unwrap().metadata().unwrap().len(),
                                    bytes.len() as u64
                                );
                            }
                            // The other tenant's was collected between our question and our commit: said so, to be sent again.
                            Err(error) => assert_eq!(error.class(), ErrorClass::NotFound),
                        }
                        let key = format!("s{round}");
                        tenant.snapshots().prepare(&key, None, &Labels::new(), Some(&lease)).unwrap();
                        let mounts = berth_snapshot::Snapshotter::mounts(tenant.snapshots().local(), &key).unwrap();
                        assert!(fs::metadata(&mounts[0].source).unwrap().is_dir());
                        tenant.delete_lease(&lease, round % 2 == 0).unwrap();
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    collect(&scratch.store);
    assert_eq!(scratch.store.content.list().unwrap(), []);
}

/// An image that comes in by the containerd API is one of the Docker face's, and the other way round; both see its removal.
#[test]
fn images_are_seen_by_both_faces() {
    let scratch = scratch();
    let store = &scratch.store;
    let bytes = layer("file");
    store
        .import(
            &mut &bytes[..],
            &crate::CommitOptions { reference: Some("hello:1".parse().unwrap()), ..Default::default() },
            &|_, _, _, _| {},
        )
        .unwrap();
    let tenant = store.tenant(DOCKER_TENANT).unwrap();
    let name = "docker.io/library/hello:1";
    let image = tenant.image(name).unwrap();
    assert_eq!(tenant.images().unwrap().len(), 1);
    assert_eq!(tenant.blobs().unwrap().len(), 3);
    let manifest = tenant.blob(&image.target.digest).unwrap();
    assert_eq!(manifest.labels.len(), 2, "{manifest:?}");
    let top = store.get("hello:1").unwrap().layers[0].chain_id.to_string();
    assert_eq!(tenant.snapshots().stat(&top).unwrap().kind, Kind::Committed);
    assert_eq!(tenant.delete_blob(&image.target.digest).unwrap_err().class(), ErrorClass::FailedPrecondition);

    tenant.create_image("docker.io/library/hello:2", image.target.clone(), &labels(&[("a", "b")])).unwrap();
    assert_eq!(store.get("hello:2").unwrap().id, store.get("hello:1").unwrap().id);
    store.tag("hello:1", &"hello:2".parse().unwrap()).unwrap();
    assert!(tenant.image("docker.io/library/hello:2").unwrap().labels.is_empty(), "Docker's tag replaces it");
    store.remove("hello:2", false, &|_| ImageUse::Unused).unwrap();
    assert_eq!(tenant.image("docker.io/library/hello:2").unwrap_err().class(), ErrorClass::NotFound);
    tenant.delete_image(name, true, &|_| ImageUse::Unused).unwrap();
    assert_eq!(store.get("hello:1").unwrap_err().class(), ErrorClass::NotFound);
    assert!(store.content.list().unwrap().is_empty());
}

/// Ingests, leases and snapshots are there after a restart; snapshots without a lease are not.
#[test]
fn s118_tenants_survive_a_restart() {
    let scratch = scratch();
    let tenant = scratch.store.tenant("t").unwrap();
    tenant.create_lease("l", &Labels::new()).unwrap();
    tenant.snapshots().prepare("kept", None, &Labels::new(), Some("l")).unwrap();
    tenant.snapshots().prepare("lost", None, &Labels::new(), None).unwrap();
    let blob = put(&tenant, b"kept", &[], Some("l"));
    tenant.write_blob("half", Expected::default(), Some("l")).unwrap().append(b"half").unwrap();
    let Scratch { dir, store } = scratch;
    drop(store);
    let store = open(dir.path());
    let tenant = store.tenant("t").unwrap();
    assert_eq!(tenant.ingest_status("half").unwrap().offset, 4);
    assert_eq!(tenant.blob(&blob).unwrap().size_bytes, 4);
    let keys: Vec<String> = tenant.snapshots().local().walk_all().unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["kept"]);
    assert_eq!(fs::read_dir(dir.path().join("snapshots/overlay/snapshots")).unwrap().count(), 1);
}

/// A snapshot on a layer that only an image of the Docker face names: a collection at the same time does not take the layer's record from under it.
#[test]
fn s114_layers_of_images_are_there_whoever_collects() {
    let scratch = scratch();
    let store = &scratch.store;
    let options = crate::CommitOptions { reference: Some("hello:1".parse().unwrap()), ..Default::default() };
    store.import(&mut &layer("file")[..], &options, &|_, _, _, _| {}).unwrap();
    let top = store.get("hello:1").unwrap().layers[0].chain_id.to_string();
    let (due, collections) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || collections.into_iter().for_each(|()| collect(store)));
        let tenant = store.tenant(DOCKER_TENANT).unwrap();
        let prepare = |n: u32| {
            due.send(()).unwrap();
            tenant.snapshots().prepare(&format!("s{n}"), Some(&top), &Labels::new(), None)
        };
        let prepared: Vec<Result<_>> = (0..40).map(prepare).collect();
        drop(due);
        assert!(prepared.iter().all(Result::is_ok), "{:?}", prepared.into_iter().find(Result::is_err));
    });
}

/// What a lease holds is recorded with the lease in one write to the disk; without the lease nothing is recorded.
#[test]
fn s114_a_snapshot_and_its_lease_are_one_write() {
    let scratch = scratch();
    let tenant = scratch.store.tenant("t").unwrap();
    tenant.create_lease("l", &Labels::new()).unwrap();
    let commits = || scratch.store.metadata.commits().immediate;
    let before = commits();
    tenant.snapshots().prepare("mine", None, &Labels::new(), Some("l")).unwrap();
    assert_eq!(commits() - before, 1);
    tenant.snapshots().commit("done", "mine", &Labels::new(), Some("l")).unwrap();
    assert_eq!(commits() - before, 2);
    let held: Vec<String> = tenant.resources("l").unwrap().into_iter().map(|held| held.id).collect();
    assert_eq!(held, ["done", "mine"]);
    let refused = tenant.snapshots().prepare("other", None, &Labels::new(), Some("no such")).unwrap_err();
    assert_eq!(refused.class(), ErrorClass::NotFound);
    assert_eq!(tenant.snapshots().stat("other").unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(commits() - before, 2);
}

/// A lease that ends by itself costs no flush, one without an end does; both are there when the store is opened again.
#[test]
fn s114_a_lease_with_an_end_is_not_flushed() {
    let Scratch { dir, store } = scratch();
    let tenant = store.tenant("t").unwrap();
    tenant.create_lease("first", &Labels::new()).unwrap();
    let commits = || store.metadata.commits();
    let before = commits();
    let soon = Timestamp(Timestamp::now().0 + 3600 * 1_000_000_000).to_string();
    tenant.create_lease("short", &labels(&[("containerd.io/gc.expire", &soon)])).unwrap();
    tenant.create_lease("gone", &labels(&[("containerd.io/gc.expire", &soon)])).unwrap();
    tenant.delete_lease("gone", false).unwrap();
    assert_eq!((commits().immediate - before.immediate, commits().eventual - before.eventual), (0, 3));
    tenant.create_lease("lasting", &Labels::new()).unwrap();
    tenant.delete_lease("first", false).unwrap();
    assert_eq!(commits().immediate - before.immediate, 2);
    drop(store);
    let store = open(dir.path());
    let left: Vec<String> = store.tenant("t").unwrap().leases().unwrap().into_iter().map(|lease| lease.id).collect();
    assert_eq!(left, ["lasting", "short"]);
}

/// CVE-2022-24778: who has no key does not run an encrypted layer because its files were unpacked here for somebody who has.
#[test]
fn cve_2022_24778_an_encrypted_layer_is_not_run() {
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    let scratch = scratch();
    let store = &scratch.store;
    let owner = store.tenant("owner").unwrap();
    owner.create_lease("l", &Labels::new()).unwrap();
    let bytes = layer("plain");
    let plain = put(&owner, &bytes, &[], Some("l"));
    let mounts = owner.snapshots().prepare("extract", None, &Labels::new(), Some("l")).unwrap();
    let applied = owner.apply_layer(&plain, &mounts).unwrap();
    owner.snapshots().commit(&applied.diff_id.to_string(), "extract", &Labels::new(), Some("l")).unwrap();
    assert!(store.snapshots.has_layer(&applied.diff_id));

    let tenant = store.tenant(DOCKER_TENANT).unwrap();
    tenant.create_lease("l", &Labels::new()).unwrap();
    let host = TargetPlatform::host();
    let platform = host.platform();
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [applied.diff_id] },
    })
    .to_string();
    let described = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": digest_of(bytes), "size": bytes.len() });
    let image = |name: &str, kind: &str, layer: &[u8]| {
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": described(CONFIG, config.as_bytes()), "layers": [described(kind, layer)],
        })
        .to_string();
        for bytes in [layer, config.as_bytes(), manifest.as_bytes()] {
            if tenant.blob(&digest_of(bytes)).is_err() {
                put(&tenant, bytes, &[], Some("l"));
            }
        }
        let target = Target {
            media_type: MANIFEST.to_owned(),
            digest: digest_of(manifest.as_bytes()),
            size_bytes: manifest.len() as u64,
            annotations: std::collections::BTreeMap::new(),
        };
        tenant.create_image(&format!("docker.io/library/{name}"), target.clone(), &Labels::new()).unwrap();
        tenant.unpack_image(&target, &host, Some("l"))
    };
    for suffix in ["+encrypted", "+gzip+encrypted", "+zstd+encrypted"] {
        let refused = image("secret:1", &format!("{LAYER}{suffix}"), suffix.as_bytes()).unwrap_err();
        assert_eq!(refused.class(), ErrorClass::InvalidArgument, "{suffix}");
        assert!(refused.to_string().contains(suffix), "{refused}");
        assert_eq!(store.get("secret:1").unwrap_err().class(), ErrorClass::NotFound, "{suffix}");
        tenant.delete_image("docker.io/library/secret:1", true, &|_| ImageUse::Unused).unwrap();
    }
    // The same in the clear is an image of both faces, and nothing has to be unpacked.
    assert_eq!(image("plain:1", LAYER, &bytes).unwrap(), []);
    assert_eq!(store.get("plain:1").unwrap().layers.len(), 1);
}
