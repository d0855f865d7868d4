use std::fs;
use std::path::PathBuf;

use berth_types::{Classify as _, ErrorClass};

use super::*;

fn put(table: Table, key: &str, value: &str) -> Write {
    Write::Put { table, key: key.to_owned(), value: value.as_bytes().to_vec() }
}

fn delete(table: Table, key: &str) -> Write {
    Write::Delete { table, key: key.to_owned() }
}

struct Scratch {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Scratch {
    fn journal(&self) -> PathBuf {
        self.file.with_extension("journal")
    }

    fn facts(&self) -> Vec<String> {
        let facts = Metadata::open(&self.file).unwrap().list(Table::Facts).unwrap();
        facts.into_iter().map(|(key, _)| key).filter(|key| key != "schema").collect()
    }
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metadata.redb");
    Scratch { _dir: dir, file }
}

#[test]
fn records_survive_reopening() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    metadata.write(vec![put(Table::Tags, "b", "2"), put(Table::Tags, "a", "1")], Durability::Immediate).unwrap();
    metadata.write(vec![put(Table::Containers, "x", "later")], Durability::Eventual).unwrap();
    assert_eq!(metadata.get(Table::Containers, "x").unwrap().unwrap(), b"later");
    drop(metadata);
    let metadata = Metadata::open(&scratch.file).unwrap();
    let tags = metadata.list(Table::Tags).unwrap();
    assert_eq!(tags, [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
    assert_eq!(metadata.get(Table::Containers, "x").unwrap().unwrap(), b"later");
    assert_eq!(metadata.get(Table::Images, "x").unwrap(), None);
    metadata.write(vec![delete(Table::Tags, "a"), delete(Table::Tags, "none")], Durability::Immediate).unwrap();
    assert_eq!(metadata.get(Table::Tags, "a").unwrap(), None);
    assert_eq!(
        fs::read_dir(scratch.file.parent().unwrap()).unwrap().count(),
        3,
        "the file, its journal and its reserve"
    );
}

#[test]
fn writes_of_many_threads_all_arrive() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let metadata = &metadata;
            scope.spawn(move || {
                for i in 0..20 {
                    let durability = if i % 2 == 0 { Durability::Immediate } else { Durability::Eventual };
                    metadata.write(vec![put(Table::Facts, &format!("{thread}-{i}"), "v")], durability).unwrap();
                }
            });
        }
    });
    assert_eq!(metadata.list(Table::Facts).unwrap().len(), 160 + 1);
}

#[test]
fn too_large_is_refused_and_nothing_of_the_call_written() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    let huge = put(Table::Tags, &"k".repeat(KEY_BYTES_MAX + 1), "v");
    let error = metadata.write(vec![put(Table::Tags, "small", "v"), huge], Durability::Immediate).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
    assert_eq!(metadata.list(Table::Tags).unwrap(), []);
}

#[test]
fn second_opener_is_told_that_it_is_busy() {
    let scratch = scratch();
    let _first = Metadata::open(&scratch.file).unwrap();
    let error = Metadata::open(&scratch.file).unwrap_err();
    assert!(matches!(error, MetadataError::Busy { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
}

/// Files of schemas 1 and 2 are read and brought to the present one.
#[test]
fn older_schemas_are_read() {
    const TENANTS: [&str; 6] = ["namespaces", "blobs", "leases", "snapshots", "names", "objects"];
    for (schema, tenants) in [("1", &[][..]), ("2", &TENANTS)] {
        let scratch = scratch();
        let first =
            [("containers", "c", "record"), ("images", "i", "image"), ("tags", "t", "i"), ("facts", "schema", schema)];
        {
            let database = redb::Database::create(&scratch.file).unwrap();
            let transaction = database.begin_write().unwrap();
            for (name, key, value) in first.into_iter().chain(tenants.iter().map(|name| (*name, "t/k", "of a tenant")))
            {
                let table = redb::TableDefinition::<&str, &[u8]>::new(name);
                transaction.open_table(table).unwrap().insert(key, value.as_bytes()).unwrap();
            }
            transaction.commit().unwrap();
        }
        for _ in 0..2 {
            let metadata = Metadata::open(&scratch.file).unwrap();
            assert_eq!(metadata.get(Table::Containers, "c").unwrap().unwrap(), b"record");
            assert_eq!(metadata.get(Table::Names, "t/k").unwrap().is_some(), schema == "2");
            metadata.write(vec![put(Table::Leases, "default/l", "lease")], Durability::Immediate).unwrap();
        }
    }
}

#[test]
fn records_by_prefix() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    let keys = ["a/1", "a/2", "a", "a0", "b/1"];
    metadata.write(keys.map(|key| put(Table::Blobs, key, key)).to_vec(), Durability::Immediate).unwrap();
    let found: Vec<String> = metadata.list_below(Table::Blobs, "a/").unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, ["a/1", "a/2"]);
}

#[test]
fn newer_schema_is_refused_by_name_and_left_alone() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    metadata.write(vec![put(Table::Facts, "schema", "4")], Durability::Immediate).unwrap();
    drop(metadata);
    let error = Metadata::open(&scratch.file).unwrap_err();
    assert!(error.to_string().ends_with("has schema 4; this version knows schemas up to 3"), "{error}");
    assert_eq!(error.class(), ErrorClass::FailedPrecondition);
    assert!(matches!(Metadata::open(&scratch.file), Err(MetadataError::Newer { .. })));
}

/// A file that is not ours, is cut short, or has bytes turned over is an error of class `DataLoss`, or still reads exactly as written.
#[test]
fn damage_is_an_error_never_a_panic_or_a_fresh_start() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    for i in 0..40 {
        metadata.write(vec![put(Table::Containers, &format!("c{i}"), &"r".repeat(700))], Durability::Eventual).unwrap();
    }
    let records = metadata.list(Table::Containers).unwrap();
    drop(metadata);
    let good = fs::read(&scratch.file).unwrap();
    let refused = std::cell::Cell::new(0);
    let check = |bytes: &[u8], what: &str| {
        fs::write(&scratch.file, bytes).unwrap();
        match Metadata::open(&scratch.file) {
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::DataLoss, "{what}: {error}");
                refused.set(refused.get() + 1);
            }
            Ok(metadata) => assert_eq!(metadata.list(Table::Containers).unwrap(), records, "{what}"),
        }
    };
    for bad in [&b""[..], b"garbage", &[0; 8192], &good[..100], &good[..4096], &good[..good.len() / 2]] {
        check(bad, &format!("{} bytes", bad.len()));
    }
    for at in (0..good.len()).step_by(1531).chain(0..320) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        check(&bytes, &format!("byte {at} turned over"));
    }
    assert!(refused.get() > 20, "{refused:?}");
    check(&good, "the good file");
}

/// Records hold what containers are given in their environment: nobody else reads them, whatever the umask, also where an older version made the file.
#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = scratch();
    let modes = || -> Vec<u32> {
        let entries = fs::read_dir(scratch.file.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777).collect()
    };
    drop(Metadata::open(&scratch.file).unwrap());
    assert_eq!(modes(), [0o600, 0o600, 0o600]);
    fs::set_permissions(&scratch.file, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Metadata::open(&scratch.file).unwrap());
    assert_eq!(modes(), [0o600, 0o600, 0o600]);
}

const BLOCK: usize = 4096;

/// The files as a power failure leaves them after ten writes: the database as it was before them, and the journal. One record each, a block long
/// but for that of "6", which has three.
fn after_power_loss(scratch: &Scratch) -> (Vec<u8>, Vec<u8>) {
    drop(Metadata::open(&scratch.file).unwrap());
    let before = fs::read(&scratch.file).unwrap();
    let metadata = Metadata::open(&scratch.file).unwrap();
    for i in 0..10 {
        let durability = if i % 3 == 1 { Durability::Eventual } else { Durability::Immediate };
        let long = "v".repeat(if i == 6 { 2 * BLOCK } else { 100 });
        metadata
            .write(vec![put(Table::Facts, &i.to_string(), &long), delete(Table::Facts, "none")], durability)
            .unwrap();
    }
    drop(metadata);
    (before, fs::read(scratch.journal()).unwrap())
}

/// The offset of each record and of the end.
fn records() -> Vec<usize> {
    (0..=10).map(|i| BLOCK * if i > 6 { i + 2 } else { i }).collect()
}

/// What was acknowledged is there after power loss, from the journal alone, as often as it takes; and nothing of it is lost by what comes after.
#[test]
fn acknowledged_writes_come_back_from_the_journal() {
    let scratch = scratch();
    let (before, journal) = after_power_loss(&scratch);
    let all: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    for _ in 0..2 {
        fs::write(&scratch.file, &before).unwrap();
        fs::write(scratch.journal(), &journal).unwrap();
        assert_eq!(scratch.facts(), all);
        assert_eq!(scratch.facts(), all, "flushed when it was dropped");
    }
    fs::write(&scratch.file, &before).unwrap();
    fs::write(scratch.journal(), &journal).unwrap();
    let metadata = Metadata::open(&scratch.file).unwrap();
    metadata.write(vec![put(Table::Facts, "more", "v")], Durability::Immediate).unwrap();
    drop(metadata);
    fs::write(&scratch.file, &before).unwrap();
    let with_more: Vec<String> = all.iter().cloned().chain(["more".to_owned()]).collect();
    assert_eq!(scratch.facts(), with_more, "the next record follows those that were there");
}

/// A journal torn at any record reads as the records before it: the last write of a machine that lost its power was never acknowledged.
#[test]
fn a_torn_journal_reads_as_its_beginning() {
    let scratch = scratch();
    let (before, journal) = after_power_loss(&scratch);
    let starts = records();
    for (index, bounds) in starts.windows(2).enumerate() {
        let expected: Vec<String> = (0..index).map(|i| i.to_string()).collect();
        let (start, end) = (bounds[0], bounds[1]);
        // In the generation, the sequence, the length, the checksum, the table, the key, the value, and the last block of a long one.
        for at in [0, 16, 20, 32, 65, 74, 100, end - start - BLOCK + 70] {
            let mut torn = journal.clone();
            torn[start + at] ^= 1;
            fs::write(&scratch.file, &before).unwrap();
            fs::write(scratch.journal(), &torn).unwrap();
            assert_eq!(scratch.facts(), expected, "record {index}, byte {at}");
        }
        for kept in [start, start + 1, start + 63, start + 100] {
            fs::write(&scratch.file, &before).unwrap();
            fs::write(scratch.journal(), &journal[..kept]).unwrap();
            assert_eq!(scratch.facts(), expected, "cut after {kept} bytes");
            let len = fs::metadata(scratch.journal()).unwrap().len();
            assert_eq!(len, journal.len() as u64, "brought to its size again");
        }
    }
}

/// Records behind a lost one are not taken for followers of what is written in its place.
#[test]
fn records_of_a_lost_end_do_not_come_back() {
    let scratch = scratch();
    let (before, mut journal) = after_power_loss(&scratch);
    let lost = records()[4];
    journal[lost] ^= 1;
    fs::write(&scratch.file, &before).unwrap();
    fs::write(scratch.journal(), &journal).unwrap();
    let metadata = Metadata::open(&scratch.file).unwrap();
    metadata.write(vec![put(Table::Facts, "instead", "v")], Durability::Immediate).unwrap();
    drop(metadata);
    fs::write(&scratch.file, &before).unwrap();
    assert_eq!(scratch.facts(), ["0", "1", "2", "3", "instead"]);
}

/// A database that was put in place of another has nothing to do with that one's journal.
#[test]
fn the_journal_of_another_database_is_not_applied() {
    let scratch = scratch();
    after_power_loss(&scratch);
    fs::remove_file(&scratch.file).unwrap();
    assert_eq!(scratch.facts(), [""; 0]);
}

/// More than the journal holds, at once or one after the other, is as durable.
#[test]
fn more_than_the_journal_holds() {
    let scratch = scratch();
    let metadata = Metadata::open(&scratch.file).unwrap();
    let journal_len = usize::try_from(fs::metadata(scratch.journal()).unwrap().len()).unwrap();
    metadata.write(vec![put(Table::Facts, "before", "v")], Durability::Eventual).unwrap();
    metadata.write(vec![put(Table::Facts, "huge", &"v".repeat(journal_len))], Durability::Immediate).unwrap();
    let flushed = fs::read(&scratch.file).unwrap();
    let many = 3 * journal_len / BLOCK;
    let flushes = metadata.commits().flushes;
    for i in 0..many {
        metadata.write(vec![put(Table::Facts, &format!("{i:04}"), "v")], Durability::Immediate).unwrap();
    }
    assert!(metadata.commits().flushes >= flushes + 2, "{:?}", metadata.commits());
    assert_eq!(usize::try_from(metadata.commits().immediate).unwrap(), many + 1);
    drop(metadata);
    assert_eq!(scratch.facts().len(), many + 2);
    fs::write(&scratch.file, &flushed).unwrap();
    assert_eq!(scratch.facts(), ["before", "huge"], "flushed with all before it, and the journal is of a later state");
}

/// A record that was taken back is not there, and the next stands in its place.
#[test]
fn a_record_is_taken_back() {
    let scratch = scratch();
    let path = scratch.journal();
    let (mut journal, _) = journal::Journal::open(path.clone(), [7; 16]).unwrap();
    journal.append(b"first", true).unwrap();
    let before = journal.append(b"wrong", true).unwrap();
    journal.take_back(before);
    let payloads = || journal::Journal::open(path.clone(), [7; 16]).unwrap().1;
    assert_eq!(payloads(), [b"first"]);
    journal.append(b"other", false).unwrap();
    assert_eq!(payloads(), [b"first", b"other"]);
}

/// A journal that is none of ours to the last bit is an error, not an empty one, where its checksum says that we wrote it.
#[test]
fn a_record_of_a_later_version_is_an_error() {
    let scratch = scratch();
    drop(Metadata::open(&scratch.file).unwrap());
    {
        let database = schema::open(&scratch.file).unwrap();
        let generation = schema::generation(&scratch.file, &database).unwrap();
        let (mut journal, _) = journal::Journal::open(scratch.journal(), generation).unwrap();
        journal.append(&[1, 99, 0, 0, 0, 0, 0, 0, 0, 0], true).unwrap();
    }
    let error = Metadata::open(&scratch.file).unwrap_err();
    assert_eq!(error.class(), ErrorClass::DataLoss);
    assert!(error.to_string().contains("metadata.journal"), "{error}");
}
