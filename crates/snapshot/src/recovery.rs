//! Opening a store: its version, and what a reboot since the last opening made unsure.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::PoisonError;

use crate::layer::{LayerRecord, SETTLED_FILE};
use crate::{Result, SnapshotError, SnapshotStore, ledger, names};

const VERSION: &str = "1";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const SMALL_FILE_MAX: u64 = 128;

/// Writes the version of a new store; refuses another one.
pub(crate) fn check_version(root: &Path) -> Result<()> {
    let path = root.join("version");
    match read_small(&path)? {
        Some(found) if found == VERSION => Ok(()),
        // Empty: the store was new when the host went down.
        Some(found) if found.is_empty() => write_small(&path, VERSION),
        None => write_small(&path, VERSION),
        Some(found) => Err(SnapshotError::Version { path: root.to_owned(), found, expected: VERSION }),
    }
}

pub(crate) fn boot_id() -> Result<String> {
    Ok(read_small(Path::new(BOOT_ID))?.unwrap_or_default())
}

/// Drops unsettled layers and throw-away pairs of an earlier boot; remembers unsettled ones of this boot.
pub(crate) fn recover(store: &SnapshotStore) -> Result<()> {
    store.driver.recover(&store.root)?;
    let boot = store.root.join("boot");
    let is_same_boot = read_small(&boot)?.as_deref() == Some(&store.boot_id);
    for chain_id in store.layers()? {
        let home = store.layer_home(&chain_id);
        // A record that cannot be read is one that never reached the disk, or is damaged: the layer is unpacked again.
        let record = LayerRecord::load(&home).ok().flatten();
        let is_settled = home.join(SETTLED_FILE).exists();
        if let Some(record) = record.filter(|record| is_settled || record.boot_id == store.boot_id) {
            let size = ledger::noted(&home, &record);
            store.ledger.add(chain_id, size);
            if is_settled && size.disk_bytes.is_some() {
                continue;
            }
            // To be flushed, or only measured, by the background work.
            store.unsettled.lock().unwrap_or_else(PoisonError::into_inner).insert(chain_id);
        } else if is_same_boot {
            // Containers outlive the daemon.
            store.set_aside(&chain_id)?;
        } else {
            store.trash.put(&home)?;
        }
    }
    if !is_same_boot {
        store.drop_replaced(&|_| BTreeSet::new())?;
        let throw_away = store.root.join("throw-away");
        // One by one: a driver may keep something of each elsewhere.
        for name in names(&throw_away)? {
            store.trash.put(&throw_away.join(name))?;
        }
        write_small(&boot, &store.boot_id)?;
    }
    Ok(())
}

fn read_small(path: &Path) -> Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SnapshotError::io("open", path, source)),
    };
    let mut text = String::new();
    file.take(SMALL_FILE_MAX).read_to_string(&mut text).map_err(|source| SnapshotError::io("read", path, source))?;
    Ok(Some(text.trim_end().to_owned()))
}

fn write_small(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("{text}\n")).map_err(|source| SnapshotError::io("write", path, source))
}
