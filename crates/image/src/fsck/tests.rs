use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_metadata::Metadata;

use super::*;
use crate::CommitOptions;
use crate::tar_stream::{Entry, EntryKind, TarWriter};

const NOBODY: Uses<'static> =
    Uses { is_container: &|_| false, of_image: &|_| ImageUse::Unused, of_snapshot: &|_, _| None };

struct Scratch {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metadata = Arc::new(Metadata::open(&dir.path().join("metadata.redb")).unwrap());
        let store = ImageStore::open(dir.path(), metadata).unwrap();
        let options = CommitOptions { reference: Some("one:1".parse().unwrap()), ..CommitOptions::default() };
        store.import(&mut &layer()[..], &options, &|_, _, _, _| {}).unwrap();
        Self { dir, store }
    }

    fn fsck(&self, is_repairing: bool) -> FsckReport {
        self.store.fsck(is_repairing, NOBODY).unwrap()
    }

    fn found(&self) -> Vec<(&'static str, String)> {
        self.fsck(false).problems.into_iter().map(|problem| (problem.kind, problem.what)).collect()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join("content/blobs/sha256").join(digest.hex())
    }

    fn layer_dir(&self) -> PathBuf {
        self.store.get("one:1").unwrap().layers[0].directory.clone()
    }
}

fn layer() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    for (kind, path, data) in
        [(EntryKind::Directory, "d/", ""), (EntryKind::File, "d/file", "content"), (EntryKind::File, "other", "x")]
    {
        let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
        let size = data.len() as u64;
        tar.start(&Entry { kind, path: path.into(), mode, size, ..Entry::default() }).unwrap();
        tar.data(data.as_bytes()).unwrap();
    }
    tar.finish().unwrap();
    bytes
}

fn other_layer() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    tar.start(&Entry { kind: EntryKind::Directory, path: "e/".into(), mode: 0o755, ..Entry::default() }).unwrap();
    tar.finish().unwrap();
    bytes
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// S-087: a store in order is found in order, and everything in it was looked at.
#[test]
fn s087_a_store_in_order_has_no_problems() {
    let scratch = Scratch::new();
    let report = scratch.fsck(true);
    assert_eq!(report.problems, []);
    assert_eq!((report.images, report.blobs, report.layers), (1, 3, 1));
    assert!(report.blob_bytes > 2048 && report.records >= 2);
}

/// S-087: every damage of a layer is found, and repaired from its blob.
#[test]
fn s087_damaged_layers_are_unpacked_again() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("/d/file: its bytes differ near 0", |dir| overwrite(&dir.join("d/file"), b"Content")),
        ("/d/file: it has 3 bytes instead of 7", |dir| overwrite(&dir.join("d/file"), b"con")),
        ("/other: it is missing", |dir| fs::remove_file(dir.join("other")).unwrap()),
        ("/other: it is something else", |dir| {
            fs::remove_file(dir.join("other")).unwrap();
            fs::create_dir(dir.join("other")).unwrap();
        }),
        ("/d: its owner or mode is another", |dir| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let scratch = Scratch::new();
        damage(&scratch.layer_dir());
        assert_eq!(scratch.found(), [("layer", what.to_owned())]);
        let id = scratch.store.get("one:1").unwrap().id;
        let in_use =
            scratch.store.fsck(true, Uses { of_image: &|_| ImageUse::Running("c".to_owned()), ..NOBODY }).unwrap();
        assert_eq!(in_use.open_problems(), 1, "not under a running container");
        assert_eq!(in_use.problems[0].what, format!("{what}; container c runs on it"));
        let repaired = scratch.fsck(true);
        assert_eq!(repaired.problems[0].repair.as_deref(), Some("unpacked again from its blob"));
        assert_eq!(scratch.found(), []);
        assert_eq!(scratch.store.get("one:1").unwrap().id, id);
        assert_eq!(fs::read(scratch.layer_dir().join("d/file")).unwrap(), b"content");
    }
}

/// S-087: a damaged blob is packed again from its layer when that gives the same bytes; else it is moved away and told.
#[test]
fn s087_damaged_blobs() {
    let scratch = Scratch::new();
    let image = scratch.store.get("one:1").unwrap();
    overwrite(&scratch.blob(&image.layers[0].blob), b"rubbish");
    assert_eq!(scratch.fsck(false).problems[0].kind, "blob");
    let report = scratch.fsck(true);
    assert_eq!(report.problems[0].repair.as_deref(), Some("packed again from its layer"), "{report:?}");
    assert_eq!(scratch.found(), []);
    assert!(scratch.dir.path().join("content/damaged").join(image.layers[0].blob.hex()).exists());
    fs::remove_file(scratch.blob(&image.layers[0].blob)).unwrap();
    assert_eq!(scratch.found()[0], ("blob", "it is missing".to_owned()));
    assert_eq!(scratch.fsck(true).open_problems(), 0);

    overwrite(&scratch.blob(&image.id), b"{}");
    let report = scratch.fsck(true);
    assert!(report.open_problems() >= 1, "a config cannot be made again");
    // The way out: load it again.
    let options = CommitOptions { reference: Some("two:1".parse().unwrap()), ..CommitOptions::default() };
    scratch.store.import(&mut &layer()[..], &options, &|_, _, _, _| {}).unwrap();
    scratch.store.get("two:1").unwrap();
}

/// S-087, S-117: names, records and files of nobody.
#[test]
fn s087_orphans_are_collected() {
    let scratch = Scratch::new();
    let no_image = Write::Put {
        table: Table::Tags,
        key: "docker.io/library/no:1".to_owned(),
        value: format!("sha256:{}", "1".repeat(64)).into_bytes(),
    };
    let no_blob = Write::Put {
        table: Table::Blobs,
        key: format!("t/sha256:{}", "2".repeat(64)),
        value: br#"{"created_ns":0,"updated_ns":0,"labels":{}}"#.to_vec(),
    };
    scratch.store.write(vec![no_image, no_blob]).unwrap();
    let image = scratch.store.get("one:1").unwrap();
    scratch.store.prepare("gone", &image, false).unwrap();
    scratch.store.prepare("kept", &image, false).unwrap();
    let blob = scratch.store.content.stage(b"of nobody").unwrap();
    scratch.store.content.keep([blob]).unwrap();
    scratch.store.snapshots.begin_layer(&Digest::from_bytes([9; 32])).unwrap().commit(0).unwrap();
    fs::create_dir(scratch.dir.path().join("snapshots/overlay/snapshots/7")).unwrap();

    let check = |is_repairing| {
        let report = scratch.store.fsck(is_repairing, Uses { is_container: &|id| id == "kept", ..NOBODY }).unwrap();
        (report.problems.iter().map(|p| p.kind).collect::<Vec<_>>(), report.open_problems())
    };
    let all = vec!["tag", "record", "orphan", "orphan", "orphan", "orphan"];
    assert_eq!(check(false), (all.clone(), 6));
    assert_eq!(check(true), (all, 0));
    assert_eq!(check(false), (vec![], 0));
    assert_eq!(scratch.store.prepared().unwrap(), ["kept"]);
}

/// S-087: images and containers that come and go while it looks are no problems, and nothing of theirs is repaired away.
#[test]
fn s087_what_changes_meanwhile_is_in_order() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let late = |name: &str| CommitOptions { reference: Some(name.parse().unwrap()), ..CommitOptions::default() };
    let records = store.check_images(&mut FsckReport::default()).unwrap();
    // An image comes, and one goes.
    store.import(&mut &other_layer()[..], &late("two:1"), &|_, _, _, _| {}).unwrap();
    store.remove("one:1", true, &|_| ImageUse::Unused).unwrap();
    let mut report = FsckReport::default();
    store.repair_blobs(&BTreeSet::new(), &records, true, &mut report).unwrap();
    store.check_layers(&known_layers(&records), NOBODY, true, &mut report).unwrap();
    store.check_tags(&records, true, &mut report).unwrap();
    assert_eq!(report.problems, []);
    store.get("two:1").unwrap();
}

/// S-087: what was removed a moment ago and is collected a moment later is no orphan.
#[test]
fn s087_what_is_due_to_be_collected_is_no_orphan() {
    let scratch = Scratch::new();
    scratch.store.collect_later(Box::new(|| {}));
    scratch.store.collection_is_due(&scratch.store.lock()).unwrap();
    let blob = scratch.store.content.stage(b"of nobody").unwrap();
    scratch.store.content.keep([blob]).unwrap();
    assert_eq!(scratch.found(), []);
}
