use std::fs;

use berth_types::{Classify, ErrorClass};

use super::*;

fn chain(number: u8) -> ChainId {
    ChainId::from_bytes([number; 32])
}

fn store() -> (tempfile::TempDir, SnapshotStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(&dir.path().join("snapshots")).unwrap();
    (dir, store)
}

/// S-083: one new empty upper directory per container, shared lowers.
#[test]
fn s083_containers_share_layers() {
    let (_dir, store) = store();
    store.begin_layer(&chain(1)).unwrap().commit(0).unwrap();
    let lowers = vec![store.lower(&chain(1))];
    let a = store.prepare("a", lowers.clone(), true).unwrap();
    let b = store.prepare("b", lowers.clone(), true).unwrap();
    assert_eq!(a.lowers, b.lowers);
    assert_ne!(a.upper, b.upper);
    assert_eq!(fs::read_dir(a.upper.unwrap()).unwrap().count(), 0);
}

#[test]
fn reopening_keeps_what_is_complete() {
    let (dir, store) = store();
    store.begin_layer(&chain(1)).unwrap().commit(7).unwrap();
    store.prepare("kept", vec![store.lower(&chain(1))], false).unwrap();
    store.prepare("gone", vec![], true).unwrap();
    // A process that died while it unpacked a layer runs no destructors.
    fs::create_dir(dir.path().join("snapshots/pending/7")).unwrap();
    drop(store);
    let store = SnapshotStore::open(&dir.path().join("snapshots")).unwrap();
    assert_eq!(store.layers().unwrap(), [chain(1)]);
    assert_eq!(store.prepared().unwrap(), ["gone", "kept"]);
    store.sweep().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("snapshots/pending")).unwrap().count(), 0);
}

/// S-087: after a reboot the store opens, without the layers whose data may not have reached the disk and without throw-away pairs.
#[test]
fn s087_reboot_drops_what_is_unsure() {
    let (dir, store) = store();
    let root = dir.path().join("snapshots");
    store.begin_layer(&chain(1)).unwrap().commit(1).unwrap();
    store.settle().unwrap();
    store.begin_layer(&chain(2)).unwrap().commit(2).unwrap();
    store.begin_layer(&chain(3)).unwrap().commit(3).unwrap();
    store.prepare("kept", vec![], false).unwrap();
    store.prepare("gone", vec![], true).unwrap();
    drop(store);
    let other_boot = |path: &Path| {
        let text = fs::read_to_string(path).unwrap().replace(recovery::boot_id().unwrap().as_str(), "another-boot");
        fs::write(path, text).unwrap();
    };
    other_boot(&root.join("boot"));
    for number in [1, 2] {
        other_boot(&root.join("layers").join(chain(number).hex()).join("layer.json"));
    }
    fs::write(root.join("layers").join(chain(3).hex()).join("layer.json"), "").unwrap();

    let store = SnapshotStore::open(&root).unwrap();
    assert_eq!(store.layers().unwrap(), [chain(1)]);
    assert_eq!(store.prepared().unwrap(), ["kept"]);
}

#[test]
fn another_version_is_refused() {
    let (dir, store) = store();
    drop(store);
    fs::write(dir.path().join("snapshots/version"), "2\n").unwrap();
    let error = SnapshotStore::open(&dir.path().join("snapshots")).unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert!(error.to_string().contains("\"2\""), "{error}");
}

/// CVE-2021-41103, CVE-2021-41091: nothing below the store can be traversed by others.
#[test]
fn store_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _store) = store();
    for name in ["", "layers", "pending", "containers", "throw-away", "snapshots", "trash"] {
        let mode = fs::metadata(dir.path().join("snapshots").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{name}");
    }
}

/// A layer that says its root is opaque hides everything below, which the kernel alone would not do.
#[test]
fn opaque_root_cuts_the_stack() {
    let (_dir, store) = store();
    for number in [1, 2, 3] {
        let pending = store.begin_layer(&chain(number)).unwrap();
        fs::write(pending.dir().join(number.to_string()), "").unwrap();
        if number == 2 {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(pending.dir(), "trusted.overlay.opaque", b"y", flags).unwrap();
        }
        pending.commit(0).unwrap();
    }
    let lowers: Vec<PathBuf> = [3, 2, 1].map(|number| store.lower(&chain(number))).to_vec();
    let rootfs = store.prepare("c", lowers.clone(), true).unwrap();
    assert_eq!(rootfs.lowers, lowers[..2]);
    assert_eq!(store.rootfs("c", lowers).unwrap(), rootfs);
}

#[test]
fn background_work_settles_and_deletes() {
    let (dir, store) = store();
    let root = dir.path().join("snapshots");
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| store.work(|| (), |error| panic!("{error:?}")));
        store.begin_layer(&chain(1)).unwrap().commit(1).unwrap();
        store.prepare("c", vec![], true).unwrap();
        store.discard("c").unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let settled = root.join("layers").join(chain(1).hex()).join("settled");
        while !settled.exists() || fs::read_dir(root.join("trash")).unwrap().count() > 0 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        store.trash().stop();
        worker.join().unwrap();
    });
}

#[test]
fn a_tree_of_any_depth_can_be_deleted() {
    let (dir, store) = store();
    let rootfs = store.prepare("deep", vec![], true).unwrap();
    let deep: PathBuf = std::iter::repeat_n("d", 1500).collect();
    fs::create_dir_all(rootfs.upper.as_ref().unwrap().join(deep)).unwrap();
    let error = store.writable_size(&rootfs).unwrap_err();
    assert!(matches!(error, SnapshotError::TooDeep { .. }));
    store.discard("deep").unwrap();
    std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn_scoped(scope, || store.trash().empty().unwrap()).unwrap().join().unwrap();
    });
    assert_eq!(fs::read_dir(dir.path().join("snapshots/trash")).unwrap().count(), 0);
}

/// Counts how often all records are read.
#[derive(Debug, Default)]
struct Counted {
    records: MemoryRecords,
    lists: AtomicU64,
}

impl Records for Counted {
    fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, RecordsError> {
        self.records.get(key)
    }

    fn list(&self, prefix: &str) -> std::result::Result<Vec<(String, Vec<u8>)>, RecordsError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.records.list(prefix)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> std::result::Result<(), RecordsError> {
        self.records.write(writes)
    }
}

/// S-115: a removal looks at the children alone, whoever made them and whoever took them away.
#[test]
fn s115_removals_do_not_read_all_records() {
    let (_dir, store) = store();
    let (store, records) = (Arc::new(store), Arc::new(Counted::default()));
    let tenant = |prefix: &str| LocalSnapshotter::new(Arc::clone(&store), Arc::<Counted>::clone(&records), prefix);
    let (one, other) = (tenant("one/"), tenant("other/"));
    let none = berth_types::label::Labels::new();
    for snapshots in [&one, &other] {
        snapshots.prepare("active", None, &none).unwrap();
        snapshots.commit("base", "active", &none).unwrap();
    }
    for n in 0..50 {
        one.prepare(&format!("c{n}"), Some("base"), &none).unwrap();
    }
    // Made before anybody asked, after it, and by another value of the same tenant.
    assert_eq!(one.remove("base").unwrap_err().class(), ErrorClass::FailedPrecondition);
    tenant("one/").view("late", Some("base"), &none).unwrap();
    (0..50).for_each(|n| one.remove(&format!("c{n}")).unwrap());
    let refused = one.remove("base").unwrap_err();
    assert!(refused.to_string().contains("late"), "{refused}");
    assert_eq!(records.lists.load(Ordering::Relaxed), 1);
    // The collection takes records away by itself.
    records.write(vec![("one/late".to_owned(), None)]).unwrap();
    one.remove("base").unwrap();
    other.remove("base").unwrap();
    assert_eq!(records.lists.load(Ordering::Relaxed), 2);
    assert_eq!((one.walk().unwrap(), other.walk().unwrap()), (Vec::new(), Vec::new()));
}

/// Records that say, at the moment of each write, which layers a crash of the host would keep.
#[derive(Debug)]
struct Watched {
    records: MemoryRecords,
    root: PathBuf,
}

impl Records for Watched {
    fn get(&self, key: &str) -> std::result::Result<Option<Vec<u8>>, RecordsError> {
        self.records.get(key)
    }

    fn list(&self, prefix: &str) -> std::result::Result<Vec<(String, Vec<u8>)>, RecordsError> {
        self.records.list(prefix)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> std::result::Result<(), RecordsError> {
        for (key, value) in &writes {
            let Some(value) = value else { continue };
            if let Place::Layer(chain_id) = SnapshotRecord::parse(key, value).unwrap().place {
                let home = self.root.join("layers").join(chain_id.hex());
                assert!(home.join("settled").exists(), "{key} names a layer that a crash now would lose");
            }
        }
        self.records.write(writes)
    }
}

/// S-115: no record names a layer that is not known to be on the disk, whether a client committed it or found it there.
#[test]
fn s115_records_follow_their_layers() {
    let (dir, store) = store();
    let store = Arc::new(store);
    let records = Watched { records: MemoryRecords::default(), root: dir.path().join("snapshots") };
    let snapshots = LocalSnapshotter::new(Arc::clone(&store), Arc::new(records), "t/");
    let none = berth_types::label::Labels::new();
    snapshots.prepare("extract", None, &none).unwrap();
    snapshots.commit_layer("first", "extract", &none, &chain(1)).unwrap();
    store.begin_layer(&chain(2)).unwrap().commit(7).unwrap();
    snapshots.adopt_layer("second", Some("first"), &none, &chain(2)).unwrap();
    assert_eq!(snapshots.walk().unwrap().len(), 2);
}

/// S-087: a layer made again takes its place in one step; the old one stays, whole, until nobody of those who were on it is left, or the host restarts.
#[test]
fn s087_a_replaced_layer_stays_for_those_on_it() {
    use std::os::unix::fs::MetadataExt as _;
    let (dir, store) = store();
    let root = dir.path().join("snapshots");
    let make = |store: &SnapshotStore, text: &str| {
        let layer = store.begin_layer(&chain(1)).unwrap();
        fs::write(layer.dir().join("file"), text).unwrap();
        layer
    };
    let aside = || names(&root.join("replaced")).unwrap();
    let users = |names: &'static [&str]| move |_: &ChainId| names.iter().map(|name| (*name).to_owned()).collect();
    make(&store, "old").commit(3).unwrap();
    let inode = fs::metadata(store.layer_dir(&chain(1))).unwrap().ino();
    let removals = store.removals();
    store.replace_layer(make(&store, "newer"), 5).unwrap();
    assert!(store.removals() > removals);
    assert_eq!(fs::read_to_string(store.layer_dir(&chain(1)).join("file")).unwrap(), "newer");
    assert_eq!(store.layer_size(&chain(1)), Some(5));
    let name = aside().remove(0);
    assert_eq!(fs::metadata(root.join("replaced").join(&name).join("fs")).unwrap().ino(), inode);

    store.drop_replaced(&users(&["a", "b"])).unwrap();
    store.drop_replaced(&users(&["b", "later"])).unwrap();
    assert_eq!(aside(), [name.as_str()]);
    drop(store);
    // Another process does not know who came later.
    let store = SnapshotStore::open(&root).unwrap();
    store.sweep().unwrap();
    store.drop_replaced(&users(&["b", "later"])).unwrap();
    store.drop_replaced(&users(&["later"])).unwrap();
    assert_eq!(aside(), [name]);
    store.drop_replaced(&users(&["a", "newest"])).unwrap();
    assert_eq!((aside().len(), store.has_replaced()), (0, false));

    // Nothing there to be kept; one whose record is damaged when the next process looks.
    store.remove_layer(&chain(1)).unwrap();
    store.replace_layer(make(&store, "third"), 5).unwrap();
    assert_eq!(aside().len(), 0);
    fs::write(root.join("layers").join(chain(1).hex()).join("layer.json"), "{").unwrap();
    drop(store);
    let store = SnapshotStore::open(&root).unwrap();
    assert!(!store.has_layer(&chain(1)) && store.has_replaced());
    assert_eq!(fs::read_to_string(root.join("replaced").join(&aside()[0]).join("fs/file")).unwrap(), "third");
    drop(store);
    fs::write(root.join("boot"), "another-boot\n").unwrap();
    assert!(!SnapshotStore::open(&root).unwrap().has_replaced());
    assert_eq!(aside().len(), 0);
}
