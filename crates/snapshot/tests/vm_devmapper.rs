//! The devmapper driver against the whole contract, on a thin pool of two loop devices. Run inside the virtual machine by `tests/vm/run.sh`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use berth_snapshot::{DevmapperDriver, Driver, LocalSnapshotter, MemoryRecords, SnapshotStore, testsuite};
use berth_sys::device_mapper::{DeviceMapper, Target};
use berth_types::{Classify as _, ErrorClass};

const SIZE: u64 = 256 << 20;

/// A pool, gone with it.
struct Pool {
    name: String,
    loops: Vec<String>,
    _dir: tempfile::TempDir,
}

fn words(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(output.status.success(), "{command} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Pool {
    fn new(name: &str) -> Self {
        words("modprobe", &["dm-thin-pool"]);
        words("modprobe", &["loop"]);
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let device = |file: &str, size: u64| {
            let path = dir.path().join(file);
            std::fs::File::create(&path).unwrap().set_len(size).unwrap();
            words("losetup", &["--find", "--show", path.to_str().unwrap()])
        };
        let loops = vec![device("metadata", 16 << 20), device("data", 2 << 30)];
        // 64 KiB blocks; a warning below 16 MiB.
        let target = Target {
            sectors: (2 << 30) / 512,
            kind: "thin-pool".to_owned(),
            parameters: format!("{} {} 128 256", loops[0], loops[1]),
        };
        DeviceMapper::open().unwrap().create(name, &target).unwrap();
        Self { name: name.to_owned(), loops, _dir: dir }
    }

    /// Data blocks in use.
    fn used(&self) -> u64 {
        let status = DeviceMapper::open().unwrap().target_status(&self.name).unwrap();
        let data = status.split_whitespace().nth(2).unwrap();
        data.split('/').next().unwrap().parse().unwrap()
    }

    fn driver(&self, directory: &Path) -> Box<dyn Driver> {
        Box::new(DevmapperDriver::open(&self.name, directory, SIZE).unwrap())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mapper = DeviceMapper::open().unwrap();
        for id in 0..2000 {
            mapper.remove(&format!("{}-berth-{id}", self.name)).ok();
        }
        mapper.remove(&self.name).ok();
        for device in &self.loops {
            drop(Command::new("losetup").args(["--detach", device]).status());
        }
    }
}

/// S-085, S-115, S-087: the whole contract, crashes included; a store that is opened again has everything, and what is removed gives its blocks back.
#[test]
#[ignore = "needs dm-thin: run in the virtual machine"]
fn s085_s087_s115_devmapper_keeps_the_contract() {
    let pool = Pool::new("suite");
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = |name: &str| dir.path().join(name);
    let fail = |violation| panic!("devmapper: {violation}");
    let driver = pool.driver(&at("numbers"));
    berth_snapshot::try_out(&at("try"), driver.as_ref()).unwrap();
    let store = SnapshotStore::open_with(&at("drivers"), driver).unwrap();
    testsuite::run(&store).unwrap_or_else(fail);
    drop(store);
    let store = Arc::new(SnapshotStore::open_with(&at("snapshotter"), pool.driver(&at("numbers"))).unwrap());
    let snapshots = LocalSnapshotter::new(Arc::clone(&store), Arc::new(MemoryRecords::default()), "default/");
    testsuite::snapshotter::run(&snapshots, testsuite::snapshotter::Sizes::Bytes).unwrap_or_else(fail);
    drop((snapshots, store));
    // The mounts of a process that is killed go with it; here they would stay and keep the devices busy, so that they are shared.
    let driver = DevmapperDriver::open(&pool.name, &at("numbers"), SIZE).unwrap();
    testsuite::crash::run(&|| SnapshotStore::open_with(&at("crash"), Box::new(driver.clone()))).unwrap_or_else(fail);
    testsuite::reboot::run(&|| SnapshotStore::open_with(&at("reboot"), pool.driver(&at("numbers"))))
        .unwrap_or_else(fail);
    opened_again(&pool, &at("again"), &at("numbers"));
}

fn opened_again(pool: &Pool, root: &Path, numbers: &Path) {
    let chain = |number| berth_types::ChainId::from_bytes([number; 32]);
    let open = || SnapshotStore::open_with(root, pool.driver(numbers)).unwrap();
    let store = open();
    let used = pool.used();
    let layer = store.begin_layer(&chain(1)).unwrap();
    std::fs::write(layer.dir().join("large"), vec![7; 64 << 20]).unwrap();
    layer.commit(64 << 20).unwrap();
    let with_layer = pool.used();
    assert!(with_layer >= used + 1000, "64 MiB are 1024 blocks: {used}, {with_layer}");
    for id in ["a", "b", "c"] {
        store.prepare(id, vec![store.lower(&chain(1))], false).unwrap();
    }
    assert!(pool.used() < with_layer + 200, "64 MiB were copied: {with_layer}, {}", pool.used());
    store.settle().unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.layers().unwrap(), [chain(1)]);
    assert_eq!(std::fs::metadata(store.layer_dir(&chain(1)).join("large")).unwrap().len(), 64 << 20);
    let rootfs = store.rootfs("b", vec![store.lower(&chain(1))]).unwrap();
    let files: PathBuf = rootfs.upper.unwrap();
    assert_eq!(std::fs::read(files.join("large")).unwrap().len(), 64 << 20);
    for id in ["a", "b", "c"] {
        store.discard(id).unwrap();
    }
    store.remove_layer(&chain(1)).unwrap();
    store.trash().empty().unwrap();
    assert!(pool.used() < used + 100, "blocks come back: {used}, {}", pool.used());
}

/// S-085: what is missing is named.
#[test]
#[ignore = "needs dm-thin: run in the virtual machine"]
fn s085_devmapper_says_what_is_missing() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    words("modprobe", &["dm-thin-pool"]);
    let error = DevmapperDriver::open("no-such-pool", dir.path(), SIZE).unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert!(error.to_string().contains("there is no active thin pool \"no-such-pool\""), "{error}");
}
