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

/// Makes and removes layers and writable layers until it is killed. What it has committed it appends to a file.
fn work_until_killed(root: &Path, pool: &str) {
    let driver = DevmapperDriver::open(pool, root, SIZE).unwrap();
    let store = SnapshotStore::open_with(root, Box::new(driver)).unwrap();
    let start = u8::try_from(store.layers().unwrap().len()).unwrap();
    for number in start..200 {
        let chain = |number| berth_types::ChainId::from_bytes([number; 32]);
        let below = number.checked_sub(1).map(|below| store.lower(&chain(below)));
        let layer = store.begin_layer_on(&chain(number), below.as_deref()).unwrap();
        std::fs::write(layer.dir().join(format!("file-{number}")), format!("{number}")).unwrap();
        layer.commit(1).unwrap();
        let id = format!("c{number}-{}", std::process::id());
        let rootfs = store.prepare(&id, vec![store.lower(&chain(number))], false).unwrap();
        std::fs::write(rootfs.upper.unwrap().join("own"), "own").unwrap();
        if number % 2 == 0 {
            store.discard(&id).unwrap();
            store.trash().empty().unwrap();
        }
    }
}

/// S-087, S-118: killed at any step the driver leaves no device held still and none that nobody names; what was committed is whole.
#[test]
#[ignore = "needs dm-thin: run in the virtual machine"]
fn s087_devmapper_survives_kills_at_any_step() {
    if let (Some(root), Some(pool)) = (std::env::var_os("DEVMAPPER_WORKS_IN"), std::env::var_os("DEVMAPPER_POOL")) {
        return work_until_killed(Path::new(&root), pool.to_str().unwrap());
    }
    let pool = Pool::new("kills");
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = dir.path().join("store");
    let mapper = DeviceMapper::open().unwrap();
    drop(SnapshotStore::open_with(&root, pool.driver(&root)).unwrap());
    let used = pool.used();
    for round in 0..24_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["s087_devmapper_survives_kills_at_any_step", "--exact", "--ignored", "--nocapture"])
            .env("DEVMAPPER_WORKS_IN", &root)
            .env("DEVMAPPER_POOL", &pool.name)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // A clock: nobody sends.
        let (_sender, clock) = std::sync::mpsc::channel::<()>();
        let pause = std::time::Duration::from_millis(u64::from(40 + round * 97 % 700));
        assert!(clock.recv_timeout(pause).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        let store = SnapshotStore::open_with(&root, pool.driver(&root)).unwrap();
        store.sweep().unwrap();
        store.trash().empty().unwrap();
        for name in mapper.list().unwrap().iter().filter(|name| name.starts_with("kills-berth-")) {
            let device = mapper.status(name).unwrap();
            assert!(device.is_active && !device.is_suspended, "round {round}: {name} {device:?}");
        }
        let layers = store.layers().unwrap();
        if let Some(top) = layers.last() {
            for number in 0..layers.len() {
                let file = store.layer_dir(top).join(format!("file-{number}"));
                assert_eq!(std::fs::read_to_string(&file).unwrap(), number.to_string(), "round {round}");
            }
        }
    }
    let store = SnapshotStore::open_with(&root, pool.driver(&root)).unwrap();
    assert!(!store.layers().unwrap().is_empty(), "nothing was ever committed");
    for id in store.prepared().unwrap() {
        store.discard(&id).unwrap();
    }
    for layer in store.layers().unwrap().iter().rev() {
        store.remove_layer(layer).unwrap();
    }
    store.trash().empty().unwrap();
    assert!(pool.used() < used + 16, "blocks of devices that nobody names: {used}, {}", pool.used());
}

/// What single steps leave: a device held still, one that was made and not noted, one whose id somebody else took.
#[test]
#[ignore = "needs dm-thin: run in the virtual machine"]
fn s087_devmapper_puts_half_steps_right() {
    let pool = Pool::new("halves");
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = dir.path().join("store");
    let mapper = DeviceMapper::open().unwrap();
    let open = || SnapshotStore::open_with(&root, pool.driver(&root)).unwrap();
    let chain = |number| berth_types::ChainId::from_bytes([number; 32]);
    let store = open();
    let layer = store.begin_layer(&chain(0)).unwrap();
    std::fs::write(layer.dir().join("file"), "whole").unwrap();
    layer.commit(5).unwrap();
    assert_eq!(std::fs::read_to_string(store.layer_dir(&chain(0)).join("file")).unwrap(), "whole");
    let record = std::fs::read_to_string(root.join(format!("layers/{}/device.json", chain(0).hex()))).unwrap();
    let id: u32 = record.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    // Killed between the two halves of a snapshot of it, and after making a device that no home names.
    mapper.suspend(&format!("halves-berth-{id}")).unwrap();
    mapper.message("halves", "create_thin 60").unwrap();
    drop(store);
    let store = open();
    assert_eq!(std::fs::read_to_string(store.layer_dir(&chain(0)).join("file")).unwrap(), "whole");
    mapper.message("halves", "create_thin 60").unwrap();
    mapper.message("halves", "delete 60").unwrap();
    // The next ids are taken in the pool: they are passed over.
    let next: u32 = std::fs::read_to_string(root.join("next-device")).unwrap().parse().unwrap();
    for taken in next..next + 3 {
        mapper.message("halves", &format!("create_thin {taken}")).unwrap();
    }
    let below = store.lower(&chain(0));
    let layer = store.begin_layer_on(&chain(1), Some(&below)).unwrap();
    assert_eq!(std::fs::read_to_string(layer.dir().join("file")).unwrap(), "whole");
    layer.commit(5).unwrap();
    assert_eq!(std::fs::read_to_string(store.layer_dir(&chain(1)).join("file")).unwrap(), "whole");
}

/// A daemon whose images and containers are on a pool.
struct Engine<'d> {
    directory: &'d Path,
    pool: &'d str,
    daemon: std::process::Child,
}

impl<'d> Engine<'d> {
    fn start(directory: &'d Path, pool: &'d str) -> Self {
        let daemon = Command::new("/usr/local/bin/berthd")
            .arg("--root")
            .arg(directory.join("root"))
            .arg("--state")
            .arg(directory.join("state"))
            .args(["--log-level", "warn", "--private", "--snapshotter", "devmapper"])
            .args(["--devmapper-pool", pool, "--devmapper-size", "256m"])
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let engine = Self { directory, pool, daemon };
        let (_sender, clock) = std::sync::mpsc::channel::<()>();
        for round in 0.. {
            if engine.output(&["version"]).status.success() {
                break;
            }
            assert!(round < 600, "the daemon does not answer");
            assert!(clock.recv_timeout(std::time::Duration::from_millis(100)).is_err());
        }
        engine
    }

    fn output(&self, arguments: &[&str]) -> std::process::Output {
        let socket = format!("unix://{}", self.directory.join("state/docker.sock").display());
        Command::new("/usr/local/bin/berth").args(["-H", &socket]).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn berth(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn killed(self) -> Self {
        let (directory, pool) = (self.directory, self.pool);
        drop(self);
        Self::start(directory, pool)
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

/// S-085: containers run, change, are committed and removed on thin devices, across a kill of the daemon; what is removed gives its blocks back.
#[test]
#[ignore = "needs dm-thin: run in the virtual machine"]
fn s085_containers_on_devmapper() {
    let pool = Pool::new("engine");
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let engine = Engine::start(dir.path(), &pool.name);
    let rootfs = dir.path().join("rootfs");
    for folder in ["bin", "proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    for applet in ["sh", "sleep", "cat", "rm"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    let archive = dir.path().join("box.tar");
    words("tar", &["-C", rootfs.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    engine.berth(&["import", archive.to_str().unwrap(), "box"]);
    let used = pool.used();
    assert_eq!(engine.berth(&["info", "--format", "{{.Driver}}"]), "devmapper");
    let script = "echo one > /tmp/one; rm /bin/rm; exec sleep 1000";
    engine.berth(&["run", "-d", "--network", "none", "--name", "lives", "box", "sh", "-c", script]);
    let changes = "A /tmp/one";
    let engine = engine.killed();
    assert_eq!(engine.berth(&["exec", "lives", "cat", "/tmp/one"]), "one");
    assert!(engine.berth(&["diff", "lives"]).lines().any(|line| line == changes));
    engine.berth(&["commit", "lives", "two"]);
    let seen =
        engine.berth(&["run", "--rm", "--network", "none", "two", "sh", "-c", "cat /tmp/one; cat /bin/rm 2>&1; true"]);
    assert!(seen.starts_with("one") && seen.contains("No such file"), "{seen}");
    let engine = engine.killed();
    assert_eq!(engine.berth(&["run", "--rm", "--network", "none", "two", "cat", "/tmp/one"]), "one");
    engine.berth(&["rm", "-f", "lives"]);
    engine.berth(&["rmi", "two"]);
    assert!(engine.berth(&["fsck"]).ends_with("all in order"));
    let (_sender, clock) = std::sync::mpsc::channel::<()>();
    for round in 0.. {
        if pool.used() <= used + 16 {
            break;
        }
        assert!(round < 300, "blocks come back: {used}, {}", pool.used());
        assert!(clock.recv_timeout(std::time::Duration::from_millis(100)).is_err());
    }
    engine.berth(&["rmi", "box"]);
}
