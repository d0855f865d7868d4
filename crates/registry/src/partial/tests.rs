use berth_content::digest_of;

use super::*;

fn bytes(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

fn open(root: &std::path::Path) -> (Arc<ContentStore>, Partials) {
    let content = Arc::new(ContentStore::open(root).unwrap());
    (Arc::clone(&content), Partials::open(content).unwrap())
}

/// A blob goes on where it was, with gaps; one of another size begins anew.
#[test]
fn what_came_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let content = bytes(5 * PIECE_BYTES + 17);
    let (digest, size) = (digest_of(&content), content.len() as u64);
    let (store, partials) = open(root.path());
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    {
        let partial = partials.begin(&digest, size).unwrap();
        partial.write(0, &content[..2 * piece + 5]).unwrap();
        partial.write(5 * PIECE_BYTES, &content[5 * piece..]).unwrap();
        assert_eq!(partial.missing().as_slice(), std::slice::from_ref(&(2 * PIECE_BYTES + 5..5 * PIECE_BYTES)));
        assert_eq!(partial.received_bytes(), 2 * PIECE_BYTES + 22);
        // A second fetch, while the first has not quite ended, writes into the same ingest.
        assert_eq!(partials.begin(&digest, size).unwrap().received_bytes(), 2 * PIECE_BYTES + 22);
    }
    assert_eq!(partials.kept_bytes(&digest, size), 2 * PIECE_BYTES + 22);
    assert_eq!(partials.kept_bytes(&digest, size + 1), 0);
    drop((store, partials));
    let (_, partials) = open(root.path());
    let again = partials.begin(&digest, size).unwrap();
    assert_eq!(again.missing().as_slice(), std::slice::from_ref(&(2 * PIECE_BYTES + 5..5 * PIECE_BYTES)));
    drop(again);
    assert_eq!(partials.begin(&digest, size + 1).unwrap().missing().as_slice(), std::slice::from_ref(&(0..size + 1)));
    partials.remove(&digest).unwrap();
    assert_eq!(partials.kept_bytes(&digest, size + 1), 0);
}

/// Readers follow the bytes; the end is theirs only when the digest is right.
#[test]
fn readers_never_see_the_end_of_a_wrong_blob() {
    let root = tempfile::tempdir().unwrap();
    let (_, partials) = open(root.path());
    for is_right in [true, false] {
        let content = bytes(3 * PIECE_BYTES + 1);
        let size = content.len() as u64;
        let digest = digest_of(if is_right { &content } else { b"other" });
        let partial = Arc::new(partials.begin(&digest, size).unwrap());
        let mut reader = partial.reader();
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        let verifying = {
            let partial = Arc::clone(&partial);
            std::thread::spawn(move || partial.settle(partial.verify()))
        };
        for start in (0..size).step_by(1000) {
            let end = (start + 1000).min(size);
            partial.write(start, &content[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]).unwrap();
        }
        verifying.join().unwrap();
        let got = reading.join().unwrap();
        assert_eq!(got.is_ok_and(|got| got == content), is_right);
        drop(partial);
        assert_eq!(partials.kept_bytes(&digest, size), if is_right { size } else { 0 });
    }
}

#[test]
fn an_empty_blob_is_complete_at_once() {
    let root = tempfile::tempdir().unwrap();
    let partial = Arc::new(open(root.path()).1.begin(&digest_of(b""), 0).unwrap());
    assert!(partial.missing().is_empty() && partial.is_complete());
    partial.settle(partial.verify());
    assert_eq!(partial.reader().read(&mut [0; 8]).unwrap(), 0);
}

/// What the store took over is gone here, whoever still reads it; the next fetch begins anew and leaves the blob alone.
#[test]
fn what_is_in_the_store_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    let (store, partials) = open(root.path());
    let digest = digest_of(b"abc");
    let partial = Arc::new(partials.begin(&digest, 3).unwrap());
    partial.write(0, b"abc").unwrap();
    let expected = Expected { digest: Some(digest), size_bytes: Some(3) };
    store.keep([store.adopt(&partial.path(), expected).unwrap()]).unwrap();
    partials.remove(&digest).unwrap();
    assert_eq!(partials.kept_bytes(&digest, 3), 0);
    partial.settle(Ok(()));
    let mut got = Vec::new();
    partial.reader().read_to_end(&mut got).unwrap();
    assert_eq!(got, b"abc");
    let again = partials.begin(&digest, 3).unwrap();
    assert_eq!(again.missing().as_slice(), std::slice::from_ref(&(0..3)));
    again.write(0, b"xyz").unwrap();
    assert!(matches!(partial.write(0, b"xyz"), Err(RegistryError::Kept { source: ContentError::NoIngest { .. } })));
    assert_eq!(store.read(&digest, 3).unwrap(), b"abc");
}
