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
    assert_eq!(fs::read_dir(scratch.file.parent().unwrap()).unwrap().count(), 2, "the file and its reserve");
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

/// A file of schema 1 is read and brought to the present one.
#[test]
fn schema_1_is_read() {
    let scratch = scratch();
    {
        let database = redb::Database::create(&scratch.file).unwrap();
        let transaction = database.begin_write().unwrap();
        for (name, key, value) in
            [("containers", "c", "record"), ("images", "i", "image"), ("tags", "t", "i"), ("facts", "schema", "1")]
        {
            let table = redb::TableDefinition::<&str, &[u8]>::new(name);
            transaction.open_table(table).unwrap().insert(key, value.as_bytes()).unwrap();
        }
        transaction.commit().unwrap();
    }
    for _ in 0..2 {
        let metadata = Metadata::open(&scratch.file).unwrap();
        assert_eq!(metadata.get(Table::Containers, "c").unwrap().unwrap(), b"record");
        metadata.write(vec![put(Table::Leases, "default/l", "lease")], Durability::Immediate).unwrap();
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
    metadata.write(vec![put(Table::Facts, "schema", "3")], Durability::Immediate).unwrap();
    drop(metadata);
    let error = Metadata::open(&scratch.file).unwrap_err();
    assert!(error.to_string().ends_with("has schema 3; this version knows schemas up to 2"), "{error}");
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
    assert_eq!(modes(), [0o600, 0o600]);
    fs::set_permissions(&scratch.file, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Metadata::open(&scratch.file).unwrap());
    assert_eq!(modes(), [0o600, 0o600]);
}
