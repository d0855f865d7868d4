//! A full disk: clean errors that name the cause, nothing half done, removal still possible, full function once there is space again.
//! The disk is a small tmpfs, mounted detached: no mount table has it, and it is gone with the test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_image::ImageStore;
use berth_metadata::Metadata;
use berth_types::{Classify as _, ErrorClass, report};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use support::*;

/// A tmpfs of its own, and the way to it.
fn small_disk(bytes: u64) -> (OwnedFd, PathBuf) {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "size", bytes.to_string()).unwrap();
    fsconfig_create(&context).unwrap();
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    (mount, path)
}

/// Takes all space but `left` bytes.
fn fill(root: &Path, left: usize) {
    let mut ballast = fs::File::create(root.join("ballast")).unwrap();
    let piece = vec![1; 4096];
    while ballast.write_all(&piece).is_ok() {}
    let size = ballast.metadata().unwrap().len();
    ballast.set_len(size.saturating_sub(left as u64) / 4096 * 4096).unwrap();
}

fn holdings(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in ["content/blobs/sha256", "content/ingest", "snapshots/overlay/layers", "snapshots/overlay/pending"] {
        found.extend(fs::read_dir(root.join(place)).unwrap().map(|e| e.unwrap().path()));
    }
    found.sort();
    found
}

/// The space that removal counts on is put back within seconds of being there.
fn wait_for_reserve(root: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !root.join("metadata.reserve").exists() {
        assert!(Instant::now() < deadline, "no reserve");
        std::thread::yield_now();
    }
}

#[test]
fn every_amount_of_space_is_enough_or_cleanly_too_little() {
    let (_disk, root) = small_disk(24 << 20);
    let metadata = Arc::new(Metadata::open(&root.join("metadata.redb")).unwrap());
    let store = ImageStore::open(&root, metadata).unwrap();
    let load = |archive: &[u8]| store.load(&mut &*archive, &|_, _, _, _| {});
    load(&Docker::new("good:latest", &[one_file("a", "good")]).archive()).unwrap();
    let before = holdings(&root);
    let archive = Docker::new("new:latest", &[one_file("a", &"x".repeat(100_000)), one_file("b", "2")]).archive();
    let (mut refused, mut loaded) = (0, 0);
    for left in [0, 4, 8, 16, 32, 64, 100, 128, 164, 200, 228, 240, 260, 300, 400, 1000, 4000] {
        fill(&root, left << 10);
        match load(&archive) {
            Ok(_) => {
                loaded += 1;
                // Removal must work however little is left.
                fill(&root, 0);
                store.remove("new", false, &unused).unwrap_or_else(|e| panic!("{left} KiB: {}", report(&e)));
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.class(), ErrorClass::ResourceExhausted, "{left} KiB: {}", report(&error));
            }
        }
        assert_eq!(holdings(&root), before, "{left} KiB");
        fs::remove_file(root.join("ballast")).unwrap();
        wait_for_reserve(&root);
        assert_eq!(store.get("good").unwrap().references.len(), 1, "{left} KiB");
    }
    assert!(refused > 5 && loaded > 1, "{refused} refused, {loaded} loaded");
    // With space again everything works, without a restart; and it can be opened again.
    load(&archive).unwrap();
    drop(store);
    let metadata = Arc::new(Metadata::open(&root.join("metadata.redb")).unwrap());
    let store = ImageStore::open(&root, metadata).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    fill(&root, 0);
    store.remove("new", false, &unused).unwrap();
    store.remove("good", false, &unused).unwrap();
    assert!(holdings(&root).is_empty());
}
