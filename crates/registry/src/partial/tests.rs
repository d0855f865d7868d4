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
            std::thread::spawn(move || {
                let outcome = partial.verify();
                if outcome.is_err() {
                    partial.restart().unwrap();
                }
                partial.settle(outcome);
            })
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

/// A host that sends what was verified already once more, and otherwise, changes nothing.
#[test]
fn what_was_verified_is_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    let (_, partials) = open(root.path());
    let content = bytes(2 * PIECE_BYTES);
    let half = content.len() / 2;
    let partial = Arc::new(partials.begin(&digest_of(&content), content.len() as u64).unwrap());
    partial.write(0, &content[..half]).unwrap();
    let other: Vec<u8> = content[..half].iter().map(|byte| byte ^ 1).chain(content[half..].iter().copied()).collect();
    partial.write(0, &other).unwrap();
    partial.verify().unwrap();
    assert_eq!(std::fs::read(partial.path()).unwrap(), content);
}

/// Who read of bytes that were wrong is told so, however far the reader was, and reads the right ones from the first again.
#[test]
fn another_edition() {
    let root = tempfile::tempdir().unwrap();
    let (_, partials) = open(root.path());
    let content = bytes(3 * PIECE_BYTES);
    let size = content.len() as u64;
    let wrong: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
    let mut partial = partials.begin(&digest_of(&content), size).unwrap();
    partial.may_come_again = true;
    let partial = Arc::new(partial);
    let (mut unread, mut begun) = (partial.reader(), partial.reader());
    let edition = partial.edition();
    partial.write(0, &wrong).unwrap();
    begun.read_exact(&mut [0; 100]).unwrap();
    assert!(!partial.was_wrong(edition, &|| false), "who does not want to know it does not wait");
    let waiting = std::thread::spawn({
        let partial = Arc::clone(&partial);
        move || partial.was_wrong(edition, &|| true)
    });
    assert!(matches!(partial.verify(), Err(RegistryError::WrongDigest { .. })));
    partial.restart().unwrap();
    assert!(waiting.join().unwrap());
    assert!(
        partial.missing() == std::slice::from_ref(&(0..size))
            && partial.received_bytes() == 0
            && !partial.is_complete()
    );
    partial.write(0, &content).unwrap();
    for reader in [&mut unread, &mut begun] {
        let told = reader.read(&mut [0; 100]).unwrap_err();
        assert!(told.to_string().ends_with("so far is wrong and comes again"), "{told}");
    }
    partial.settle(partial.verify());
    assert!(!partial.was_wrong(partial.edition(), &|| true) && partial.was_wrong(edition, &|| true));
    let mut got = Vec::new();
    partial.reader().read_to_end(&mut got).unwrap();
    assert!(got == content && begun.read(&mut [0; 1]).is_err());
}
