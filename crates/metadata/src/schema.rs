//! The file on disk: its tables, its version, how it is made and how it is opened.
//!
//! A new file is made beside its final name, flushed, and renamed; so a file that exists was complete once, and an empty one is damage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase as _, StorageError, TableDefinition, WriteTransaction};

use crate::error::Damage;
use crate::journal::{Generation, fresh_generation};
use crate::{MetadataError, Result, Table};

/// The version this code writes, kept in `Facts` under [`SCHEMA_KEY`]. History: 1 = containers, images, tags, facts; 2 = the tables of tenants;
/// 3 = a journal beside it.
const SCHEMA: u32 = 3;
const SCHEMA_KEY: &str = "schema";

/// Also of what lies beside it.
pub(crate) const FILE_MODE: u32 = 0o600;

/// The database is a few hundred records; pages beyond this are read again through the kernel's cache.
const CACHE_BYTES: usize = 1 << 20;

/// Of schema 1.
const FIRST_TABLES: [Table; 4] = [Table::Containers, Table::Images, Table::Tags, Table::Facts];
/// New in schema 2.
const TENANT_TABLES: [Table; 6] =
    [Table::Namespaces, Table::Blobs, Table::Leases, Table::Snapshots, Table::Names, Table::Objects];

type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

/// New in schema 3: which records of the journal are not in the tables.
pub(crate) const JOURNAL: Definition = TableDefinition::new("journal");
pub(crate) const GENERATION_KEY: &str = "generation";

pub(crate) const fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Containers => "containers",
        Table::Images => "images",
        Table::Tags => "tags",
        Table::Facts => "facts",
        Table::Namespaces => "namespaces",
        Table::Blobs => "blobs",
        Table::Leases => "leases",
        Table::Snapshots => "snapshots",
        Table::Names => "names",
        Table::Objects => "objects",
    })
}

/// What the journal calls a table; a promise to disk like its name.
pub(crate) const fn tag_of(table: Table) -> u8 {
    match table {
        Table::Containers => 1,
        Table::Images => 2,
        Table::Tags => 3,
        Table::Facts => 4,
        Table::Namespaces => 5,
        Table::Blobs => 6,
        Table::Leases => 7,
        Table::Snapshots => 8,
        Table::Names => 9,
        Table::Objects => 10,
    }
}

pub(crate) fn table_of(tag: u8) -> Option<Table> {
    FIRST_TABLES.into_iter().chain(TENANT_TABLES).find(|table| tag_of(*table) == tag)
}

pub(crate) fn open(file: &Path) -> Result<Database> {
    match fs::metadata(file) {
        Ok(found) if found.len() == 0 => return Err(damaged(file, Damage::Empty)),
        // Older versions made it as the umask said: records hold what containers are given in their environment.
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let private = fs::Permissions::from_mode(FILE_MODE);
            let failed = |source| MetadataError::File { operation: "make private", file: file.to_owned(), source };
            fs::set_permissions(file, private).map_err(failed)?;
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(file)?,
        Err(source) => return Err(MetadataError::File { operation: "open", file: file.to_owned(), source }),
    }
    // Every page is verified by checksum here, so that later reads meet no surprise; redb may still panic on bytes it never wrote.
    let database = guarded(file, || {
        redb::Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(file)
    })?;
    let found = guarded(file, || read_schema(&database))?;
    match found.as_deref().map(str::parse::<u32>) {
        Some(Ok(SCHEMA)) => Ok(database),
        Some(Ok(1 | 2)) => {
            upgrade(&database)
                .map_err(|error| MetadataError::Write { file: file.to_owned(), source: Arc::new(error) })?;
            Ok(database)
        }
        Some(Ok(newer)) if newer > SCHEMA => {
            Err(MetadataError::Newer { file: file.to_owned(), found: newer.to_string(), known: SCHEMA })
        }
        Some(_) | None => Err(damaged(file, Damage::NoSchema)),
    }
}

fn damaged(file: &Path, source: Damage) -> MetadataError {
    MetadataError::Damaged { file: file.to_owned(), source }
}

/// Runs a step of opening; a panic inside it means that the file is damaged.
fn guarded<T>(file: &Path, step: impl FnOnce() -> std::result::Result<T, DatabaseError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(open_error(file, error)),
        Err(_panic) => Err(damaged(file, Damage::Inconsistent)),
    }
}

fn open_error(file: &Path, error: DatabaseError) -> MetadataError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            MetadataError::Busy { file: file.to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(source)) if is_damage(&source) => {
            damaged(file, Damage::Content(source.to_string()))
        }
        DatabaseError::Storage(StorageError::Io(source)) => {
            MetadataError::File { operation: "open", file: file.to_owned(), source }
        }
        other => damaged(file, Damage::Content(other.to_string())),
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn read_schema(database: &Database) -> std::result::Result<Option<String>, DatabaseError> {
    let corrupted = |error: redb::Error| DatabaseError::Storage(StorageError::Corrupted(error.to_string()));
    let transaction = database.begin_read().map_err(|e| corrupted(e.into()))?;
    for table in FIRST_TABLES {
        transaction.open_table(definition(table)).map_err(|e| corrupted(e.into()))?;
    }
    let facts = transaction.open_table(definition(Table::Facts)).map_err(|e| corrupted(e.into()))?;
    let value = facts.get(SCHEMA_KEY).map_err(|e| corrupted(e.into()))?;
    let found = value.map(|v| String::from_utf8_lossy(v.value()).into_owned());
    let tenants: &[Table] = if found.as_deref() == Some("1") { &[] } else { &TENANT_TABLES };
    for table in tenants {
        transaction.open_table(definition(*table)).map_err(|e| corrupted(e.into()))?;
    }
    Ok(found)
}

/// From schema 1 or 2 to the present one, in one transaction: a crash leaves either.
fn upgrade(database: &Database) -> std::result::Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    fill_in(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// Tables that are not there yet, and what they hold from the start.
fn fill_in(transaction: &WriteTransaction) -> std::result::Result<(), redb::Error> {
    for table in FIRST_TABLES.into_iter().chain(TENANT_TABLES) {
        transaction.open_table(definition(table))?;
    }
    transaction.open_table(JOURNAL)?.insert(GENERATION_KEY, &fresh_generation()?[..])?;
    transaction.open_table(definition(Table::Facts))?.insert(SCHEMA_KEY, SCHEMA.to_string().as_bytes())?;
    Ok(())
}

/// Which records of the journal the tables lack.
pub(crate) fn generation(file: &Path, database: &Database) -> Result<Generation> {
    let read = || -> std::result::Result<Option<Generation>, redb::Error> {
        let table = database.begin_read()?.open_table(JOURNAL)?;
        Ok(table.get(GENERATION_KEY)?.and_then(|value| value.value().try_into().ok()))
    };
    match read() {
        Ok(Some(generation)) => Ok(generation),
        Ok(None) => Err(damaged(file, Damage::NoGeneration)),
        Err(error) => Err(damaged(file, Damage::Content(error.to_string()))),
    }
}

/// Writes an empty database of the current schema and gives it its name when it is on disk.
fn make(file: &Path) -> Result<()> {
    let failed = |operation, source| MetadataError::File { operation, file: file.to_owned(), source };
    let draft = file.with_extension("redb-new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace the draft of", error)),
        _ => {}
    }
    fill(&draft).map_err(|error| match error {
        redb::Error::Io(source) => failed("make", source),
        other => MetadataError::Write { file: file.to_owned(), source: Arc::new(other) },
    })?;
    fs::rename(&draft, file).map_err(|e| failed("name", e))?;
    flush_directory(file).map_err(|e| failed("flush the directory of", e))
}

/// After which the file's name is on disk.
pub(crate) fn flush_directory(file: &Path) -> io::Result<()> {
    let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn fill(draft: &Path) -> std::result::Result<(), redb::Error> {
    // An empty file is as good as none to redb, which would make it for everybody to read.
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(draft)?;
    let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(draft)?;
    let transaction = database.begin_write()?;
    fill_in(&transaction)?;
    transaction.commit()?;
    database.close()?;
    File::open(draft)?.sync_all()?;
    Ok(())
}
