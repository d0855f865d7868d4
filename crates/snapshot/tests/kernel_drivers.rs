//! Each driver against the whole contract, on the kernel's own file systems. Needs root; mounts only in a mount namespace of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its fixtures")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use berth_snapshot::{
    BtrfsDriver, Driver, ErofsDriver, LocalSnapshotter, MemoryRecords, NativeDriver, OverlayDriver, SnapshotStore,
    choose, testsuite,
};
use berth_types::{Classify as _, ErrorClass};

fn whole_contract(root: &Path, driver: impl Fn() -> Box<dyn Driver>) {
    let store = SnapshotStore::open_with(&root.join("drivers"), driver()).unwrap();
    testsuite::run(&store).unwrap_or_else(|violation| panic!("{}: {violation}", store.driver().name()));
    let store = Arc::new(SnapshotStore::open_with(&root.join("snapshotter"), driver()).unwrap());
    let snapshots = LocalSnapshotter::new(Arc::clone(&store), Arc::new(MemoryRecords::default()), "default/");
    testsuite::snapshotter::run(&snapshots, testsuite::snapshotter::Sizes::Bytes)
        .unwrap_or_else(|violation| panic!("{}: {violation}", store.driver().name()));
    testsuite::reboot::run(&|| SnapshotStore::open_with(&root.join("reboot"), driver()))
        .unwrap_or_else(|violation| panic!("{}: {violation}", store.driver().name()));
    testsuite::crash::run(&|| SnapshotStore::open_with(&root.join("crash"), driver()))
        .unwrap_or_else(|violation| panic!("{}: {violation}", store.driver().name()));
}

/// S-085, S-087, S-115.
#[test]
fn s085_s087_s115_overlay_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    whole_contract(dir.path(), || Box::new(OverlayDriver));
}

/// S-085, S-087, S-115.
#[test]
fn s085_s087_s115_erofs_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    whole_contract(dir.path(), || Box::new(ErofsDriver::default()));
}

/// S-085, S-087, S-115.
#[test]
fn s085_s087_s115_native_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    whole_contract(dir.path(), || Box::new(NativeDriver));
}

/// S-085: what does not work here is refused with its reason; what is not asked for is chosen by trying.
#[test]
fn s085_a_driver_is_chosen_by_trying() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(choose(dir.path(), None).unwrap().name(), "erofs");
    assert_eq!(choose(dir.path(), Some("native")).unwrap().name(), "native");
    let error = choose(dir.path(), Some("aufs")).unwrap_err();
    assert_eq!(
        (error.class(), error.to_string().as_str()),
        (ErrorClass::InvalidArgument, "there is no snapshotter \"aufs\"")
    );
    assert!(error.hint().unwrap().contains("overlay"));
    let error = choose(dir.path(), Some("btrfs")).unwrap_err();
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert!(error.to_string().contains("make the subvolume"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "trying leaves nothing");
    // Writable layers are where they were: what an earlier version chose stays.
    drop(SnapshotStore::open_with(&dir.path().join("overlay"), Box::new(OverlayDriver)).unwrap());
    assert_eq!(choose(dir.path(), None).unwrap().name(), "overlay");
    assert_eq!(choose(dir.path(), Some("erofs")).unwrap().name(), "erofs");
}

/// S-085, S-087, S-115: on a real btrfs, in a file. The inner half runs in a mount namespace of its own.
#[test]
fn s085_s087_s115_btrfs_keeps_the_contract() {
    in_namespace("inner_btrfs");
}

#[test]
#[ignore = "run by s085_s087_s115_btrfs_keeps_the_contract in a mount namespace"]
fn inner_btrfs() {
    let dir = tempfile::tempdir().unwrap();
    let at = mounted_image(dir.path(), 512 << 20, "mkfs.btrfs", &["-q"], "btrfs");
    assert_eq!(choose(&at.join("x"), Some("btrfs")).unwrap().name(), "btrfs");
    whole_contract(&at, || Box::new(BtrfsDriver));
    whole_contract(&at.join("overlay"), || Box::new(OverlayDriver));
    assert_blocks_are_shared(&at);
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// By the native driver's copies.
fn assert_blocks_are_shared(at: &Path) {
    let native = SnapshotStore::open_with(&at.join("native"), Box::new(NativeDriver)).unwrap();
    let layer = native.begin_layer(&chain(1)).unwrap();
    std::fs::write(layer.dir().join("large"), vec![7; 64 << 20]).unwrap();
    layer.commit(64 << 20).unwrap();
    let free = || rustix::fs::statvfs(at).unwrap().f_bfree * 4096;
    rustix::fs::sync();
    let before = free();
    native.prepare("c", vec![native.lower(&chain(1))], false).unwrap();
    rustix::fs::sync();
    assert!(before.saturating_sub(free()) < 16 << 20, "64 MiB were copied");
}

/// S-085, S-087, S-115: the default drivers on each file system that a data root is likely to be on; btrfs is above.
#[test]
fn s085_s087_s115_default_drivers_on_ext4_xfs_and_tmpfs() {
    in_namespace("inner_backings");
}

#[test]
#[ignore = "run by s085_s087_s115_default_drivers_on_ext4_xfs_and_tmpfs in a mount namespace"]
fn inner_backings() {
    for kind in ["ext4", "xfs", "tmpfs"] {
        let dir = tempfile::tempdir().unwrap();
        let at = match kind {
            "ext4" => mounted_image(dir.path(), 256 << 20, "mkfs.ext4", &["-q"], kind),
            // Smaller ones its tool refuses.
            "xfs" => mounted_image(dir.path(), 512 << 20, "mkfs.xfs", &["-q"], kind),
            _ => {
                let at = dir.path().join("mnt");
                std::fs::create_dir(&at).unwrap();
                let data = Some(c"size=256m");
                rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), data).unwrap();
                at
            }
        };
        println!("{kind}");
        whole_contract(&at.join("o"), || Box::new(OverlayDriver));
        // Trying finds out that it does not work on tmpfs.
        if kind == "tmpfs" {
            assert_eq!(choose(&at.join("x"), None).unwrap().name(), "overlay");
            assert_eq!(choose(&at.join("x"), Some("erofs")).unwrap_err().class(), ErrorClass::FailedPrecondition);
        } else {
            assert_eq!(choose(&at.join("x"), None).unwrap().name(), "erofs");
            whole_contract(&at.join("e"), || Box::new(ErofsDriver::default()));
        }
        if kind == "xfs" {
            assert_blocks_are_shared(&at);
        }
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn chain(number: u8) -> berth_types::ChainId {
    berth_types::ChainId::from_bytes([number; 32])
}

/// A file system made by the peer's tool in a sparse file, mounted through a loop device.
fn mounted_image(dir: &Path, size: u64, mkfs: &str, arguments: &[&str], kind: &str) -> PathBuf {
    let image = dir.join("image");
    std::fs::File::create(&image).unwrap().set_len(size).unwrap();
    let peers =
        std::env::var_os("BERTH_PEERS").map_or_else(|| PathBuf::from("target/peers"), PathBuf::from).join("root");
    let library = peers.join("usr/lib/x86_64-linux-gnu");
    let tool = ["usr/sbin", "sbin", "usr/bin", "bin"].iter().map(|at| peers.join(at).join(mkfs)).find(|at| at.exists());
    let tool = tool.unwrap_or_else(|| PathBuf::from(mkfs));
    let made = Command::new(&tool).args(arguments).arg(&image).env("LD_LIBRARY_PATH", library).status();
    assert!(made.unwrap_or_else(|error| panic!("{}: {error}", tool.display())).success());
    let at = dir.join("mnt");
    std::fs::create_dir(&at).unwrap();
    let mounted = Command::new("mount").args(["-o", "loop", "-t", kind]).arg(&image).arg(&at).status().unwrap();
    assert!(mounted.success(), "mount -o loop -t {kind}");
    at
}

fn in_namespace(inner: &str) {
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", inner, "--ignored", "--nocapture"])
        .status()
        .expect("unshare (util-linux) is needed");
    assert!(status.success());
}
