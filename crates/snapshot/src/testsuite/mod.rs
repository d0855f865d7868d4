//! The contract of a snapshot driver as a runnable suite: each driver's tests call [`run`] on a fresh store, and [`snapshotter::run`] on a
//! snapshotter over it, as root.

pub mod crash;
mod files;
pub mod reboot;
pub mod snapshotter;

use std::fmt::Debug;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use berth_types::{ChainId, Classify, ErrorClass};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::SnapshotStore;

/// A promise of the contract that the driver does not keep, or an operation that should work and failed.
#[derive(Debug, thiserror::Error)]
#[error("{check}: {problem}")]
pub struct Violation {
    check: &'static str,
    problem: String,
}

type Check = Result<(), Violation>;

/// Runs every check.
///
/// # Errors
/// The first promise that is not kept.
pub fn run(store: &SnapshotStore) -> Check {
    layers(store)?;
    discarded_layers(store)?;
    same_layer_twice(store)?;
    writable_pairs(store)?;
    merged_files(store)?;
    deletions(store)?;
    files::every_kind(store)?;
    files::renamed_directories(store)?;
    removal(store)
}

fn chain(number: u8) -> ChainId {
    ChainId::from_bytes([number; 32])
}

fn expect<T: PartialEq + Debug>(check: &'static str, found: T, expected: T) -> Check {
    if found == expected {
        return Ok(());
    }
    Err(Violation { check, problem: format!("found {found:?}, expected {expected:?}") })
}

fn works<T, E: Debug>(check: &'static str, result: Result<T, E>) -> Result<T, Violation> {
    result.map_err(|error| Violation { check, problem: format!("{error:?}") })
}

fn make_layer(
    store: &SnapshotStore,
    number: u8,
    below: Option<u8>,
    fill: impl Fn(&Path) -> std::io::Result<()>,
) -> Check {
    let below = below.map(|below| store.lower(&chain(below)));
    let pending = works("begin layer", store.begin_layer_on(&chain(number), below.as_deref()))?;
    works("fill layer", fill(pending.dir()))?;
    works("commit layer", pending.commit(u64::from(number)))
}

fn layers(store: &SnapshotStore) -> Check {
    expect("an unknown layer", (store.has_layer(&chain(1)), store.layer_size(&chain(1))), (false, None))?;
    let pending = works("begin layer", store.begin_layer(&chain(1)))?;
    expect("a new layer is empty", works("list", fs::read_dir(pending.dir()))?.count(), 0)?;
    expect("a pending layer is not visible", store.has_layer(&chain(1)), false)?;
    works("write", fs::write(pending.dir().join("one"), "1"))?;
    works("mode of the root", fs::set_permissions(pending.dir(), fs::Permissions::from_mode(0o1777)))?;
    works("commit", pending.commit(42))?;
    expect("a committed layer is visible", store.has_layer(&chain(1)), true)?;
    expect("its size", store.layer_size(&chain(1)), Some(42))?;
    expect("its files", works("read", fs::read(store.layer_dir(&chain(1)).join("one")))?, b"1".to_vec())?;
    expect("the list of layers", works("list", store.layers())?, vec![chain(1)])?;
    works("settle", store.settle())
}

fn discarded_layers(store: &SnapshotStore) -> Check {
    let pending = works("begin layer", store.begin_layer(&chain(2)))?;
    // A file of this run alone: the directory may be that of a descriptor, whose number is anybody's once it is closed.
    let file = pending.dir().join(format!("dropped-by-{:?}", std::thread::current().id()));
    works("write", fs::write(&file, "1"))?;
    drop(pending);
    let _takes_the_number = works("open another directory", fs::File::open("/"))?;
    expect("a dropped layer is gone", (file.exists(), store.has_layer(&chain(2))), (false, false))
}

fn same_layer_twice(store: &SnapshotStore) -> Check {
    let second = works("begin layer", store.begin_layer(&chain(1)))?;
    works("write", fs::write(second.dir().join("other"), "2"))?;
    works("commit over an existing layer", second.commit(43))?;
    expect("the first one stays", store.layer_size(&chain(1)), Some(42))?;
    expect("with its files", store.layer_dir(&chain(1)).join("other").exists(), false)
}

fn writable_pairs(store: &SnapshotStore) -> Check {
    let lowers = vec![store.lower(&chain(1))];
    for (id, is_throw_away) in [("kept", false), ("thrown-away", true)] {
        let rootfs = works("prepare", store.prepare(id, lowers.clone(), is_throw_away))?;
        let upper = rootfs.upper.clone().unwrap_or_default();
        let mode = works("stat", fs::metadata(&upper))?.mode() & 0o7777;
        expect("the root looks like the uppermost layer's", mode, 0o1777)?;
        expect("a new writable layer is empty", works("size", store.writable_size(&rootfs))?, 0)?;
        let again = store.prepare(id, lowers.clone(), !is_throw_away);
        expect("preparing twice", again.map_err(|error| error.class()), Err(ErrorClass::AlreadyExists))?;
        expect("the same again", works("rootfs", store.rootfs(id, lowers.clone()))?, rootfs)?;
    }
    expect("prepared ids", works("list", store.prepared())?, vec!["kept".to_owned(), "thrown-away".to_owned()])?;
    for id in ["", "..", "a/b", ".hidden"] {
        let refused = store.prepare(id, Vec::new(), true).map_err(|error| error.class());
        expect("an id that is no name", refused, Err(ErrorClass::InvalidArgument))?;
    }
    for id in ["kept", "thrown-away", "never-was"] {
        works("discard", store.discard(id))?;
        let gone = store.rootfs(id, lowers.clone()).map_err(|error| error.class());
        expect("a discarded pair", gone, Err(ErrorClass::NotFound))?;
    }
    expect("no ids left", works("list", store.prepared())?, Vec::<String>::new())
}

/// Three layers and a writable one, as one tree; every kind of file can be made in it.
fn merged_files(store: &SnapshotStore) -> Check {
    make_layer(store, 3, Some(1), |dir| {
        fs::write(dir.join("three"), "3").and_then(|()| fs::write(dir.join("both"), "lower"))
    })?;
    make_layer(store, 4, Some(3), |dir| {
        fs::write(dir.join("four"), "4").and_then(|()| fs::write(dir.join("both"), "upper"))
    })?;
    let lowers: Vec<PathBuf> = [4, 3, 1].map(|number| store.lower(&chain(number))).to_vec();
    let rootfs = works("prepare", store.prepare("merged", lowers, true))?;
    let mount = works("mount", rootfs.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    for (name, content) in [("one", "1"), ("three", "3"), ("four", "4"), ("both", "upper")] {
        expect("merged content", works("read", fs::read_to_string(root.join(name)))?, content.to_owned())?;
    }
    works("write", fs::write(root.join("new"), "12345"))?;
    works("hard link", fs::hard_link(root.join("new"), root.join("linked")))?;
    works("link", symlink("/anywhere", root.join("link")))?;
    works("attribute", rustix::fs::lsetxattr(root.join("new"), "user.a", b"v", XattrFlags::empty()))?;
    works("fifo", rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0))?;
    let null = rustix::fs::makedev(1, 3);
    works("device", rustix::fs::mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::RUSR, null))?;
    works("socket", std::os::unix::net::UnixListener::bind(root.join("socket")))?;
    works("sparse", fs::File::create(root.join("sparse")).and_then(|file| file.set_len(1000)))?;
    expect("hard links", works("stat", fs::metadata(root.join("linked")))?.nlink(), 2)?;
    expect("fifo", works("stat", fs::metadata(root.join("fifo")))?.file_type().is_fifo(), true)?;
    expect("bytes written", works("size", store.writable_size(&rootfs))?, 5 + 1000)?;
    expect("layers stay", works("read", fs::read(store.layer_dir(&chain(3)).join("both")))?, b"lower".to_vec())?;
    drop(mount);
    works("discard", store.discard("merged"))
}

fn deletions(store: &SnapshotStore) -> Check {
    make_layer(store, 5, None, |dir| fs::create_dir(dir.join("d")).and_then(|()| fs::write(dir.join("d/x"), "x")))?;
    let rootfs = works("prepare", store.prepare("deletes", vec![store.lower(&chain(5))], false))?;
    let mount = works("mount", rootfs.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    works("remove", fs::remove_dir_all(root.join("d")))?;
    works("make anew", fs::create_dir(root.join("d")))?;
    drop(mount);
    let mount = works("mount again", works("rootfs", store.rootfs("deletes", rootfs.lowers))?.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    expect("deleted stays deleted", works("list", fs::read_dir(root.join("d")))?.count(), 0)?;
    expect("the layer has it", store.layer_dir(&chain(5)).join("d/x").exists(), true)?;
    drop(mount);
    works("discard", store.discard("deletes"))
}

fn removal(store: &SnapshotStore) -> Check {
    for number in [1, 3, 4, 5, 99] {
        works("remove layer", store.remove_layer(&chain(number)))?;
        expect("a removed layer", store.has_layer(&chain(number)), false)?;
    }
    expect("no layers left", works("list", store.layers())?, Vec::new())?;
    works("empty the trash", store.trash().empty())?;
    expect("the trash is empty", works("empty some", store.trash().empty_some(1))?, false)
}
