use std::path::Path;

use berth_types::{Classify as _, ErrorClass};

use super::journal::replay;
use super::*;
use crate::{ContentStore, digest_of};

fn open(root: &Path) -> ContentStore {
    ContentStore::open(&root.join("content")).unwrap()
}

fn expecting(bytes: &[u8]) -> Expected {
    Expected { digest: Some(digest_of(bytes)), size_bytes: Some(bytes.len() as u64) }
}

/// S-114: an ingest goes on where it stopped, also in another process; its status is visible; a second writer is refused.
#[test]
fn s114_an_ingest_is_resumed_by_its_reference() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ingest = store.resume("default", "layer-1", expecting(b"hello world")).unwrap();
    assert_eq!(ingest.append(b"hello").unwrap(), 5);
    assert_eq!(store.resume("default", "layer-1", Expected::default()).unwrap_err().class(), ErrorClass::Unavailable);
    assert_eq!(store.abort("default", "layer-1").unwrap_err().class(), ErrorClass::Unavailable);
    ingest.sync().unwrap();
    drop(ingest);
    drop(store.resume("other", "layer-1", Expected::default()).unwrap());
    drop(store);

    let store = open(dir.path());
    let status = store.ingest_status("default", "layer-1").unwrap();
    assert_eq!((status.offset, status.total, status.expected), (5, Some(11), Some(digest_of(b"hello world"))));
    assert!(status.started <= status.updated);
    let ingest = store.resume("default", "layer-1", Expected::default()).unwrap();
    assert_eq!(ingest.status().offset, 5);
    ingest.append(b" world").unwrap();
    store.keep([ingest.finish(Expected::default()).unwrap()]).unwrap();
    assert_eq!(store.read(&digest_of(b"hello world"), 100).unwrap(), b"hello world");
    let left: Vec<String> = store.ingest_statuses(None).unwrap().into_iter().map(|s| s.namespace).collect();
    assert_eq!(left, ["other"], "a kept ingest is gone");
    assert_eq!(store.ingest_statuses(Some("default")).unwrap(), []);
    store.abort("other", "layer-1").unwrap();
    assert_eq!(store.abort("other", "layer-1").unwrap_err().class(), ErrorClass::NotFound);
    assert_eq!(store.ingest_status("other", "layer-1").unwrap_err().class(), ErrorClass::NotFound);
}

/// S-114: ranges arrive in any order and from several threads; what is missing is known exactly.
#[test]
fn s114_ranges_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let total = content.len() as u64;
    let ingest = store.resume("n", "r", expecting(&content)).unwrap();
    let piece = content.len() / 8;
    std::thread::scope(|scope| {
        for at in [7, 2, 5, 0].map(|n| n * piece) {
            let (ingest, content) = (&ingest, &content);
            scope.spawn(move || ingest.write_at(at as u64, &content[at..at + piece]).unwrap());
        }
    });
    let range = |from: usize, to: usize| (from * piece) as u64..(to * piece) as u64;
    assert_eq!(ingest.missing(total), [range(1, 2), range(3, 5), range(6, 7)]);
    assert_eq!(ingest.write_at(total, b"x").unwrap_err().class(), ErrorClass::InvalidArgument);
    drop(ingest);
    drop(store);
    let store = open(dir.path());
    let ingest = store.resume("n", "r", Expected::default()).unwrap();
    assert_eq!(ingest.status().bytes, range(0, 4).end);
    for gap in ingest.missing(total) {
        let bytes = usize::try_from(gap.start).unwrap()..usize::try_from(gap.end).unwrap();
        ingest.write_at(gap.start, &content[bytes]).unwrap();
    }
    let staged = ingest.finish(Expected::default()).unwrap();
    drop(staged);
    assert_eq!(store.ingest_status("n", "r").unwrap().offset, total, "staged but not kept: nothing is lost");
}

/// What was written once is not written again, whole or in part, by however many: a digest taken of it on the way still holds. A restart forgets it.
#[test]
fn s114_what_is_there_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ingest = store.resume("n", "r", expecting(b"0123456789")).unwrap();
    ingest.write_at(2, b"23").unwrap();
    ingest.write_at(6, b"67").unwrap();
    ingest.write_at(0, b"01xx45xx89").unwrap();
    let mut found = [0; 16];
    assert_eq!(ingest.read_at(0, &mut found).unwrap(), 10);
    assert_eq!(&found[..10], b"0123456789");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ingest.write_at(0, b"yyyyyyyyyy").unwrap());
        }
    });
    ingest.read_at(0, &mut found).unwrap();
    assert_eq!(&found[..10], b"0123456789");
    ingest.restart().unwrap();
    assert_eq!((ingest.extent(), ingest.read_at(0, &mut found).unwrap()), ((0, 0), 0));
    ingest.write_at(0, b"abc").unwrap();
    drop(ingest);
    let again = store.resume("n", "r", Expected::default()).unwrap();
    assert_eq!(again.extent(), (3, 3));
    again.read_at(0, &mut found).unwrap();
    assert_eq!(&found[..3], b"abc");
}

/// S-114: content that is not what it must be is thrown away, and the next attempt begins anew.
#[test]
fn s114_wrong_content_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ingest = store.resume("n", "r", expecting(b"hello")).unwrap();
    ingest.append(b"hell").unwrap();
    let error = ingest.finish(Expected::default()).unwrap_err();
    assert_eq!(error.to_string(), "content of 5 bytes expected, got 4");
    let ingest = store.resume("n", "r", Expected::default()).unwrap();
    assert_eq!(ingest.status().offset, 4);
    ingest.append(b"!").unwrap();
    let error = ingest.finish(Expected::default()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
    assert_eq!(store.ingest_status("n", "r").unwrap().offset, 0);
    assert_eq!(store.list().unwrap(), []);
}

/// What a crash of the host may have lost is not counted: only ranges before the last `synced` line of another boot.
#[test]
fn journal_of_another_boot() {
    let journal = "boot a\n0 10\n20 30\nsynced\n10 15\n40 50\n90 99";
    let ranges = |parts: &[Range<u64>]| {
        let mut ranges = Ranges::default();
        parts.iter().for_each(|range| ranges.add(range.clone()));
        ranges
    };
    assert_eq!(replay(journal, "a", 100), ranges(&[0..15, 20..30, 40..50]), "a torn last line does not count");
    assert_eq!(replay(journal, "b", 100), ranges(&[0..10, 20..30]));
    assert_eq!(replay(journal, "a", 45), ranges(&[0..15, 20..30]), "what the data does not have does not count");
    assert_eq!(replay("", "a", 100), Ranges::default());
    // Ranges by name, as they are written since several may write at once.
    let journal = "boot a\n0 10\n20 30\nsynced 0 10\n10 15\nsynced 12 14\n";
    assert_eq!(replay(journal, "b", 100), ranges(&[0..10, 12..14]));
    assert_eq!(replay(journal, "a", 100), ranges(&[0..15, 20..30]));
}

#[test]
fn ranges_merge() {
    let mut ranges = Ranges::default();
    for range in [5..7, 0..2, 9..12, 2..5, 11..20, 30..30] {
        ranges.add(range);
    }
    assert_eq!(ranges.0, [0..7, 9..20]);
    assert_eq!(ranges.missing(25), [7..9, 20..25]);
    assert_eq!(ranges.missing(8).first(), Some(&(7..8)));
    assert_eq!((ranges.prefix(), ranges.bytes()), (7, 18));
}

/// S-114: bytes of a blob from anywhere.
#[test]
fn s114_range_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.keep([store.stage(b"0123456789").unwrap()]).unwrap();
    let digest = digest_of(b"0123456789");
    let mut buffer = [0; 4];
    assert_eq!(store.read_at(&digest, 8, &mut buffer).unwrap(), 2);
    assert_eq!(&buffer[..2], b"89");
    assert_eq!(store.read_at(&digest, 10, &mut buffer).unwrap(), 0);
    assert_eq!(store.read_at(&digest, 11, &mut buffer).unwrap_err().class(), ErrorClass::InvalidArgument);
    assert_eq!(store.read_at(&digest_of(b""), 0, &mut buffer).unwrap_err().class(), ErrorClass::NotFound);
}

/// A crash between the commit of a blob and the end of its ingest keeps no space and never writes to the blob.
#[test]
fn what_the_store_took_over_is_never_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ingest = store.resume("n", "r", expecting(b"abc")).unwrap();
    ingest.write_at(0, b"abc").unwrap();
    store.keep([store.adopt(&ingest.path(), expecting(b"abc")).unwrap()]).unwrap();
    drop(ingest);
    let again = store.resume("n", "r", expecting(b"abc")).unwrap();
    assert_eq!(again.extent(), (0, 0));
    again.write_at(0, b"xyz").unwrap();
    assert_eq!(store.read(&digest_of(b"abc"), 10).unwrap(), b"abc");
    store
        .keep([store.adopt(&again.path(), Expected { digest: Some(digest_of(b"xyz")), size_bytes: None }).unwrap()])
        .unwrap();
    drop(again);
    drop(store);
    let store = open(dir.path());
    store.sweep_taken_over().unwrap();
    assert_eq!(store.ingest_statuses(None).unwrap(), []);
}

/// A crash between the commit of a large blob and the record that needs it: the blob goes, by way of the trash, and its ingest is there to go on with.
#[test]
fn what_nobody_took_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; usize::try_from(crate::LARGE_BYTES).unwrap()];
    let store = open(dir.path());
    let ingest = store.resume("n", "r", expecting(&bytes)).unwrap();
    ingest.write_at(0, &bytes).unwrap();
    store.keep([store.adopt(&ingest.path(), expecting(&bytes)).unwrap()]).unwrap();
    drop((ingest, store));
    let store = open(dir.path());
    store.remove(&digest_of(&bytes)).unwrap();
    store.sweep_taken_over().unwrap();
    let again = store.resume("n", "r", expecting(&bytes)).unwrap();
    assert_eq!(again.extent(), (crate::LARGE_BYTES, crate::LARGE_BYTES), "also before the trash is emptied");
    store.empty_trash().unwrap();
    store.keep([store.adopt(&again.path(), expecting(&bytes)).unwrap()]).unwrap();
    store.verify(&digest_of(&bytes)).unwrap();
}
