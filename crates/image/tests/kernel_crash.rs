//! S-118, for images: a process that loads, tags and removes is killed at random instants; what it acknowledged is there, what is there is whole.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use berth_image::ImageStore;
use berth_metadata::Metadata;
use support::*;

const ROOT: &str = "BERTH_TEST_ROOT";
const POINTS: usize = 40;

fn open(root: &Path) -> ImageStore {
    let metadata = Arc::new(Metadata::open(&root.join("metadata.redb")).unwrap());
    ImageStore::open(root, metadata).unwrap()
}

fn tars(i: usize) -> [Vec<u8>; 2] {
    [one_file("base", &"b".repeat(20_000)), one_file("own", &i.to_string())]
}

/// Not a test: the child that is killed. Round i loads image i and removes image i - 2.
#[test]
#[ignore = "run by s118_kill_while_images_change"]
fn child_changes_images() {
    let store = open(&PathBuf::from(std::env::var_os(ROOT).unwrap()));
    for i in 0..1000 {
        let archive = if i % 2 == 0 {
            Docker::new(&format!("app:{i}"), &tars(i)).archive()
        } else {
            Oci::named(&format!("app:{i}"), &tars(i)).archive()
        };
        store.load(&mut &*archive, &|_, _, _, _| {}).unwrap();
        writeln!(std::io::stdout(), "loaded {i}").unwrap();
        if i >= 2 {
            store.remove(&format!("app:{}", i - 2), false, &unused).unwrap();
            writeln!(std::io::stdout(), "removed {}", i - 2).unwrap();
        }
    }
}

fn run_and_kill(root: &Path, lines_before_kill: usize, spins: u32) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_changes_images", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < lines_before_kill {
        let line = lines.next().expect("the child ended by itself").unwrap();
        acknowledged.extend(told(&line));
    }
    for _ in 0..spins {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| told(&line)));
    child.wait().unwrap();
    acknowledged
}

fn told(line: &str) -> Option<String> {
    line.find("loaded ").or_else(|| line.find("removed ")).map(|at| line[at..].to_owned())
}

fn check_whole(root: &Path, acknowledged: &[String]) {
    let store = open(root);
    let has = |i: usize| store.get(&format!("app:{i}")).is_ok();
    let last = |what: &str| {
        acknowledged.iter().filter_map(|l| l.strip_prefix(what)).filter_map(|i| i.parse::<usize>().ok()).max()
    };
    if let Some(i) = last("loaded ") {
        assert!(has(i), "acknowledged app:{i} is lost");
    }
    if let Some(i) = last("removed ") {
        assert!(!has(i), "removed app:{i} is back");
    }
    let mut blobs = 0;
    let mut layers = std::collections::BTreeSet::new();
    for image in store.list().unwrap() {
        let i: usize = image.references[0].tag().unwrap().parse().unwrap();
        assert_eq!(tree(&image.layers[0].directory)[0].1.len(), 20_000);
        assert_eq!(tree(&image.layers[1].directory)[0].1, i.to_string());
        layers.extend(image.layers.iter().map(|l| l.directory.clone()));
        let mut out = Vec::new();
        store.save(&[image.id.to_string()], &mut out, &|_, _, _, _| {}).unwrap();
        blobs += 1;
    }
    let on_disk = std::fs::read_dir(root.join("snapshots/overlay/layers")).unwrap().count();
    assert_eq!(on_disk, layers.len(), "layers of nobody");
    assert_eq!(std::fs::read_dir(root.join("snapshots/overlay/pending")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.join("content/ingest")).unwrap().count(), 0);
    assert!(blobs <= 4, "{blobs}");
    for image in store.list().unwrap() {
        store.remove(&image.id.to_string(), true, &unused).unwrap();
    }
    assert_eq!(std::fs::read_dir(root.join("content/blobs/sha256")).unwrap().count(), 0, "blobs of nobody");
}

#[test]
fn s118_kill_while_images_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = u64::from(std::process::id()) | 1;
    for _ in 0..POINTS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let acknowledged =
            run_and_kill(dir.path(), usize::try_from(random % 6).unwrap(), u32::try_from(random >> 8 & 0x3ff).unwrap());
        check_whole(dir.path(), &acknowledged);
    }
}
