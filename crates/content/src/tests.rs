use std::os::unix::fs::PermissionsExt as _;

use berth_types::{Classify as _, ErrorClass};

use super::*;

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(&dir.path().join("content")).unwrap();
    (dir, store)
}

fn ingest(store: &ContentStore, bytes: &[u8]) -> Ingest {
    let mut ingest = store.begin().unwrap();
    ingest.append(bytes).unwrap();
    ingest
}

/// S-114, S-002: put, get, list and remove by digest.
#[test]
fn s114_blobs_by_digest() {
    let (dir, store) = store();
    let digest = digest_of(b"hello");
    assert_eq!(digest.hex(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    let staged = ingest(&store, b"hello").finish(Expected { digest: Some(digest), size_bytes: Some(5) }).unwrap();
    assert_eq!(staged.read(5).unwrap(), b"hello");
    assert_eq!(store.ingests().unwrap(), [5]);
    assert!(!store.has(&digest), "no name before it is kept");
    store.keep([staged, store.stage(b"other").unwrap(), store.stage(b"hello").unwrap()]).unwrap();
    let mut all = [digest, digest_of(b"other")];
    all.sort_unstable();
    assert_eq!(store.list().unwrap(), all);
    assert!(store.ingests().unwrap().is_empty());
    assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
    assert_eq!(store.size(&digest).unwrap(), 5);
    store.verify(&digest).unwrap();
    let on_disk = dir.path().join("content/blobs/sha256").join(digest.hex());
    assert_eq!(std::fs::metadata(on_disk).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(store.remove(&digest).unwrap(), 5);
    assert_eq!(store.remove(&digest).unwrap(), 0);
    assert_eq!(store.read(&digest, 5).unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(store.list().unwrap().len(), 1);
}

/// S-114: a large blob goes by a rename, its space when somebody has the time, or at the next opening.
#[test]
fn s114_large_blobs_go_to_the_trash() {
    let (dir, store) = store();
    let large = vec![7; 1 << 20];
    let keep = || store.keep([store.stage(&large).unwrap()]).unwrap();
    let trash = dir.path().join("content/trash");
    let in_trash = || std::fs::read_dir(&trash).unwrap().count();
    for _ in 0..2 {
        keep();
        let open = store.reader(&digest_of(&large)).unwrap();
        assert_eq!(store.remove(&digest_of(&large)).unwrap(), 1 << 20);
        assert!(!store.has(&digest_of(&large)) && store.totals().count == 0);
        assert_eq!(open.metadata().unwrap().len(), 1 << 20);
    }
    assert_eq!(in_trash(), 2);
    store.empty_trash().unwrap();
    assert_eq!(in_trash(), 0);
    keep();
    store.remove(&digest_of(&large)).unwrap();
    drop(store);
    ContentStore::open(&dir.path().join("content")).unwrap();
    assert_eq!(in_trash(), 0);
}

/// S-114: wrong content is refused and nothing stays of it.
#[test]
fn s114_wrong_digest_or_size_is_refused() {
    let (_dir, store) = store();
    let wrong = Expected { digest: Some(digest_of(b"x")), size_bytes: None };
    let error = ingest(&store, b"hello").finish(wrong).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
    assert!(error.to_string().starts_with("content has digest sha256:2cf24dba"), "{error}");
    let error = ingest(&store, b"hello").finish(Expected { digest: None, size_bytes: Some(6) }).unwrap_err();
    assert_eq!(error.to_string(), "content of 6 bytes expected, got 5");
    drop(ingest(&store, b"given up"));
    drop(store.stage(b"given up").unwrap());
    assert!(store.ingests().unwrap().is_empty());
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn opening_sweeps_ingests_of_a_crash() {
    let (dir, store) = store();
    let root = dir.path().join("content");
    std::fs::write(root.join("ingest/7"), "half").unwrap();
    store.keep([store.stage(b"whole").unwrap()]).unwrap();
    let store = ContentStore::open(&root).unwrap();
    assert!(store.ingests().unwrap().is_empty());
    assert_eq!(store.list().unwrap(), [digest_of(b"whole")]);
}

#[test]
fn damage_on_disk_is_noticed() {
    let (_dir, store) = store();
    store.keep([store.stage(b"whole").unwrap()]).unwrap();
    let digest = digest_of(b"whole");
    let path = store.path(&digest);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, b"whale").unwrap();
    assert_eq!(store.read(&digest, 5).unwrap_err().class(), ErrorClass::DataLoss);
    assert_eq!(store.verify(&digest).unwrap_err().class(), ErrorClass::DataLoss);
    assert_eq!(store.read(&digest, 4).unwrap_err().class(), ErrorClass::InvalidArgument);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(store.reader(&digest).is_err());
}

#[test]
fn append_from_tells_which_side_failed() {
    let (_dir, store) = store();
    let mut ingest = store.begin().unwrap();
    let mut piece = Vec::new();
    assert_eq!(ingest.append_from(&mut &vec![1; 700_000][..], &mut piece).unwrap(), 700_000);
    struct Fails;
    impl io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    assert!(matches!(ingest.append_from(&mut Fails, &mut piece), Err(Copying::Read(_))));
}
