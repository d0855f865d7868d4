//! What a process leaves that dies in the middle of each operation, and what the next one makes of it.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use berth_types::Labels;

use super::{Check, Violation, chain, expect, works};
use crate::{LocalSnapshotter, MemoryRecords, Records as _, SnapshotStore, Snapshotter as _};

/// `open` opens the store of one directory, again and again; the store before is leaked, so that no destructor tidies up.
///
/// # Errors
/// The first promise that is not kept.
pub fn run(open: &dyn Fn() -> crate::Result<SnapshotStore>) -> Check {
    pending_layers(open)?;
    snapshots(open)
}

/// A process that was killed runs no destructors.
fn die<T>(value: T) {
    let _kept: std::mem::ManuallyDrop<T> = std::mem::ManuallyDrop::new(value);
}

fn pending_layers(open: &dyn Fn() -> crate::Result<SnapshotStore>) -> Check {
    let store = works("open", open())?;
    let empty = works("begin", store.begin_layer(&chain(30)))?;
    let filled = works("begin", store.begin_layer(&chain(31)))?;
    works("fill", fs::write(filled.dir().join("half"), "half"))?;
    let done = works("begin", store.begin_layer(&chain(32)))?;
    works("fill", fs::write(done.dir().join("whole"), "whole"))?;
    works("commit", done.commit(5))?;
    die((store, empty, filled));
    let store = works("open again", open())?;
    works("sweep", store.sweep())?;
    expect("only whole layers", works("list", store.layers())?, vec![chain(32)])?;
    expect("halves are gone", works("list", fs::read_dir(store.root.join("pending")))?.count(), 0)?;
    // The same layers can be made now.
    let again = works("begin", store.begin_layer(&chain(31)))?;
    works("commit", again.commit(0))?;
    for number in [31, 32] {
        works("remove", store.remove_layer(&chain(number)))?;
    }
    // Dies before the trash is emptied.
    die(store);
    let store = works("open once more", open())?;
    works("empty the trash", store.trash().empty())?;
    expect("nothing is left", works("list", store.layers())?.len(), 0)?;
    die(store);
    Ok(())
}

fn snapshots(open: &dyn Fn() -> crate::Result<SnapshotStore>) -> Check {
    let records = Arc::new(MemoryRecords::default());
    let with = |store: SnapshotStore| LocalSnapshotter::new(Arc::new(store), Arc::clone(&records) as _, "t/");
    let no_labels = Labels::new();
    let snapshots = with(works("open", open())?);
    works("prepare", snapshots.prepare("kept", None, &no_labels))?;
    works("prepare", snapshots.prepare("to-be-base", None, &no_labels))?;
    works("commit", snapshots.commit("base", "to-be-base", &no_labels))?;
    works("prepare", snapshots.prepare("child", Some("base"), &no_labels))?;
    works("prepare", snapshots.prepare("made-not-recorded", None, &no_labels))?;
    works("prepare", snapshots.prepare("unrecorded-not-removed", None, &no_labels))?;
    // Killed between making a home and recording it, and between deleting a record and its home: the record is not there, the home is.
    works("forget", records.write(vec![("t/made-not-recorded".to_owned(), None)]))?;
    works("forget", records.write(vec![("t/unrecorded-not-removed".to_owned(), None)]))?;
    die(snapshots);

    let snapshots = with(works("open again", open())?);
    let kept = works("mounts", snapshots.mounts("kept"))?;
    works("clean up", snapshots.cleanup())?;
    expect("what has a record stays", works("mounts", snapshots.mounts("kept"))?, kept)?;
    let names: BTreeSet<String> = works("walk", snapshots.walk())?.into_iter().map(|info| info.name).collect();
    expect("names", names, ["base", "child", "kept"].map(str::to_owned).into())?;
    for (key, name) in [("kept", "kept-too"), ("child", "child-too")] {
        works("commit after the crash", snapshots.commit(name, key, &no_labels))?;
    }
    works("a new one", snapshots.prepare("new", Some("child-too"), &no_labels))?;
    for key in ["new", "child-too", "base", "kept-too"] {
        works("remove", snapshots.remove(key))?;
    }
    works("clean up", snapshots.cleanup())?;
    let left = works("walk", snapshots.walk())?;
    if left.is_empty() { Ok(()) } else { Err(Violation { check: "nothing left", problem: format!("{left:?}") }) }
}
