//! Images on every snapshotter that works here: the same image, the same changes, the same result. Needs root; detached mounts only.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_image::tar_stream::{Entry, EntryKind, TarWriter};
use berth_image::tenant::LayerFormat;
use berth_image::{ChangeKind, CommitOptions, ImageStore, ImageUse, StorageOptions};
use berth_metadata::Metadata;
use berth_snapshot::Snapshotter as _;
use berth_snapshot_proxy::ProxySettings;
use berth_testkit::Containerd;
use berth_types::Labels;

/// Works everywhere a test runs as root; btrfs is tested on its own file system in crate `snapshot`.
/// `far` is a containerd's overlayfs, over the proxy.
const DRIVERS: [&str; 4] = ["overlay", "erofs", "native", "far"];

struct Scratch {
    store: ImageStore,
    _server: Option<Containerd>,
    _dir: tempfile::TempDir,
}

fn scratch(driver: &str) -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let metadata = Arc::new(Metadata::open(&dir.path().join("metadata.redb")).unwrap());
    let server = (driver == "far").then(|| Containerd::start(&dir.path().join("ctd")));
    let far = |server: &Containerd| format!("far=unix://{},snapshotter=overlayfs", server.socket().display());
    let proxies = server.iter().map(|server| ProxySettings::parse(&far(server)).unwrap()).collect();
    let options = StorageOptions { snapshotter: Some(driver.to_owned()), proxies, thin_pool: None };
    let store = ImageStore::open_with(dir.path(), metadata, options).unwrap();
    Scratch { _dir: dir, store, _server: server }
}

fn entry(kind: EntryKind, path: &str, data: &[u8]) -> (Entry, Vec<u8>) {
    let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    let size = data.len() as u64;
    (Entry { kind, path: path.into(), mode, size, ..Entry::default() }, data.to_vec())
}

fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    for (entry, data) in entries {
        tar.start(entry).unwrap();
        tar.data(data).unwrap();
    }
    tar.finish().unwrap();
    bytes
}

fn base() -> Vec<u8> {
    let dir = |path: &str| entry(EntryKind::Directory, path, b"");
    let file = |path: &str, data: &str| entry(EntryKind::File, path, data.as_bytes());
    let link = Entry { kind: EntryKind::HardLink, path: "etc/too".into(), link: "etc/kept".into(), ..Entry::default() };
    tar(&[
        dir("etc/"),
        file("etc/kept", "kept"),
        (link, Vec::new()),
        file("etc/changed", "old"),
        file("etc/deleted", "x"),
        dir("gone/"),
        file("gone/a", "a"),
        dir("emptied/"),
        file("emptied/a", "a"),
        dir("to-file/"),
        file("to-file/a", "a"),
        file("to-dir", "x"),
    ])
}

fn change(root: &Path) {
    fs::write(root.join("etc/changed"), "new").unwrap();
    fs::remove_file(root.join("etc/deleted")).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_dir_all(root.join("emptied")).unwrap();
    fs::create_dir(root.join("emptied")).unwrap();
    fs::write(root.join("emptied/b"), "b").unwrap();
    fs::remove_dir_all(root.join("to-file")).unwrap();
    fs::write(root.join("to-file"), "file").unwrap();
    fs::remove_file(root.join("to-dir")).unwrap();
    fs::create_dir_all(root.join("to-dir/new/deep")).unwrap();
    symlink("/etc/kept", root.join("to-dir/link")).unwrap();
}

fn look(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            let meta = fs::symlink_metadata(root.join(&path)).unwrap();
            let content = match (meta.is_dir(), meta.is_symlink()) {
                (true, _) => {
                    pending.push(path.clone());
                    String::new()
                }
                (_, true) => fs::read_link(root.join(&path)).unwrap().display().to_string(),
                _ => fs::read_to_string(root.join(&path)).unwrap(),
            };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            found.insert(path.display().to_string(), format!("{:o} {links} {content}", meta.mode()));
        }
    }
    found
}

fn mounted<T>(rootfs: &berth_rootfs::OverlayRootfs, action: impl FnOnce(&Path) -> T) -> T {
    let mount = rootfs.mount_detached().unwrap();
    action(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())))
}

/// S-085, S-084, S-104, S-106: a container's changes are listed, committed and run again alike on each snapshotter.
#[test]
fn s085_same_image_on_every_driver() {
    let mut outcomes = Vec::new();
    for driver in DRIVERS {
        let scratch = scratch(driver);
        let options = CommitOptions { reference: Some("base:1".parse().unwrap()), ..CommitOptions::default() };
        scratch.store.import(&mut &base()[..], &options, &|_, _, _, _| {}).unwrap();
        let image = scratch.store.get("base:1").unwrap();
        let rootfs = scratch.store.prepare("c", &image, false).unwrap();
        assert_eq!(scratch.store.changes(&rootfs).unwrap(), [], "{driver}");
        assert_eq!(scratch.store.writable_size(&rootfs).unwrap(), 0, "{driver}");
        mounted(&rootfs, change);
        let after = mounted(&rootfs, look);
        assert_eq!(scratch.store.writable_size(&rootfs).unwrap(), 8, "{driver}");
        let changes: Vec<(ChangeKind, String)> = scratch
            .store
            .changes(&rootfs)
            .unwrap()
            .into_iter()
            .map(|c| (c.kind, c.path.display().to_string()))
            .collect();
        let options = CommitOptions { reference: Some("next:1".parse().unwrap()), ..CommitOptions::default() };
        scratch.store.commit(&image, &rootfs, &options).unwrap();
        let next = scratch.store.get("next:1").unwrap();
        assert_eq!(next.layers.len(), 2);
        let again = scratch.store.prepare("d", &next, true).unwrap();
        assert_eq!(mounted(&again, look), after, "{driver}: the committed image is what the container was");
        for container in ["c", "d"] {
            scratch.store.discard(container).unwrap();
        }
        for name in ["next:1", "base:1"] {
            scratch.store.remove(name, false, &|_| ImageUse::Unused).unwrap();
        }
        outcomes.push((driver, after, changes));
    }
    let (_, after, changes) = &outcomes[0];
    assert!(changes.contains(&(ChangeKind::Deleted, "/etc/deleted".to_owned())), "{changes:?}");
    for (driver, other_after, other_changes) in &outcomes[1..] {
        assert_eq!(other_after, after, "{driver}");
        assert_eq!(other_changes, changes, "{driver}");
    }
}

/// S-116: a created layer applied and created again is the same layer, whatever the packing; mounts of whole trees give it by walking both.
#[test]
fn s116_diff_round_trip_is_byte_stable() {
    for driver in DRIVERS {
        let scratch = scratch(driver);
        let tenant = scratch.store.tenant("t").unwrap();
        tenant.create_lease("l", &Labels::new()).unwrap();
        let snapshots = tenant.snapshots();
        let no_labels = Labels::new();
        let bind = |mounts: &[berth_snapshot::Mount]| berth_snapshot::rootfs_of_mounts(mounts).unwrap();
        let first = snapshots.prepare("base-key", None, &no_labels, Some("l")).unwrap();
        mounted(&bind(&first), |root| {
            berth_image::apply(&mut &base()[..], &berth_rootfs::RootDir::open_host(root).unwrap()).unwrap();
        });
        snapshots.commit("base", "base-key", &no_labels, Some("l")).unwrap();
        let lower = snapshots.view("base-view", Some("base"), &no_labels, Some("l")).unwrap();
        let upper = snapshots.prepare("upper", Some("base"), &no_labels, Some("l")).unwrap();
        mounted(&bind(&upper), change);
        let create = |upper: &[berth_snapshot::Mount], format| {
            tenant.create_layer(&lower, upper, format, &no_labels, Some("l")).unwrap()
        };
        let plain = create(&upper, LayerFormat::Plain);
        assert_eq!(plain.diff_id, plain.digest);
        for (n, format) in [LayerFormat::Gzip, LayerFormat::Zstd, LayerFormat::Plain].into_iter().enumerate() {
            let packed = create(&upper, format);
            assert_eq!(packed.diff_id, plain.diff_id, "{driver} {format:?}");
            assert_eq!(create(&upper, format), packed, "{driver} {format:?}: the same bytes");
            let key = format!("again-{n}");
            let again = snapshots.prepare(&key, Some("base"), &no_labels, Some("l")).unwrap();
            let applied = tenant.apply_layer(&packed.digest, &again).unwrap();
            assert_eq!(applied.diff_id, plain.diff_id);
            assert_eq!(create(&again, LayerFormat::Plain), plain, "{driver} {format:?}: applied and created again");
            snapshots.local().remove(&key).unwrap();
        }
    }
}
