use berth_content::digest_of;

use super::*;

fn bytes(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

/// A kill loses at most the pieces under way; a wrong journal loses everything, never the truth.
#[test]
fn pieces_survive_and_are_trusted_only_when_they_can_be() {
    let root = tempfile::tempdir().unwrap();
    let content = bytes(5 * PIECE_BYTES + 17);
    let (digest, size) = (digest_of(&content), content.len() as u64);
    let partials = Partials::open(root.path()).unwrap();
    {
        let partial = partials.begin(&digest, size).unwrap();
        let piece = usize::try_from(PIECE_BYTES).unwrap();
        partial.write(0, &content[..2 * piece + 5]).unwrap();
        partial.mark(0..2 * PIECE_BYTES + 5).unwrap();
        partial.write(5 * PIECE_BYTES, &content[5 * piece..]).unwrap();
        partial.mark(5 * PIECE_BYTES..size).unwrap();
        assert_eq!(partial.missing().first(), Some(&(2 * PIECE_BYTES..5 * PIECE_BYTES)));
        assert_eq!(partial.received_bytes(), 2 * PIECE_BYTES + 17);
    }
    assert_eq!(partials.kept_bytes(&digest, size), 2 * PIECE_BYTES + 17);
    assert_eq!(partials.kept_bytes(&digest, size + 1), 0);
    let again = partials.begin(&digest, size).unwrap();
    assert_eq!(again.missing().first(), Some(&(2 * PIECE_BYTES..5 * PIECE_BYTES)));
    // Another boot: what was not flushed may be lost.
    let journal = root.path().join(format!("{}.journal", digest.hex()));
    let mut text = fs::read(&journal).unwrap();
    let boot = boot_id();
    let at = text.windows(boot.len()).position(|w| w == boot.as_bytes()).unwrap();
    text[at] = b'X';
    text[HEADER_BYTES] = FLUSHED;
    fs::write(&journal, &text).unwrap();
    assert_eq!(partials.kept_bytes(&digest, size), PIECE_BYTES);
    fs::write(&journal, b"rubbish").unwrap();
    assert_eq!(partials.begin(&digest, size).unwrap().missing().first(), Some(&(0..size)));
}

/// Readers follow the bytes; the end is theirs only when the digest is right.
#[test]
fn readers_never_see_the_end_of_a_wrong_blob() {
    let root = tempfile::tempdir().unwrap();
    let partials = Partials::open(root.path()).unwrap();
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
            partial.mark(0..end).unwrap();
        }
        verifying.join().unwrap();
        let got = reading.join().unwrap();
        assert_eq!(got.is_ok_and(|got| got == content), is_right);
        assert_eq!(partials.kept_bytes(&digest, size), if is_right { size } else { 0 });
    }
}

#[test]
fn an_empty_blob_is_complete_at_once() {
    let root = tempfile::tempdir().unwrap();
    let partial = Arc::new(Partials::open(root.path()).unwrap().begin(&digest_of(b""), 0).unwrap());
    assert!(partial.missing().is_empty() && partial.is_complete());
    partial.settle(partial.verify());
    assert_eq!(partial.reader().read(&mut [0; 8]).unwrap(), 0);
}

/// A crash between the commit of a blob and the removal of its partial file keeps no space.
#[test]
fn what_is_in_the_store_already_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("partial");
    let partials = Partials::open(&directory).unwrap();
    let digest = digest_of(b"abc");
    let partial = partials.begin(&digest, 3).unwrap();
    fs::hard_link(partial.path(), root.path().join("blob")).unwrap();
    fs::write(directory.join("rubbish"), b"").unwrap();
    drop(partial);
    let again = Partials::open(&directory).unwrap();
    assert!(again.list().unwrap().is_empty() && !directory.join("rubbish").exists());
    assert!(root.path().join("blob").exists());
    // One that is in use under its second name is never written to again.
    let partial = again.begin(&digest, 3).unwrap();
    fs::hard_link(partial.path(), root.path().join("second")).unwrap();
    again.begin(&digest, 3).unwrap().write(0, b"xyz").unwrap();
    assert_eq!(fs::read(root.path().join("second")).unwrap(), [0, 0, 0]);
}
